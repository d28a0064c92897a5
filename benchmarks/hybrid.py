"""Tetrode hybrids: recorded mean waveforms in synthetic noise, still or drifting.

A rebuild of SpikeForest's hybrid Janelia sets (Magland et al. 2020, eLife 9:e55167), which were made from the same
waveforms: 17 units that a dense probe with contacts every 6 um recorded (Kampff laboratory, as Kilosort2's eMouse
simulation uses them). What was published of the recipe is kept; what was not (noise, hash, movement) is described here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.io import loadmat
from scipy.signal import butter, resample_poly, sosfiltfilt
from spikeinterface.core import BaseRecording, BaseSorting

from benchmarks.recordings import sorting_of, tetrode_recording

WAVEFORM_FILE = "kampff_St_unit_waves_allNeg_2X.mat"

SAMPLING_FREQUENCY = 30000.0
NOISE_UV = 10.0
NUM_UNITS = (10, 15)
# Of the largest deflection, on average over where the unit drifts, to the standard deviation of noise and hash.
MIN_SNR = 3.0
RATE_HZ = (1.0, 12.0)
REFRACTORY_MS = 3.0
AMPLITUDE_SPREAD = 0.1
SPACING_UM = 25.0
# Amplitude of the sine that the whole tissue follows, and its period.
DRIFT_UM, DRIFT_PERIOD_S = (4.0, 8.0), (60.0, 120.0)

# How far the electrode's middle is from a unit's largest contact.
_REACH_UM = (20.0, 25.0)
# Beyond the contacts that were recorded, a spike decays with this length.
_DECAY_UM = 25.0
# Far cells: shapes of the same units, too small to be sorted.
_NUM_FAR, _FAR_SNR, _FAR_RATE_HZ = 30, (0.3, 1.5), (2.0, 20.0)
# Share of the noise's variance that all contacts see alike, and share that falls as 1/f.
_SHARED, _PINK = 0.3, 0.5
# Spikes fall between samples, the tissue between contacts: in steps of these.
_UPSAMPLE, _STEP_UM = 4, 0.5
_MAX_DRAWS = 1000


@dataclass(frozen=True)
class UnitWaves:
    """Mean waveform of a unit as it was recorded.

    Attributes
    ----------
    waves : np.ndarray, float64 [num_contacts, num_samples]
        In uV.
    x, y : np.ndarray, float64 [num_contacts]
        Places of the contacts in um.
    """

    waves: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class RecordedUnit:
    """Mean waveform of a unit on a grid of contacts.

    Attributes
    ----------
    x, y : np.ndarray, float64 [num_columns], [num_rows]
        Of the grid, in um, from the contact with the largest deflection; increasing.
    waveforms : np.ndarray, float64 [num_columns, num_rows, num_samples]
        In uV at 30 kHz.
    """

    x: np.ndarray
    y: np.ndarray
    waveforms: np.ndarray

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Waveforms at any places.

        Parameters
        ----------
        positions : np.ndarray, float [..., 2]
            In um, from the unit's largest contact.

        Returns
        -------
        np.ndarray, float64 [..., num_samples]
        """
        inside = np.clip(positions, [self.x[0], self.y[0]], [self.x[-1], self.y[-1]])
        outside = np.linalg.norm(positions - inside, axis=-1)
        values = RegularGridInterpolator((self.x, self.y), self.waveforms)(inside).reshape(*positions.shape[:-1], -1)
        return values * np.exp(-outside / _DECAY_UM)[..., None]


def read_waves(path: Path) -> tuple[list[UnitWaves], float]:
    """Read the recorded waveforms.

    Parameters
    ----------
    path : Path
        MATLAB file with the sampling frequency ``fs`` in Hz and the structure ``uColl``: ``waves`` [num_contacts,
        num_samples] in uV and the contacts' places ``xC`` and ``yC`` in um.

    Returns
    -------
    units : list of UnitWaves
    rate : float
        Sampling frequency in Hz.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = loadmat(path, simplify_cells=True)
    if missing := {"uColl", "fs"} - set(content):
        raise ValueError(f"{path} holds no {' and no '.join(sorted(missing))}: name the file {WAVEFORM_FILE}.")
    rate = np.asarray(content["fs"], dtype="float64").ravel()
    if rate.size != 1 or not rate[0] > 0:
        raise ValueError(f"{path} needs one positive number, in Hz, in fs.")
    units = []
    # One unit alone is no list.
    for unit in np.atleast_1d(content["uColl"]):
        if missing := {"waves", "xC", "yC"} - set(unit if isinstance(unit, dict) else ()):
            raise ValueError(f"{path}: a unit of uColl has no {', '.join(sorted(missing))}.")
        waves, x, y = (np.asarray(unit[name], dtype="float64") for name in ("waves", "xC", "yC"))
        if waves.ndim != 2 or not waves.shape[:1] == x.shape == y.shape:
            raise ValueError(f"{path}: waves, xC and yC of a unit differ in their number of contacts.")
        units.append(UnitWaves(waves=waves, x=x, y=y))
    return units, float(rate[0])


def read_units(path: Path) -> list[RecordedUnit]:
    """Read the recorded waveforms as units on grids.

    Parameters
    ----------
    path : Path
        See `read_waves`.

    Returns
    -------
    list of RecordedUnit

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It holds something else, is not of 30 kHz, or the contacts of a unit lie on no grid.
    """
    recorded, rate = read_waves(path)
    if rate != SAMPLING_FREQUENCY:
        raise ValueError(f"{path} holds waveforms at {rate:g} Hz: hybrids are made of some at {SAMPLING_FREQUENCY:g}.")
    units = []
    for unit in recorded:
        x, y = np.unique(unit.x), np.unique(unit.y)
        if len(x) * len(y) != len(unit.waves):
            raise ValueError(f"{path}: the contacts of a unit lie on no grid.")
        grid = np.empty((len(x), len(y), unit.waves.shape[1]))
        grid[np.searchsorted(x, unit.x), np.searchsorted(y, unit.y)] = _cleaned(unit.waves)
        column, row, _ = np.unravel_index(np.abs(grid).argmax(), grid.shape)
        units.append(RecordedUnit(x=x - float(x[column]), y=y - float(y[row]), waveforms=grid))
    return units


def _cleaned(waves: np.ndarray) -> np.ndarray:
    """Mean waveforms less what noise is left in them: their largest components, tapered to zero at both ends."""
    u, s, vt = np.linalg.svd(waves - waves[:, :10].mean(axis=1, keepdims=True), full_matrices=False)
    rank = 6
    taper = np.ones(waves.shape[1])
    ramp = np.sin(np.linspace(0, np.pi / 2, 10)) ** 2
    taper[:10], taper[-10:] = ramp, ramp[::-1]
    return (u[:, :rank] * s[:rank]) @ vt[:rank] * taper


def make_hybrid(
    units: Sequence[RecordedUnit], *, seed: int, drifting: bool, duration_s: float = 120.0
) -> tuple[BaseRecording, BaseSorting]:
    """Make a tetrode recording of recorded waveforms in noise.

    10 to 15 of the units, each at a place of its own near a square of four contacts 25 um apart, with an SNR over 3,
    fire at 1 to 12 Hz with amplitudes that vary by a tenth. Noise is half white and half 1/f, a third of it shared by
    the contacts, of 10 uV in the band of spikes; far cells are the hash. With drift, all cells move along a sine of
    4 to 8 um.

    Parameters
    ----------
    units : sequence of RecordedUnit
        See `read_units`.
    seed : int
        The same seed gives the same recording.
    drifting : bool
        Whether the cells move.
    duration_s : float
        Length in s.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
        At 30 kHz, in uV; spike times are those of the largest deflection.

    Raises
    ------
    ValueError
        A unit is so small that no place gives it the SNR.
    """
    rng = np.random.default_rng([seed, drifting])
    num_frames = int(duration_s * SAMPLING_FREQUENCY)
    contacts = (np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) - 0.5) * SPACING_UM
    traces = band_noise(num_frames, len(contacts), rate=SAMPLING_FREQUENCY, rng=rng) * NOISE_UV

    still = np.zeros(1)
    for _ in range(_NUM_FAR):
        unit = units[int(rng.integers(len(units)))]
        templates, peak = _templates(unit, contacts - rng.uniform(-1, 1, 2) * _REACH_UM, depths=still)
        templates *= rng.uniform(*_FAR_SNR) * NOISE_UV / np.abs(templates).max()
        frames = poisson_train(rng.uniform(*_FAR_RATE_HZ), num_frames=num_frames, rng=rng)
        add_spikes(traces, frames, templates[0], peak=peak, rng=rng)
    noise = traces.std()

    depths, course = still, np.zeros(num_frames)
    if drifting:
        period, amplitude = rng.uniform(*DRIFT_PERIOD_S), rng.uniform(*DRIFT_UM)
        seconds = np.arange(num_frames) / SAMPLING_FREQUENCY
        course = amplitude * np.sin(2 * np.pi * (seconds / period + rng.random()))
        depths = np.arange(-amplitude, amplitude + _STEP_UM, _STEP_UM)

    trains = {}
    count = min(int(rng.integers(NUM_UNITS[0], NUM_UNITS[1] + 1)), len(units))
    for unit_id, index in enumerate(rng.permutation(len(units))[:count].tolist()):
        for _ in range(_MAX_DRAWS):
            templates, peak = _templates(units[index], contacts - rng.uniform(-1, 1, 2) * _REACH_UM, depths=depths)
            if np.abs(templates).max(axis=(1, 2, 3)).mean() > MIN_SNR * noise:
                break
        else:
            raise ValueError(f"Unit {index} is too small for an SNR over {MIN_SNR} anywhere near the contacts.")
        frames = poisson_train(rng.uniform(*RATE_HZ), num_frames=num_frames, rng=rng)
        nearest = np.abs(course[frames, None] - depths).argmin(axis=1)
        scales = np.maximum(rng.normal(1.0, AMPLITUDE_SPREAD, len(frames)), 0.3)
        for depth in np.unique(nearest):
            at = nearest == depth
            add_spikes(traces, frames[at], templates[depth], peak=peak, rng=rng, scales=scales[at])
        trains[unit_id] = frames
    recording = tetrode_recording(traces, rate=SAMPLING_FREQUENCY, contacts_um=contacts)
    return recording, sorting_of(trains, rate=SAMPLING_FREQUENCY)


def _templates(unit: RecordedUnit, contacts: np.ndarray, *, depths: np.ndarray) -> tuple[np.ndarray, int]:
    """A unit's waveforms [num_depths, num_phases, num_samples, num_channels] and the sample of their peak."""
    moved = contacts + np.stack([np.zeros_like(depths), depths], axis=-1)[:, None]
    fine = resample_poly(unit.at(moved), _UPSAMPLE, 1, axis=-1).swapaxes(-1, -2)
    middle = fine[len(depths) // 2]
    top = int(np.abs(middle).max(axis=1).argmax())
    # Phase p lies p / _UPSAMPLE of a sample late; the peak of each is nearest to the same sample.
    peak = top // _UPSAMPLE - 1
    starts = top - peak * _UPSAMPLE - np.arange(_UPSAMPLE) + _UPSAMPLE // 2
    length = (fine.shape[1] - starts.max()) // _UPSAMPLE
    phases = [fine[:, start : start + length * _UPSAMPLE : _UPSAMPLE] for start in starts]
    return np.stack(phases, axis=1), peak


def band_noise(num_frames: int, num_channels: int, *, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Noise, half white and half 1/f in power, a third of it shared, of unit variance between 300 and 6000 Hz.

    Parameters
    ----------
    num_frames, num_channels : int
        Its size.
    rate : float
        Sampling frequency in Hz.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray, float64 [num_frames, num_channels]
    """
    frequencies = np.fft.rfftfreq(num_frames, 1 / rate)
    # 1/f power, flat below 10 Hz, equal to the white part's where the band of spikes has its geometric middle.
    power = (1 - _PINK) + _PINK * 1340.0 / np.maximum(frequencies, 10.0)
    own = rng.standard_normal((num_frames, num_channels))
    mixed = np.sqrt(1 - _SHARED) * own + np.sqrt(_SHARED) * rng.standard_normal((num_frames, 1))
    noise = np.fft.irfft(np.fft.rfft(mixed, axis=0) * np.sqrt(power)[:, None], n=num_frames, axis=0)
    band = sosfiltfilt(butter(3, (300.0, 6000.0), "bandpass", fs=rate, output="sos"), noise, axis=0)
    return noise / band.std()


def poisson_train(
    rate_hz: float,
    *,
    num_frames: int,
    rng: np.random.Generator,
    rate: float = SAMPLING_FREQUENCY,
    refractory_ms: float = REFRACTORY_MS,
) -> np.ndarray:
    """Spikes of a Poisson process with a refractory period.

    Parameters
    ----------
    rate_hz : float
        Mean rate, the refractory period included.
    num_frames : int
        Length; no spike lies within 5 ms of either end.
    rng : np.random.Generator
        Source of randomness.
    rate : float
        Sampling frequency in Hz.
    refractory_ms : float
        Least interval.

    Returns
    -------
    np.ndarray, int64 [num_spikes]
        Frames, increasing.
    """
    margin = int(0.005 * rate)
    mean = 1 / rate_hz - refractory_ms / 1000
    draws = int(1.2 * rate_hz * num_frames / rate + 50)
    intervals = refractory_ms / 1000 + rng.exponential(mean, draws)
    frames = margin + np.round(np.cumsum(intervals) * rate).astype("int64")
    return frames[frames < num_frames - margin]


def add_spikes(
    traces: np.ndarray,
    frames: np.ndarray,
    phases: np.ndarray,
    *,
    peak: int,
    rng: np.random.Generator,
    scales: np.ndarray | None = None,
) -> None:
    """Add a unit's spikes to traces, in place; what reaches over an end is cut off.

    Parameters
    ----------
    traces : np.ndarray, float [num_frames, num_channels]
        To be changed.
    frames : np.ndarray, int64 [num_spikes]
        Where the peaks go.
    phases : np.ndarray, float [num_phases, num_samples, num_channels]
        The unit's waveform at sub-sample shifts, of which each spike takes one.
    peak : int
        Sample of the waveform's peak.
    rng : np.random.Generator
        Draws the shifts.
    scales : np.ndarray, float [num_spikes], optional
        Of each spike; default 1.
    """
    drawn = rng.integers(len(phases), size=len(frames))
    scales = np.ones(len(frames)) if scales is None else scales
    length = phases.shape[1]
    for frame, phase, scale in zip(frames, drawn, scales, strict=True):
        start = frame - peak
        first, last = max(start, 0), min(start + length, len(traces))
        traces[first:last] += scale * phases[phase, first - start : last - start]
