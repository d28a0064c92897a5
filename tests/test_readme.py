"""What the README tells a user to type."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import spikeinterface as si
import spikeinterface.sorters as ss

from spikeinterface_simsort.cli import make_parser

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf8"), flags=re.DOTALL)


def test_python(trial, tmp_path, monkeypatch):
    recording, _ = trial
    monkeypatch.chdir(tmp_path)
    recording.save(folder="my_recording")
    scope = {}
    exec(blocks("python")[0], scope)
    assert len(scope["sorting"].unit_ids) >= 2
    assert (tmp_path / "my_sorting").is_dir()


def test_many_tetrodes(trial, tmp_path, monkeypatch):
    recording = trial[0].frame_slice(0, 5 * 30000)
    monkeypatch.chdir(tmp_path)
    other = recording.rename_channels(["a", "b", "c", "d"])
    both = si.aggregate_channels([recording, other])
    both.set_property("group", [0] * 4 + [1] * 4)
    scope = {"recording": both.save(folder="both")}
    exec(blocks("python")[1], scope)
    assert set(scope["sorting"].get_property("group")) == {0, 1}
    exec(blocks("python")[2], scope)
    for group in ("0", "1"):
        found = len(ss.read_sorter_folder(tmp_path / "by_group" / group).unit_ids)
        assert found == np.sum(scope["sorting"].get_property("group") == int(group)) >= 2


@pytest.mark.parametrize(
    "command", [line.split("#")[0] for block in blocks("bash") for line in block.splitlines() if "simsort" in line]
)
def test_command_lines(command):
    words = shlex.split(command)
    if words[0] == "simsort":
        assert make_parser().parse_args(words[1:]).handler


def test_make_targets():
    makefile = (README.parent / "Makefile").read_text(encoding="utf8")
    targets = re.findall(r"^make (\w+)|`make (\w+)", README.read_text(encoding="utf8"), flags=re.MULTILINE)
    assert {name for pair in targets for name in pair if name} >= {"demo", "test", "figures"}
    for pair in targets:
        name = pair[0] or pair[1]
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name
