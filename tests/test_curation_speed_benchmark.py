"""Seconds of curating and reporting many tetrodes: the folders that are measured, and what is printed."""

import subprocess

import pytest

from benchmarks import curation_speed
from benchmarks.many_tetrodes import make_tetrodes
from spikeinterface_simsort.sorted_units import open_units


def test_units_are_left_as_simsort_leaves_them(tmp_path):
    recording, truth = make_tetrodes(tmp_path / "data", num_tetrodes=2, minutes=1, piece_s=2.0, num_units=2)
    for _ in range(2):
        folder = curation_speed.write_sorted(tmp_path / "sorted", recording=recording, sorting=truth)
    units = open_units(folder)
    assert units.sorting.get_property("group").tolist() == [0, 0, 1, 1]
    assert units.recording is not None and units.recording.get_num_channels() == 8
    assert units.recording.get_property("group").tolist() == [0] * 4 + [1] * 4


def test_both_commands_are_measured(tmp_path, monkeypatch, capsys):
    def make(folder, *, num_tetrodes, minutes, num_units):
        return make_tetrodes(folder, num_tetrodes=num_tetrodes, minutes=minutes, num_units=num_units, piece_s=2.0)

    asked = []

    def watch(command, *, log, timeout_s):
        asked.append(command[3])
        log.write_text("what it wrote")
        return 10.0 * len(asked), 100.0, 0 if len(asked) < 4 else 1

    monkeypatch.setattr(curation_speed, "make_tetrodes", make)
    monkeypatch.setattr("benchmarks.runs.watch", watch)
    arguments = ["--runs", str(tmp_path), "--tetrodes", "2", "--units", "3", "--minutes", "1"]
    assert curation_speed.main([*arguments, "--output", str(tmp_path / "speed.csv")]) == 0
    assert asked == ["curate", "report"]
    printed = capsys.readouterr().out
    assert "4 units" in printed and "together 30 s" in printed
    assert (tmp_path / "speed.csv").read_text().splitlines()[0] == "command,seconds,peak_mb"
    with pytest.raises(subprocess.CalledProcessError):
        curation_speed.main(arguments)
