"""Nothing that is loaded runs code: what the source must not call, and what is refused when it is given."""

from __future__ import annotations

import ast
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikeinterface.sorters as ss
import torch

from spikeinterface_simsort.cli import main
from spikeinterface_simsort.simulation.fetch import unpack_cells
from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms
from spikeinterface_simsort.training.modules import EmbedderModule

CHECKOUT = Path(__file__).resolve().parents[1]
INSTALLED = ("spikeinterface_simsort", "simulation", "training")
# Modules of which some function reads pickles.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """All calls in what is installed: where, the name of what is called, the call."""
    for package in INSTALLED:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield f"{path.relative_to(CHECKOUT)}:{node.lineno}", ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, Any]:
    return {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}


# Bandit looks for more; these are what it does not know, or what must not be excused.


def test_no_module_that_reads_pickles() -> None:
    for package in INSTALLED:
        for path in (CHECKOUT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.partition(".")[0] for name in names} & UNSAFE_MODULES, path


def test_no_pickle_is_loaded() -> None:
    seen = set()
    for where, name, call in calls():
        given = keywords(call)
        assert name not in {"torch.load", "load_properties_from_folder", "save_properties_to_folder"}, where
        if name in {"np.load", "numpy.load"}:
            # Its default, too.
            assert given.get("allow_pickle", False) is False, where
            seen.add(name)
        if name.endswith("load_from_checkpoint") or "ckpt_path" in given:
            assert given.get("weights_only") is True, where
            seen.add(name.rpartition(".")[2])
    assert seen == {"np.load", "load_from_checkpoint", "fit"}


def test_no_text_is_run() -> None:
    for where, name, call in calls():
        assert name not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, where
        assert "shell" not in keywords(call), where
        if name.startswith("subprocess."):
            # A list of words, not a line for a shell.
            assert name == "subprocess.run" and isinstance(call.args[0], ast.List), where


def test_hub_is_asked_for_a_revision() -> None:
    asked = [
        (where, keywords(call)) for where, name, call in calls() if name in {"snapshot_download", "hf_hub_download"}
    ]
    assert len(asked) >= 2
    assert all("revision" in given for _, given in asked), asked


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    path = tmp_path / "exploded"
    yield Bomb(path)
    assert not path.exists()


def test_pickled_recording_is_refused(bomb: Bomb, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("session.pkl", "session.pickle"):
        torch.save(bomb, tmp_path / name)
        assert main(["sort", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 1
        assert "is a pickle, which can run anything and is not read: save the recording" in capsys.readouterr().err


def test_pickled_property_is_refused(bomb: Bomb, sorted_folder: Path, tmp_path: Path) -> None:
    properties = sorted_folder / "sorter_output" / "properties"
    intruder = properties / "comment.npy"
    np.save(intruder, np.array([bomb], dtype=object), allow_pickle=True)
    try:
        with pytest.raises(ValueError, match="allow_pickle=False"):
            ss.read_sorter_folder(sorted_folder)
    finally:
        intruder.unlink()


def test_checkpoint_is_read_as_tensors(bomb: Bomb, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": bomb}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        EmbedderModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)


def test_links_in_an_archive_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind, target in (
            ("soft.json", tarfile.SYMTYPE, "../../secret.json"),
            ("hard.json", tarfile.LNKTYPE, "cells/real.json"),
            ("device.json", tarfile.CHRTYPE, ""),
        ):
            link = tarfile.TarInfo(f"cells/{name}")
            link.type, link.linkname = kind, target
            archive.addfile(link)
        real = tarfile.TarInfo("cells/real.json")
        real.size = 2
        archive.addfile(real, io.BytesIO(b"{}"))
    assert unpack_cells(tmp_path / "a.tar", tmp_path / "in" / "cells", suffix=".json") == 1
    assert [path.name for path in (tmp_path / "in" / "cells").iterdir()] == ["real.json"]


def test_only_named_mechanisms_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those of the working directory nor those in folders below the named one."""
    pytest.importorskip("neuron")
    from spikeinterface_simsort.simulation import mechanisms

    for name in ("named/one.mod", "named/below/two.mod", "three.mod"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("NEURON { SUFFIX x }")
    seen: list[list[str]] = []

    def compile_nothing(paths: list[Path], *, folder: Path) -> None:
        seen.append([path.name for path in paths])
        (folder / "x86_64").mkdir()
        (folder / "x86_64" / "libnrnmech.so").touch()

    monkeypatch.setattr(mechanisms, "_run_nrnivmodl", compile_nothing)
    monkeypatch.chdir(tmp_path)
    compile_mechanisms(source_folder=tmp_path / "named", cache=tmp_path / "cache")
    compile_mechanisms(cache=tmp_path / "cache")
    own = sorted(path.name for path in (CHECKOUT / "simulation" / "mechanisms").glob("*.mod"))
    assert seen == [["one.mod"], own]
