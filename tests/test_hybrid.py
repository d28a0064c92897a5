"""Hybrids of recorded waveforms, and the recordings of other generators."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from scipy.signal import welch
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks import hybrid as hybrid_sets
from benchmarks.catalogue import unit_snr
from benchmarks.hybrid import (
    MIN_SNR,
    NUM_UNITS,
    REFRACTORY_MS,
    WAVEFORM_FILE,
    RecordedUnit,
    add_spikes,
    band_noise,
    make_hybrid,
    poisson_train,
    read_units,
)
from benchmarks.other_generators import make_mearec, make_si_groundtruth
from benchmarks.waveclus import spike_shapes
from spikeinterface_simsort.simulation.mearec_io import save_mearec_templates, to_mearec_templates
from spikeinterface_simsort.simulation.trials import bundled_bank

RATE = 30000.0


def write_units(path: Path, *, num_units: int, peak_uv: float = 150.0, **changed: Any) -> Path:
    """A file laid out like the recorded waveforms', of spikes that decay about a place of their own.

    What is changed is a variable or a field of all units; None leaves it out.
    """
    x, y = np.meshgrid(np.arange(-30, 31, 6), np.arange(-48, 49, 6))
    x, y = x.ravel(), y.ravel()
    samples = np.arange(81)
    units = []
    for index in range(num_units):
        distance = np.hypot(x - 6 * (index % 3 - 1), y - 6 * (index % 5 - 2))
        width = 3.0 + index / 4
        shape = -np.exp(-(((samples - 37) / width) ** 2)) + 0.3 * np.exp(-(((samples - 37 - 3 * width) / 8) ** 2))
        waves = peak_uv * np.exp(-distance / 30)[:, None] * shape
        unit = {"label": index, "nChan": len(x), "waves": waves, "xC": x, "yC": y}
        unit |= {name: value for name, value in changed.items() if name in unit}
        units.append({name: value for name, value in unit.items() if value is not None})
    fields = [(name, "O") for name in units[0]]
    table = np.array([[tuple(unit.values()) for unit in units]], dtype=fields)
    variables = {"uColl": table, "fs": RATE}
    variables |= {name: value for name, value in changed.items() if name in variables}
    savemat(path, {name: value for name, value in variables.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[RecordedUnit]:
    return read_units(write_units(tmp_path_factory.mktemp("waveforms") / "units.mat", num_units=17))


def mean_spikes(recording: BaseRecording, frames: np.ndarray) -> np.ndarray:
    traces = recording.get_traces(return_in_uV=True)
    return traces[frames[:, None] + np.arange(-20, 40)].mean(axis=0)


def test_units_are_read_as_they_were_recorded(units: list[RecordedUnit]) -> None:
    assert len(units) == 17
    centre = units[4].at(np.zeros(2))
    assert np.abs(centre).max() == pytest.approx(150, rel=0.05)
    # Between contacts the grid is interpolated, beyond them the spike goes on to decay.
    near, far, farther = np.abs(units[4].at(np.array([[3.0, 3.0], [40.0, 0.0], [80.0, 0.0]]))).max(axis=1)
    assert 0.8 * 150 < near < 150
    assert far > 3 * farther > 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"data": np.zeros(3)})
    with pytest.raises(ValueError, match="uColl"):
        read_units(tmp_path / "other.mat")
    path = write_units(tmp_path / "units.mat", num_units=1)
    assert len(read_units(path)) == 1
    with pytest.raises(FileNotFoundError):
        read_units(path.with_name("none.mat"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"uColl": None}, "holds no uColl"),
        ({"uColl": 3.0}, "no waves, xC, yC"),
        ({"fs": None}, "holds no fs"),
        ({"fs": 0.0}, "one positive number"),
        ({"waves": None}, "no waves"),
        ({"xC": None}, "no xC"),
        ({"yC": np.arange(5)}, "number of contacts"),
    ],
)
def test_what_a_file_lacks_is_said(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    write_units(tmp_path / WAVEFORM_FILE, num_units=2, **changed)
    for read in (lambda: read_units(tmp_path / WAVEFORM_FILE), lambda: spike_shapes(recorded=tmp_path)):
        with pytest.raises(ValueError, match=message):
            read()


def test_hybrids_need_one_rate_and_a_grid(tmp_path: Path) -> None:
    path = write_units(tmp_path / WAVEFORM_FILE, num_units=2, fs=24000.0)
    with pytest.raises(ValueError, match="at 24000 Hz"):
        read_units(path)
    # Shapes are brought to one rate.
    assert set(spike_shapes(recorded=tmp_path).neurons) == {"recorded_0", "recorded_1"}
    path = write_units(path, num_units=2, xC=np.arange(187))
    with pytest.raises(ValueError, match="no grid"):
        read_units(path)


@pytest.fixture(scope="module", params=[False, True], ids=["static", "drift"])
def hybrid(request: pytest.FixtureRequest, units: list[RecordedUnit]) -> tuple[BaseRecording, BaseSorting]:
    return make_hybrid(units, seed=2, drifting=request.param, duration_s=40.0)


def test_hybrid_is_what_was_asked(hybrid: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = hybrid
    assert (recording.get_num_channels(), recording.get_sampling_frequency()) == (4, RATE)
    assert NUM_UNITS[0] <= len(truth.unit_ids) <= NUM_UNITS[1]
    rates = np.array(list(truth.count_num_spikes_per_unit().values())) / 40.0
    assert rates.min() > 0.3
    assert rates.max() < 15.0
    # Measured by a filter and over all of the drift, an SNR may lie a little under what the unit was placed for.
    assert unit_snr(recording, truth).min() > 0.75 * MIN_SNR
    for unit in truth.unit_ids:
        intervals = np.diff(truth.get_unit_spike_train(unit))
        assert intervals.min() >= REFRACTORY_MS * RATE / 1000 - 1


def test_spike_times_mark_the_largest_deflection(hybrid: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = hybrid
    for unit in truth.unit_ids:
        mean = mean_spikes(recording, truth.get_unit_spike_train(unit))
        assert abs(int(np.abs(mean).max(axis=1).argmax()) - 20) <= 1


def test_drift_changes_the_spikes(units: list[RecordedUnit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_sets, "DRIFT_UM", (12.0, 12.0))
    changes = []
    for drifting in (False, True):
        recording, truth = make_hybrid(units, seed=2, drifting=drifting, duration_s=60.0)
        traces = recording.get_traces(return_in_uV=True)
        trains = [truth.get_unit_spike_train(unit) for unit in truth.unit_ids]
        of_units = []
        for frames in (train for train in trains if len(train) > 150):
            parts = [traces[part[:, None] + np.arange(-20, 40)].mean(axis=0) for part in np.array_split(frames, 5)]
            sizes = np.stack([part.min(axis=0) for part in parts])
            of_units.append(np.ptp(sizes, axis=0).max() / np.abs(sizes).max())
        changes.append(np.mean(of_units))
    assert changes[1] > 1.5 * changes[0]


def test_same_seed_same_hybrid(units: list[RecordedUnit]) -> None:
    first, again, other = (make_hybrid(units, seed=seed, drifting=True, duration_s=2.0)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.get_traces(), again.get_traces())
    assert (first.get_traces() != other.get_traces()).any()


def test_units_too_small_are_an_error(tmp_path: Path) -> None:
    small = read_units(write_units(tmp_path / "small.mat", num_units=12, peak_uv=20.0))
    with pytest.raises(ValueError, match="too small"):
        make_hybrid(small, seed=0, drifting=False, duration_s=1.0)


def test_noise_falls_and_is_shared() -> None:
    rng = np.random.default_rng(0)
    noise = band_noise(600000, 4, rate=RATE, rng=rng)
    frequency, power = welch(noise[:, 0], fs=RATE, nperseg=2**14)

    def level(low: float, high: float) -> float:
        return float(power[(frequency > low) & (frequency < high)].mean())

    assert level(40, 60) > 8 * level(5000, 6000)
    correlation = np.corrcoef(noise.T)
    assert correlation[np.triu_indices(4, 1)] == pytest.approx(0.3, abs=0.05)


def test_poisson_train() -> None:
    frames = poisson_train(10.0, num_frames=int(600 * RATE), rng=np.random.default_rng(3))
    intervals = np.diff(frames) / RATE
    assert len(frames) / 600 == pytest.approx(10.0, rel=0.05)
    assert intervals.min() >= REFRACTORY_MS / 1000 - 1 / RATE
    assert (intervals - REFRACTORY_MS / 1000).std() == pytest.approx(0.097, rel=0.1)


def test_spikes_at_the_ends_are_cut_off() -> None:
    traces = np.zeros((10, 1))
    phases = np.arange(1.0, 7.0)[None, :, None]
    add_spikes(traces, np.array([0, 9]), phases, peak=2, rng=np.random.default_rng(0), scales=np.array([1.0, 2.0]))
    np.testing.assert_array_equal(traces[:, 0], [3, 4, 5, 6, 0, 0, 0, 2, 4, 6])


def test_recorded_waveforms(shared_data: Path) -> None:
    units = read_units(shared_data / "waveforms" / WAVEFORM_FILE)
    assert len(units) == 17
    for unit in units:
        centre = unit.at(np.zeros(2))
        assert 100 < np.abs(centre).max() < 330
        assert centre[0] == pytest.approx(0, abs=1e-9)
    recording, truth = make_hybrid(units, seed=0, drifting=True, duration_s=10.0)
    assert len(truth.unit_ids) >= NUM_UNITS[0]
    assert np.abs(recording.get_traces(return_in_uV=True)).max() < 1000


def test_si_groundtruth() -> None:
    recording, truth = make_si_groundtruth(seed=3, duration_s=20.0)
    assert recording.get_dtype() == "int16"
    assert 3 <= len(truth.unit_ids) <= 10
    assert unit_snr(recording, truth).min() > 2.0
    for unit in truth.unit_ids:
        mean = mean_spikes(recording, truth.get_unit_spike_train(unit)[1:-1])
        assert abs(int(np.abs(mean).max(axis=1).argmax()) - 20) <= 1
    again, _ = make_si_groundtruth(seed=3, duration_s=20.0)
    np.testing.assert_array_equal(recording.get_traces(), again.get_traces())


def test_mearec(tmp_path: Path) -> None:
    # Templates of the project's bank here, as MEArec's own cells take minutes to simulate.
    templates = to_mearec_templates(bundled_bank(), num_per_neuron=20, min_amplitude_uv=60.0, seed=1)
    save_mearec_templates(tmp_path / "templates.h5", templates)
    with pytest.MonkeyPatch.context() as patch:
        # Its cells are not named after types that MEArec knows.
        patch.chdir(tmp_path)
        recording, truth = make_mearec(tmp_path / "templates.h5", seed=1, duration_s=10.0)
    assert recording.get_dtype() == "int16"
    assert 5 <= len(truth.unit_ids) <= 9
    assert unit_snr(recording, truth).min() > 2.0
