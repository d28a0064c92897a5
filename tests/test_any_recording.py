"""Random recordings and parameters: a valid sorting or one of the package's own errors, whatever comes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikeinterface.sorters as ss
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st
from probeinterface import generate_linear_probe, generate_tetrode
from spikeinterface.core import NumpyRecording, get_global_job_kwargs, set_global_job_kwargs
from spikeinterface.sorters.utils import SpikeSortingError

from spikeinterface_simsort import GroupsFailedError, sort_by_group
from spikeinterface_simsort.failures import read_trace
from spikeinterface_simsort.params import ParameterError, SimSortParams
from spikeinterface_simsort.pipeline import sort
from spikeinterface_simsort.preprocessing import RecordingError
from spikeinterface_simsort.run_folders import RunFolderError

RATES = [30000.0, 30000.0, 24414.0625, 15000.0, 10000.0, 48000.0, 20000.0, 5000.0]
TYPES = [
    "int16",
    "int16",
    "int16",
    "float32",
    "float32",
    "float64",
    "uint16",
    "int8",
    "uint8",
    ">i2",
    "int32",
    "float16",
]
ODD_TYPES = ["uint32", "int64", "uint64", "bool", "complex64"]
DEFECTS = ["nan", "inf", "constant", "saturated", "saturated_all", "gap", "artefact", "huge", "loud", "copy", "step"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that makes one recording, and how it is sorted."""

    rate: float
    segments: tuple[int, ...]
    num_channels: int
    dtype: str
    noise: float
    num_units: int
    unit_rate_hz: float
    amplitude: float
    offset: float
    defects: tuple[tuple[str, float, int], ...]
    groups: str
    gains: str
    probe: str
    named_channels: bool
    seed: int
    entry: str
    params: dict[str, Any] = field(default_factory=dict)


@st.composite
def cases(draw: Any, *, longest_s: float, thorough: bool) -> Case:
    # One in some is not even meant to be sorted.
    is_odd = draw(st.sampled_from([False] * 5 + [True]))
    rate = draw(st.floats(1000.0, 60000.0) if is_odd else st.sampled_from(RATES) | st.floats(5000.0, 60000.0))
    shortest, longest = (1 if is_odd else int(1.1 * rate)), int(longest_s * rate)
    num_segments = draw(st.sampled_from([1, 1, 1, 2, 3]))
    # The first is long enough for the whole.
    segments = [draw(st.integers(shortest, longest))]
    segments += [draw(st.integers(shortest if is_odd else 100, longest)) for _ in range(num_segments - 1)]
    defect = st.tuples(st.sampled_from(DEFECTS), st.floats(0.0, 1.0), st.integers(0, 7))
    return Case(
        rate=rate,
        segments=tuple(segments),
        num_channels=draw(st.sampled_from([4, 4, 1, 2, 3, 5, 6, 8])),
        dtype=draw(st.sampled_from(ODD_TYPES if is_odd else TYPES)),
        noise=draw(st.sampled_from([10.0, 10.0, 10.0, 0.0, 1e-3, 1e3])),
        num_units=draw(st.integers(0, 4)),
        unit_rate_hz=draw(st.sampled_from([20.0, 60.0, 5.0, 0.5])),
        amplitude=draw(st.sampled_from([100.0, 100.0, 60.0, 1000.0])),
        offset=draw(st.sampled_from([0.0, 0.0, 300.0, -3000.0])),
        defects=tuple(draw(st.lists(defect, max_size=2))),
        groups=draw(st.sampled_from(["none", "none", "halves", "names", "each", "nan", "mixed"])),
        gains=draw(st.sampled_from(["none", "none", "uv", "unequal", "zero", "nan"])),
        probe=draw(st.sampled_from(["none", "linear", "tetrode"])),
        named_channels=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
        entry=draw(st.sampled_from(["sort", "sort", "sort", "run_sorter", "sort_by_group"])),
        params=draw(parameters(thorough=thorough, is_odd=is_odd)),
    )


def parameters(*, thorough: bool, is_odd: bool) -> Any:
    """Some of the parameters; of an odd recording also such as are out of their bounds."""
    values: dict[str, Any] = {
        "seed": st.integers(0, 2**32 - 1),
        "freq_min": st.floats(100.0, 1000.0) | st.none(),
        "freq_max": st.floats(2000.0, 20000.0) | st.none(),
        "whiten": st.booleans(),
        "detect_threshold": st.floats(0.01, 0.999) | st.none(),
        "exclude_ms": st.floats(0.05, 5.0),
        "max_spikes_fit": st.integers(100, 500),
        "match_templates": st.booleans(),
        "min_spikes": st.integers(1, 30),
        "min_snr": st.floats(0.0, 8.0),
        "duplicate_ms": st.floats(0.0, 5.0),
        "job_kwargs": st.sampled_from([{"chunk_duration": "0.5s"}, {"n_jobs": 2}, {"chunk_size": 777}]),
    }
    if is_odd:
        values |= {
            "freq_min": st.floats(1.0, 30000.0),
            "freq_max": st.floats(100.0, 30000.0),
            "job_kwargs": st.just({"n_job": 1}),
            "min_snr": st.floats(allow_nan=True),
            "seed": st.integers(),
        }
    if thorough:
        # The first UMAP of a process compiles for a while.
        values["clustering"] = st.sampled_from(["mixture", "meanshift"])
        values["bandwidth_quantile"] = st.floats(0.001, 1.0)
        values["preset"] = st.just("paper")
    chosen = st.lists(st.sampled_from(sorted(values)), max_size=3, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: values[name] for name in names}))


def make_traces(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(case.seed)
    waveform_samples = np.arange(-int(0.001 * case.rate), int(0.0015 * case.rate) + 1)
    sharp = -np.exp(-0.5 * (waveform_samples / (0.00015 * case.rate)) ** 2)
    slow = 0.3 * np.exp(-0.5 * ((waveform_samples - 0.0006 * case.rate) / (0.0003 * case.rate)) ** 2)
    sizes = case.amplitude * rng.uniform(0.2, 1.0, size=(case.num_units, case.num_channels))
    segments = []
    for length in case.segments:
        traces = case.noise * rng.normal(size=(length, case.num_channels)) + case.offset
        for size in sizes:
            num_spikes = rng.poisson(case.unit_rate_hz * length / case.rate)
            for time in rng.integers(0, length, size=num_spikes):
                places = time + waveform_samples
                inside = (places >= 0) & (places < length)
                traces[places[inside]] += (sharp + slow)[inside, None] * size
        segments.append(traces)
    for defect, where, channel in case.defects:
        spoil(segments[channel % len(segments)], defect, where=where, channel=channel % case.num_channels, rng=rng)
    return [cast(traces, case.dtype) for traces in segments]


def spoil(traces: np.ndarray, defect: str, *, where: float, channel: int, rng: np.random.Generator) -> None:
    length = len(traces)
    start = int(where * (length - 1))
    stretch = slice(start, start + max(1, length // 4))
    match defect:
        case "nan":
            traces[start, channel] = np.nan
        case "inf":
            traces[start, channel] = np.inf
        case "constant":
            traces[:, channel] = 5.0
        case "saturated":
            traces[stretch, channel] = 32767.0
        case "saturated_all":
            traces[stretch] = -32768.0
        case "gap":
            traces[stretch] = 0.0
        case "artefact":
            traces[start :: max(1, length // 20)] += 5000.0
        case "huge":
            traces[start, channel] = 1e30
        case "loud":
            traces[:, channel] += 3000.0 * rng.normal(size=length)
        case "copy":
            traces[:] = traces[:, [channel]]
        case "step":
            traces[start:] += 2000.0


def cast(traces: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return traces.astype(kind)
    limits = np.iinfo(kind)
    if kind.kind == "u":
        traces = traces + limits.max // 2
    clean = np.nan_to_num(np.round(traces), posinf=0.0, neginf=0.0)
    # The largest 64-bit integers are none of a float's.
    return np.clip(clean, float(limits.min), np.nextafter(float(limits.max), 0.0)).astype(kind)


def make_recording(case: Case) -> NumpyRecording:
    n = case.num_channels
    ids = [f"ch {index}" for index in range(n)] if case.named_channels else None
    recording = NumpyRecording(make_traces(case), case.rate, channel_ids=ids)
    half = np.arange(n) < (n + 1) // 2
    groups: dict[str, Any] = {
        "halves": np.where(half, 1, 0),
        "names": np.where(half, "../left half", "right"),
        "each": np.arange(n),
        "nan": np.where(half, np.nan, 1.0),
        "mixed": np.array([("a", 1, None)[index % 3] for index in range(n)], dtype=object),
    }
    gains: dict[str, Any] = {
        "uv": np.full(n, 0.195),
        "unequal": np.linspace(0.1, 3.0, n),
        "zero": np.zeros(n),
        "nan": np.full(n, np.nan),
    }
    if case.gains in gains:
        recording.set_channel_gains(gains[case.gains])
        recording.set_channel_offsets(np.zeros(n))
    if case.probe == "linear":
        probe = generate_linear_probe(num_elec=n, ypitch=25.0)
        probe.set_device_channel_indices(np.arange(n))
        recording.set_probe(probe, in_place=True)
    elif case.probe == "tetrode" and n == 4:
        probe = generate_tetrode()
        probe.set_device_channel_indices(np.arange(n))
        recording.set_probe(probe, in_place=True)
    # A probe brings a group of its own.
    if case.groups in groups:
        recording.set_property("group", groups[case.groups])
    return recording


def check(sorting: Any, recording: Any, params: SimSortParams) -> None:
    """Whether a sorting is one of this recording."""
    assert sorting.unit_ids.tolist() == list(range(len(sorting.unit_ids)))
    assert sorting.get_num_segments() == recording.get_num_segments()
    assert sorting.sampling_frequency == recording.sampling_frequency
    for unit in sorting.unit_ids:
        trains = [
            sorting.get_unit_spike_train(unit, segment_index=segment) for segment in range(sorting.get_num_segments())
        ]
        assert sum(map(len, trains)) >= params.min_spikes
        for segment, train in enumerate(trains):
            assert train.dtype.kind == "i" and np.all(np.diff(train) > 0)
            assert not len(train) or (train[0] >= 0 and train[-1] < recording.get_num_samples(segment))
    if len(sorting.unit_ids):
        assert np.isfinite(sorting.get_property("snr")).all() and np.all(sorting.get_property("snr") >= params.min_snr)
        assert np.all((sorting.get_property("probability") >= 0) & (sorting.get_property("probability") <= 1))
        assert set(sorting.get_property("main_channel_id")) <= set(recording.channel_ids)
        groups = recording.get_property("group")
        known = {"0"} if groups is None else set(map(str, groups))
        assert set(map(str, sorting.get_property("group"))) <= known


def sort_in_memory(recording: Any, case: Case, folder: Path) -> Any:
    return sort(recording, params=SimSortParams.from_dict(case.params))


def sort_through_spikeinterface(recording: Any, case: Case, folder: Path) -> Any:
    saved = recording.save(folder=folder / "recording", verbose=False, progress_bar=False)
    try:
        sorting: Any = ss.run_sorter("simsort", saved, folder=str(folder / "out"), **case.params)
    except SpikeSortingError as error:
        with pytest.raises(SpikeSortingError):
            ss.read_sorter_folder(folder / "out")
        name, message = read_trace(str(error))
        raise {"RecordingError": RecordingError, "ParameterError": ParameterError}[name](message) from error
    return sorting


def sort_by_groups(recording: Any, case: Case, folder: Path) -> Any:
    saved = recording.save(folder=folder / "recording", verbose=False, progress_bar=False)
    try:
        return sort_by_group(saved, folder / "out", n_jobs=1, **case.params)
    except GroupsFailedError as error:
        # Each says what was wrong in the words of a RecordingError: those of others begin with their kind.
        assert all("Error:" not in message for message in error.failures.values()), error.failures
        if error.sorting is not None:
            check(error.sorting, saved, SimSortParams.from_dict(case.params))
        else:
            assert not (folder / "out" / "sorting").exists()
        raise RecordingError(str(error)) from error
    except (ParameterError, RecordingError, RunFolderError):
        assert not (folder / "out").exists()
        raise


ENTRIES = {"sort": sort_in_memory, "run_sorter": sort_through_spikeinterface, "sort_by_group": sort_by_groups}


def try_case(case: Case) -> None:
    note(str(case))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recording = make_recording(case)
        try:
            sorting = ENTRIES[case.entry](recording, case, Path(folder))
        except (ParameterError, RecordingError) as error:
            assert len(str(error)) > 20
            event(f"refused: {str(error)[:25]}")
        else:
            event("no unit" if not len(sorting.unit_ids) else "units")
            check(sorting, recording, SimSortParams.from_dict(case.params))


def explore(num_examples: int) -> Any:
    return settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        # What fails is told whole: to look for the least of its kind would take minutes.
        phases=[Phase.explicit, Phase.generate],
    )


@pytest.fixture(autouse=True)
def quiet() -> Any:
    shown = get_global_job_kwargs()["progress_bar"]
    set_global_job_kwargs(progress_bar=False)
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
    set_global_job_kwargs(progress_bar=shown)


@explore(15)
@given(case=cases(longest_s=2.0, thorough=False))
def test_a_few_recordings(case: Case) -> None:
    try_case(case)


@pytest.mark.slow
@explore(500)
@given(case=cases(longest_s=10.0, thorough=True))
def test_many_recordings(case: Case) -> None:
    try_case(case)
