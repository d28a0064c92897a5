"""The command line: what it teaches, what it writes, what it refuses, and that nothing half-written is left."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikeinterface.core as si
import spikeinterface.sorters as ss
import yaml
from probeinterface import ProbeGroup, generate_tetrode, write_prb, write_probeinterface
from spikeinterface.core import BaseRecording, NumpySorting, generate_ground_truth_recording

from spikeinterface_simsort import cli_demo, cli_recording, cli_simulate, cli_sort, pipeline, report
from spikeinterface_simsort.cli import main
from spikeinterface_simsort.cli_common import CommandError, format_table, staged_folder
from spikeinterface_simsort.cli_parameters import parse_settings
from spikeinterface_simsort.failures import explain_failure, read_trace
from spikeinterface_simsort.params import ParameterError, SimSortParams
from spikeinterface_simsort.preprocessing import RecordingError
from spikeinterface_simsort.simulation import trials
from spikeinterface_simsort.simulation.bank import NeuronCurrents, save_bank
from spikeinterface_simsort.simulation.datasets import trial_seed
from spikeinterface_simsort.simulation.trial_config import TrialConfig

RATE = 10000.0
HEADER = ["unit_id", "group", "main_channel", "num_spikes", "rate_hz", "snr", "probability", "violations"]
HEADER += ["predicted_accuracy"]


@pytest.fixture(scope="module")
def recording_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of 3 s on a tetrode, saved by SpikeInterface."""
    recording, _ = generate_ground_truth_recording(
        durations=[3.0], sampling_frequency=RATE, num_channels=4, num_units=2, seed=0
    )
    folder = tmp_path_factory.mktemp("input") / "session"
    recording.save(folder=folder, verbose=False, progress_bar=False)
    return folder


@pytest.fixture
def sorted_recordings(monkeypatch: pytest.MonkeyPatch) -> list[BaseRecording]:
    """Recordings that were sorted, by a stand-in that finds two units at once in any of them."""
    seen: list[BaseRecording] = []

    def find_two_units(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        seen.append(recording)
        trains = [
            {0: np.array([100, 110, 5000]), 1: np.array([7000, 9000])} for _ in range(recording.get_num_segments())
        ]
        sorting = NumpySorting.from_unit_dict(trains, recording.sampling_frequency)
        sorting.set_property("main_channel_id", recording.channel_ids[[0, -1]])
        sorting.set_property("snr", np.array([8.25, 4.0]))
        sorting.set_property("probability", np.array([0.9, 0.75]))
        sorting.set_property("predicted_accuracy", np.array([0.875, 0.5]))
        sorting.set_property("group", recording.get_property("group")[[0, -1]])
        return sorting

    monkeypatch.setattr(pipeline, "sort", find_two_units)
    return seen


@pytest.fixture
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of a picture than its file."""

    def write_file(recording: Any, sorting: Any, path: Path, **kwargs: Any) -> Path:
        path.write_bytes(b"picture")
        return path

    monkeypatch.setattr(report, "draw_units", write_file)


def failing_sort(error: BaseException) -> Callable[..., NumpySorting]:
    def sort(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        raise error

    return sort


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and captured.err.endswith(f"{lines[0]}\n")
    return lines[0]


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What it teaches


@pytest.mark.parametrize(
    ("command", "phrases"),
    [
        ([], ["run_sorter", "simsort demo --output", "simsort sort ", "simulate", "weights", "Exit codes"]),
        (["sort"], ["units.csv", "simsort sort session.raw", "--probe", "--group-size", "--list-params"]),
        (["demo"], ["accuracy.csv", "simsort demo --output demo", "--duration"]),
        (["simulate"], ["trial.yaml", "simsort simulate --num-trials 10", "--drift-um", "--recipe", "--scheduler"]),
        (["weights"], ["pull", "push", "show"]),
        (["weights", "pull"], ["hf://owner/name"]),
    ],
)
def test_help(command: list[str], phrases: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert [phrase for phrase in phrases if phrase not in text] == []
    assert max(map(len, text.splitlines())) <= 120


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, spikeinterface_simsort\n"
        "before = set(sys.modules)\n"
        "from spikeinterface_simsort.cli import main\n"
        "try:\n    main(['sort', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print(*sorted(name.partition('.')[0] for name in sys.modules.keys() - before), file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    heavy = {"torch", "spikeinterface", "matplotlib", "pandas", "lfpykit", "sklearn", "huggingface_hub", "safetensors"}
    assert heavy & set(run.stderr.split()) == set()


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "first commands" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["sort"],
        ["sort", "recording"],
        ["unknown"],
        ["-v", "-q", "weights", "show"],
        ["sort", "recording", "--output", "out", "--num-channels", "four"],
        ["demo", "--output", "out", "--duration", "-3"],
        ["simulate", "--output", "out", "--num-units", "0"],
        ["simulate", "--output", "out", "--noise-uv", "nan"],
    ],
)
def test_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: simsort" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sort", "demo"])
def test_list_params(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--list-params"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    resolved = SimSortParams().resolve()
    assert f"min_spikes ({resolved.min_spikes})\n    Units with fewer spikes are dropped. At least 1.\n" in text
    assert f"detect_threshold (None: {resolved.detect_threshold} with the default preset)" in text
    heads = [line.split(" (")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert heads == [field.name for field in fields(SimSortParams)]


def test_list_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["sort", "--list-formats"])
    assert exit_.value.code == 0
    formats = capsys.readouterr().out.splitlines()
    assert {"neuralynx (folder)", "openephys (folder)", "nwb (file)", "axona (file)", "mda (folder)"} <= set(formats)
    # What needs more than a path.
    assert not {"binary (file)", "numpy (file)", "ibl (file)"} & set(formats)


def test_simulate_knows_the_fields_of_a_trial() -> None:
    known = {field.name: field.default for field in fields(TrialConfig)}
    for flag, name, _, text in cli_simulate._CONFIG_OPTIONS:
        # The default that the help tells.
        default = known[name] if isinstance(known[name], str) else f"{known[name]:g}"
        assert text.endswith(f"({default})"), flag


# What it refuses before anything is read


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "There is no missing."),
        (["data.raw"], "data.raw is a file: name its format with --format"),
        (["data.raw", "--num-channels", "4"], "missing: --sampling-frequency, --dtype"),
        (["data.raw", "--gain-uv", "0.2"], "missing: --sampling-frequency, --num-channels, --dtype"),
        (["data.raw", *"--sampling-frequency 10000 --num-channels 3 --dtype int16".split()], "80 bytes"),
        (["data.raw", *"--sampling-frequency 10000 --num-channels 4 --dtype short16".split()], "'short16' is not a"),
        (["data.raw", *"--sampling-frequency 10000 --num-channels 4 --dtype U2".split()], "real numbers"),
        (["data.raw", *"--sampling-frequency 0 --num-channels 4 --dtype int16".split()], "must be positive"),
        (["data.raw", *"--sampling-frequency 9 --num-channels 4 --dtype int16 --offset-uv 1".split()], "--gain-uv"),
        (["data.raw", *"--sampling-frequency 9 --num-channels 4 --dtype int16 --format mda".split()], "leave out"),
        (["data.raw", *"--sampling-frequency 9 --num-channels 4 --dtype int16 --group-size 3".split()], "groups of 3"),
        (["folder", *"--sampling-frequency 9 --num-channels 4 --dtype int16".split()], "is a folder"),
        (["folder", "--format", "neuralinx"], "did you mean neuralynx"),
        (["data.raw", "--format", "neuralynx"], "is read from a folder"),
        (["folder", "--stream-id", "0"], "need --format"),
        (["folder", "--group-size", "0"], "--group-size must be 1 or more"),
        (["folder", "--probe", "missing.prb"], "There is no probe file missing.prb."),
        (["folder", "--probe", "data.raw"], "neither probeinterface's .json nor a .prb"),
        (["folder", "--set", "min_spike=5"], "There is no parameter 'min_spike': did you mean min_spikes"),
        (["folder", "--set", "min_spikes"], "NAME=VALUE"),
        (["folder", "--set", "min_spikes=many"], "min_spikes must be of type int, not 'many'."),
        (["folder", "--set", "min_spikes=0"], "min_spikes must be at least 1, not 0."),
        (["folder", "--preset", "best"], "preset must be one of ['default', 'paper'], not 'best'."),
        (["folder", "--set", "freq_min=70000"], "must be larger than freq_min (70000.0)."),
        (["folder", "--seed", "1", "--set", "seed=2"], "seed is given twice"),
        (["folder", "--n-jobs", "2", "--set", 'job_kwargs={"n_jobs": 1}'], "n_jobs is given twice"),
        (["folder", "--weights", "nowhere"], "There is no weights folder nowhere."),
        (["folder", "--output", "occupied"], "occupied exists: choose another folder, or pass --overwrite"),
        (["folder", "--output", "occupied/notes.txt"], "notes.txt is a file"),
        (["folder", "--output", "foreign", "--overwrite"], "holds 'thesis.tex', which is not simsort's"),
        (["folder", "--output", "blocked"], "holds 'thesis.tex', which is not simsort's"),
    ],
)
def test_refusal(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.raw").write_bytes(bytes(80))
    for name in ("folder", "occupied/sorting", "foreign", "blocked.partial"):
        Path(name).mkdir(parents=True)
    for name in ("occupied/notes.txt", "foreign/thesis.tex", "blocked.partial/thesis.tex"):
        Path(name).touch()
    if "occupied" in arguments:
        Path("occupied/notes.txt").unlink()
    monkeypatch.setattr(cli_sort, "read_recording", lambda args: pytest.fail("was read"))
    before = sorted(tmp_path.rglob("*"))
    output = [] if "--output" in arguments else ["--output", "out"]
    assert main(["sort", *arguments, *output]) == 1
    assert message in error_line(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_have_the_type_of_their_parameter() -> None:
    texts = ["whiten=Yes", "freq_max=none", "freq-min=250", "min_spikes=7", 'job_kwargs={"n_jobs": 2}', "device=cpu"]
    values = parse_settings(texts)
    assert values == {
        "whiten": True,
        "freq_max": None,
        "freq_min": 250.0,
        "min_spikes": 7,
        "job_kwargs": {"n_jobs": 2},
        "device": "cpu",
    }
    assert isinstance(values["freq_min"], float)
    for text in ("whiten=2", "job_kwargs=[1]", "min_spikes=none", "min_spikes=1.5"):
        with pytest.raises(ParameterError, match=text.partition("=")[0]):
            parse_settings([text])


# Sorting


def test_sort(
    recording_folder: Path,
    tmp_path: Path,
    sorted_recordings: list[BaseRecording],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "deeper" / "out"
    assert main(["sort", str(recording_folder), "--output", str(output), "--set", "min_spikes=2", "-q"]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["sorter", "sorting", "units.csv", "units.png"]
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert (output / "units.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "units.png").stat().st_size > 10_000

    sorting = si.load(output / "sorting")
    assert sorting.unit_ids.tolist() == [0, 1]
    assert sorting.get_unit_spike_train(0).tolist() == [100, 110, 5000]
    rows = read_csv(output / "units.csv")
    assert rows[0] == HEADER
    assert [(row[0], row[3]) for row in rows[1:]] == [("0", "3"), ("1", "2")]
    assert [float(row[4]) for row in rows[1:]] == pytest.approx([1.0, 2 / 3])
    assert [float(row[7]) for row in rows[1:]] == [0.5, 0.0]

    # SpikeInterface finds all in place after the folder was renamed.
    again = ss.read_sorter_folder(output / "sorter")
    assert again.has_recording() and np.array_equal(again.to_spike_vector(), sorting.to_spike_vector())
    params = json.loads((output / "sorter" / "spikeinterface_params.json").read_text())["sorter_params"]
    assert params["min_spikes"] == 2 and params["preset"] == "default"

    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split("  ")[0].strip() == "unit" and "ISI < 1.5 ms" in lines[0]
    assert "50.00%" in lines[1] and "1.00" in lines[1]
    assert lines[0].endswith("predicted accuracy") and lines[2].endswith("0.50")
    assert lines[-1] == str(output / "units.png")
    assert "error" not in captured.err


def test_properties_of_units_are_kept(
    recording_folder: Path, tmp_path: Path, sorted_recordings: list[BaseRecording], quick_picture: None
) -> None:
    output = tmp_path / "out"
    assert main(["sort", str(recording_folder), "--output", str(output)]) == 0
    sorting = si.load(output / "sorting")
    assert sorting.get_property("snr").tolist() == [8.25, 4.0]
    channels = [str(channel) for channel in si.load(recording_folder).channel_ids[[0, -1]]]
    assert [(row[1], row[2], row[5], row[6], row[8]) for row in read_csv(output / "units.csv")[1:]] == [
        ("0", channels[0], "8.25", "0.9", "0.875"),
        ("0", channels[1], "4.0", "0.75", "0.5"),
    ]


def test_the_log_goes_to_stderr(
    recording_folder: Path,
    tmp_path: Path,
    sorted_recordings: list[BaseRecording],
    quick_picture: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = logging.getLogger("spikeinterface_simsort")
    before = package.level, list(package.handlers)
    # The options may stand before and after the command.
    for index, (arguments, expected) in enumerate(
        [(["sort"], True), (["-q", "sort"], False), (["-v", "sort"], True), (["sort", "--quiet"], False)]
    ):
        assert main([*arguments, str(recording_folder), "--output", str(tmp_path / str(index))]) == 0
        assert ("Sorting 3.0 s of 4 channels at 10000 Hz." in capsys.readouterr().err) == expected
    assert (package.level, package.handlers) == before


def test_overwriting(
    recording_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sorted_recordings: list[BaseRecording],
    quick_picture: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["sort", str(recording_folder), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    before = read_tree(tmp_path)
    capsys.readouterr()
    assert main(arguments) == 1
    assert "pass --overwrite" in error_line(capsys)
    assert read_tree(tmp_path) == before

    # A run that fails leaves the old output, and nothing else.
    with monkeypatch.context() as context:
        context.setattr(pipeline, "sort", failing_sort(RecordingError("The recording holds NaN.")))
        assert main([*arguments, "--overwrite"]) == 1
    assert error_line(capsys) == "error: The sorter failed. The recording holds NaN."
    assert read_tree(tmp_path) == before

    assert main([*arguments, "--overwrite", "--set", "min_spikes=3"]) == 0
    params = json.loads((tmp_path / "out" / "sorter" / "spikeinterface_params.json").read_text())
    assert params["sorter_params"]["min_spikes"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_replaced(
    recording_folder: Path, tmp_path: Path, sorted_recordings: list[BaseRecording], quick_picture: None
) -> None:
    (tmp_path / "out.partial" / "sorter" / "sorter_output").mkdir(parents=True)
    assert main(["sort", str(recording_folder), "--output", str(tmp_path / "out")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failures(
    recording_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sort", str(recording_folder), "--output", str(tmp_path / "out")]
    # An error that the sorter foresees says all; of another, the log tells where it came from.
    monkeypatch.setattr(pipeline, "sort", failing_sort(ParameterError("There is no device 'cuda' here.")))
    assert main(arguments) == 1
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    assert captured.endswith("error: The sorter failed. There is no device 'cuda' here.\n")
    assert main([*arguments, "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setattr(pipeline, "sort", failing_sort(KeyError("oops")))
    assert main(arguments) == 1
    captured = capsys.readouterr().err
    assert "Traceback" in captured and captured.endswith("error: The sorter failed. KeyError: 'oops'\n")
    monkeypatch.setattr(pipeline, "sort", failing_sort(KeyboardInterrupt()))
    assert main(arguments) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_no_units(
    recording_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_nothing(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        empty = NumpySorting.from_unit_dict([{}], recording.sampling_frequency)
        return NumpySorting(empty.to_spike_vector(), recording.sampling_frequency, np.array([], dtype="int64"))

    monkeypatch.setattr(pipeline, "sort", find_nothing)
    assert main(["sort", str(recording_folder), "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"No units were found.\n\n{tmp_path / 'out' / 'units.png'}\n"
    assert read_csv(tmp_path / "out" / "units.csv") == [HEADER]
    assert si.load(tmp_path / "out" / "sorting").get_num_units() == 0


# Reading


@pytest.mark.parametrize(("dtype", "time_axis"), [("int16", 0), (">f4", 1)])
def test_raw_binary(
    dtype: str,
    time_axis: int,
    tmp_path: Path,
    sorted_recordings: list[BaseRecording],
    quick_picture: None,
) -> None:
    traces = np.random.default_rng(0).normal(scale=100, size=(20000, 4)).astype(dtype)
    (traces.T if time_axis else traces).tofile(tmp_path / "session.raw")
    options = f"--sampling-frequency 10000 --num-channels 4 --dtype {dtype} --gain-uv 0.2 --offset-uv 3"
    arguments = ["sort", str(tmp_path / "session.raw"), "--output", str(tmp_path / "out"), *options.split()]
    assert main([*arguments, *(["--time-axis", "1"] if time_axis else [])]) == 0
    (recording,) = sorted_recordings
    assert recording.sampling_frequency == RATE
    assert np.array_equal(recording.get_traces(), traces)
    assert recording.get_channel_gains().tolist() == [0.2] * 4
    assert recording.get_channel_offsets().tolist() == [3.0] * 4
    # Four channels are a tetrode where nothing else is known.
    assert np.ptp(recording.get_channel_locations(), axis=0) == pytest.approx([20.0, 20.0])


def test_groups_of_channels(tmp_path: Path, sorted_recordings: list[BaseRecording], quick_picture: None) -> None:
    np.zeros((20000, 8), dtype="int16").tofile(tmp_path / "session.raw")
    options = "--sampling-frequency 10000 --num-channels 8 --dtype int16 --group-size 4 --n-jobs 1"
    assert main(["sort", str(tmp_path / "session.raw"), "--output", str(tmp_path / "out"), *options.split()]) == 0
    first, second = sorted_recordings
    assert (first.get_property("group").tolist(), second.get_property("group").tolist()) == ([0] * 4, [1] * 4)
    places = np.concatenate([first.get_channel_locations(), second.get_channel_locations()])
    assert np.linalg.norm(places[0] - places[2]) < 50 < np.linalg.norm(places[0] - places[4])
    assert [row[1] for row in read_csv(tmp_path / "out" / "units.csv")[1:]] == ["0", "0", "1", "1"]


def test_zarr_and_json(
    recording_folder: Path, tmp_path: Path, sorted_recordings: list[BaseRecording], quick_picture: None
) -> None:
    recording = si.load(recording_folder)
    recording.save(folder=tmp_path / "session.zarr", format="zarr", verbose=False, progress_bar=False)
    recording.dump(tmp_path / "session.json")
    for name in ("session.zarr", "session.json"):
        assert main(["sort", str(tmp_path / name), "--output", str(tmp_path / f"out_{name}")]) == 0
    assert [np.array_equal(found.get_traces(), recording.get_traces()) for found in sorted_recordings] == [True] * 2


@pytest.mark.parametrize("suffix", [".json", ".prb"])
def test_probe(
    suffix: str,
    recording_folder: Path,
    tmp_path: Path,
    sorted_recordings: list[BaseRecording],
    quick_picture: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    probe = generate_tetrode(r=33.0)
    probe.set_device_channel_indices([3, 2, 1, 0])
    probes = ProbeGroup()
    probes.add_probe(probe)
    path = tmp_path / f"probe{suffix}"
    (write_prb if suffix == ".prb" else write_probeinterface)(path, probes)
    arguments = ["sort", str(recording_folder), "--probe", str(path)]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert np.allclose(sorted_recordings[0].get_channel_locations(), probe.contact_positions[::-1])
    capsys.readouterr()

    probe.set_device_channel_indices([4, 5, 6, 7])
    (write_prb if suffix == ".prb" else write_probeinterface)(path, probes)
    assert main([*arguments, "--output", str(tmp_path / "other")]) == 1
    assert "does not fit" in error_line(capsys)


def test_what_is_no_recording(recording_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    NumpySorting.from_unit_dict([{0: np.array([1])}], RATE).save(folder=tmp_path / "sorting")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("sorting", "is not a recording (NumpyFolderSorting)"),
        ("empty", "that SpikeInterface saved"),
    ):
        assert main(["sort", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 1
        assert message in error_line(capsys)
    assert main(["sort", str(recording_folder), "--group-size", "3", "--output", str(tmp_path / "out")]) == 1
    assert "4 channels cannot be divided into groups of 3" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_reader_of_a_format(
    recording_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sorted_recordings: list[BaseRecording],
    quick_picture: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(folder_path: Path, stream_name: str | None = None, block: int = 0) -> BaseRecording:
        if stream_name is None:
            raise ValueError("This reader have several streams: \n`stream_names`: ['raw', 'lfp']")
        if stream_name == "lfp":
            raise ModuleNotFoundError("No module named 'h5py'", name="h5py.highlevel")
        return si.load(folder_path)

    monkeypatch.setattr(cli_recording, "recording_readers", lambda: {"some": read})
    arguments = ["sort", str(recording_folder), "--format", "Some", "--output", str(tmp_path / "out")]
    for more, message in (
        ([], "['raw', 'lfp']. Choose one with --stream-id or --stream-name."),
        (["--stream-name", "lfp"], "Reading Some needs the package 'h5py': pip install h5py"),
        (["--stream-id", "1"], "The format Some has no stream id"),
    ):
        assert main([*arguments, *more]) == 1
        assert message in error_line(capsys)
    assert main([*arguments, "--stream-name", "raw"]) == 0
    assert len(sorted_recordings) == 1


def test_mda_is_read(tmp_path: Path, sorted_recordings: list[BaseRecording], quick_picture: None) -> None:
    from spikeinterface.extractors.mdaextractors import MdaRecordingExtractor

    recording, _ = generate_ground_truth_recording(durations=[2.0], sampling_frequency=RATE, num_units=1, seed=0)
    MdaRecordingExtractor.write_recording(recording, tmp_path / "session", progress_bar=False)
    assert main(["sort", str(tmp_path / "session"), "--format", "mda", "--output", str(tmp_path / "out")]) == 0
    assert np.allclose(sorted_recordings[0].get_traces(), recording.get_traces())


# Simulation


def make_neuron(name: str, *, seed: int) -> NeuronCurrents:
    """A soma and a dendrite: what enters the one leaves the other."""
    rng = np.random.default_rng(seed)
    times = np.arange(160) * 0.025 - 2.0
    basis = np.stack([-np.exp(-0.5 * (times / 0.15) ** 2) + 0.3 * np.exp(-0.5 * ((times - 0.5) / 0.4) ** 2)])
    size = rng.uniform(0.9, 1.1, size=(20, 1, 1)) * rng.uniform(2.0, 5.0)
    return NeuronCurrents(
        name=name,
        seg_start=np.array([[-5.0, 0, 0], [5, 0, 0]]),
        seg_end=np.array([[5.0, 0, 0], [rng.uniform(60, 200), 0, 0]]),
        seg_diam=np.array([10.0, 2.0]),
        basis=basis.astype("float32"),
        coef=(size * np.array([[[1.0], [-1.0]]])).astype("float16"),
        scale=1.0,
        isi=np.geomspace(3, 1000, 20),
        v_peak=np.full(20, 30.0),
        dt=0.025,
        peak_index=80,
        soma=0,
        rheobase=0.1,
    )


@pytest.fixture(scope="module")
def neurons() -> list[NeuronCurrents]:
    return [make_neuron(f"cell_{index}", seed=index) for index in range(3)]


@pytest.fixture(scope="module")
def bank(neurons: list[NeuronCurrents], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "bank.npz"
    save_bank(path, neurons)
    return path


def test_simulate(bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--duration 1.5 --num-units 2 --num-far 1 --sampling-frequency 12000 --seed 4"
    output = tmp_path / "trials"
    arguments = ["simulate", "--output", str(output), "--bank", str(bank), *options.split()]
    assert main([*arguments, "--num-trials", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(output / "trial_0000"), str(output / "trial_0001")]
    assert "1 of 2." in captured.err and "2 of 2." in captured.err
    recording, truth = (si.load(output / "trial_0001" / name) for name in ("recording", "sorting"))
    assert (recording.get_num_channels(), recording.sampling_frequency) == (4, 12000.0)
    assert recording.get_total_duration() == pytest.approx(1.5)
    assert truth.get_num_units() == 2
    assert yaml.safe_load((output / "trial_0001" / "trial.yaml").read_text())["seed"] == trial_seed(4, 1)

    # An interrupted run goes on: trials that are there are kept, and what is unfinished is swept away.
    kept = read_tree(output)
    (output / "trial_0002.partial-0123").mkdir()
    assert main([*arguments, "--num-trials", "3"]) == 0
    capsys.readouterr()
    made = read_tree(output)
    assert len(made) > len(kept)
    assert {name for name in kept if made[name] != kept[name]} == {"manifest.csv"}
    trials = ["trial_0000", "trial_0001", "trial_0002"]
    assert sorted(path.name for path in output.iterdir()) == ["dataset.yaml", "manifest.csv", *trials]

    # Trials of another kind would pass for some of this run.
    assert main([*arguments, "--num-trials", "4", "--noise-uv", "9"]) == 1
    assert "made with other settings (recipe)" in error_line(capsys)
    assert not (output / "trial_0003").exists()


def test_seeds_share_no_trial() -> None:
    seeds = [trial_seed(seed, index) for seed in range(10) for index in range(10)]
    assert len(set(seeds)) == len(seeds)


def test_simulate_refuses(tmp_path: Path, bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for arguments, message in (
        (["--output", str(tmp_path / "file")], "is a file"),
        (["--output", str(tmp_path / "out"), "--bank", str(tmp_path / "nowhere")], "There is no neuron bank at"),
        (
            ["--output", str(tmp_path / "out"), "--bank", str(bank), "--min-amplitude-uv", "1e6", "--duration", "1"]
            + ["--max-amplitude-uv", "2e6"],
            "No neuron of the bank gives an amplitude",
        ),
        (["--output", str(tmp_path / "out"), "--min-amplitude-uv", "9", "--max-amplitude-uv", "1"], "max_amplitude_uv"),
        (["--output", str(tmp_path / "out"), "--recipe", "nothing"], "There is no recipe nothing"),
        (["--output", str(tmp_path / "out"), "--layout", "round"], "layout must be one of"),
    ):
        assert main(["simulate", *arguments]) == 1
        assert message in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "module"), [("simulate", "lfpykit"), ("demo", "pandas"), ("demo", "lfpykit")])
def test_missing_extra(
    command: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main([command, "--output", str(tmp_path / "out")]) == 1
    assert f"{module} is not installed: pip install 'spikeinterface-simsort[simulation]'" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_demo_compares_with_the_truth(
    neurons: list[NeuronCurrents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick_picture: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def find_the_first(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        truth = si.load(Path(recording._kwargs["folder_path"]).parent / "sorting")
        # All of one unit, none of the other.
        return NumpySorting.from_unit_dict([{9: truth.get_unit_spike_train(0)}], recording.sampling_frequency)

    monkeypatch.setattr(trials, "bundled_bank", lambda: neurons)
    monkeypatch.setattr(pipeline, "sort", find_the_first)
    output = tmp_path / "out"
    assert main(["demo", "--output", str(output), "--duration", "4", "--num-units", "2", "-q"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "accuracy.csv",
        "sorter",
        "sorting",
        "trial",
        "units.csv",
        "units.png",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "mean accuracy 0.500"
    assert lines[-3].split()[4:] == ["9", "1", "1", "1"]
    assert lines[-2].split()[4] == "-" and float(lines[-2].split()[5]) == 0.0
    header, first, second = read_csv(output / "accuracy.csv")
    assert header == ["gt_unit_id", "found_as", "accuracy", "precision", "recall"]
    assert first == ["0", "9", "1.0", "1.0", "1.0"]
    assert second == ["1", "", "0.0", "0.0", "0.0"]
    # The recording moved along with the output.
    assert not any("out.partial" in text for text in map(str, read_tree(output).values()))
    assert ss.read_sorter_folder(output / "sorter")._recording.get_num_samples() == 4 * 30000


def test_demo_that_finds_nothing_scores_nothing(tmp_path: Path) -> None:
    truth = NumpySorting.from_unit_dict([{0: np.array([100, 500]), 1: np.array([300])}], RATE)
    truth.set_property("cell", np.array(["a", "b"]))
    truth.set_property("amplitude_uv", np.array([50.0, 60.0]))
    empty = NumpySorting.from_unit_dict([{}], RATE)
    empty = NumpySorting(empty.to_spike_vector(), RATE, np.array([], dtype="int64"))
    text = cli_demo._compare(truth, empty, path=tmp_path / "accuracy.csv")
    assert text.endswith("mean accuracy 0.000\n")
    assert [row[:3] for row in read_csv(tmp_path / "accuracy.csv")[1:]] == [["0", "", "0.0"], ["1", "", "0.0"]]


@pytest.mark.slow
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "out"), "--duration", "30"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("mean accuracy ") and float(last.split()[-1]) > 0.4


# Parts


def test_staged_folder_restores_what_it_could_not_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "units.csv").write_text("old")
    rename = Path.rename

    def rename_but_not_the_new(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise PermissionError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_but_not_the_new)
    with pytest.raises(PermissionError), staged_folder(folder, overwrite=True, contents=("units.csv",)) as partial:
        (partial / "units.csv").write_text("new")
    assert (folder / "units.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with (
        pytest.raises(CommandError, match="--overwrite"),
        staged_folder(folder, overwrite=False, contents=("units.csv",)),
    ):
        pytest.fail("was entered")


def test_table_is_aligned_and_not_endless() -> None:
    rows = [[index, None, 0.123456] for index in range(50)]
    lines = format_table(["unit", "a long name", "x"], rows).splitlines()
    assert len(lines) == 42 and lines[-1] == "... and 10 more"
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[11].split() == ["10", "-", "0.123"]


def test_trace_of_a_failed_run() -> None:
    trace = (
        "Spike sorting error trace:\nTraceback (most recent call last):\n  File x, line 1, in y\n    raise z\n"
        "some.module.RecordingError: The first line,\nand another one.\n\n"
        "Spike sorting failed. You can inspect the runtime trace in x/spikeinterface_log.json."
    )
    assert read_trace(trace) == ("RecordingError", "The first line, and another one.")
    assert read_trace("Spike sorting error trace:\nTraceback:\n  x\nAssertionError\n\nSpike sorting failed.") == (
        "AssertionError",
        "",
    )
    # What was raised by SpikeInterface itself, or beneath it, needs no trace.
    assert explain_failure(PermissionError(13, "Permission denied")) == ("[Errno 13] Permission denied", True)
    assert explain_failure(KeyError("oops")) == ("KeyError: 'oops'", False)
