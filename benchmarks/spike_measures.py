"""A neuron bank's extracellular spikes at contacts around each neuron, and what is measured of them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
from scipy.signal import butter, resample_poly, sosfiltfilt

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.extracellular import lead_field

logger = logging.getLogger(__name__)

SAMPLING_FREQUENCY = 30000.0
NEAR_UM = (30.0, 60.0)
DISTANCES_UM = (20, 40, 60, 80, 100, 120, 140)
# Spikes are sized in the last; widths are measured in all, as papers differ in their filters.
BANDS = {"wide": None, "100": (100.0, 6000.0), "300": (300.0, 6000.0)}
BAND_NAMES = {"wide": "wide-band", "100": "100-6000 Hz", "300": "300-6000 Hz"}
# After its trough, a spike's highest point is looked for so far; its shape is cut to what lies between.
PEAK_WITHIN_MS = 3.0
SHAPE_MS = (-1.0, 3.0)
# Inside, a contact may touch the soma or a thick dendrite.
_FAR_FIELD_UM = 40
_DECAY_MS, _PADDING_MS = 20.0, 60.0

EXCITATORY, FAST_SPIKING, OTHER, UNKNOWN = "excitatory", "basket and chandelier", "other interneurons", "unknown"
CLASSES = (EXCITATORY, FAST_SPIKING, OTHER, UNKNOWN)
_FAST_TYPES = {"LBC", "NBC", "SBC", "ChC"}
_OTHER_TYPES = {"MC", "BTC", "DBC", "BP", "NGC", "DAC", "HAC", "DLAC", "SLAC", "LAC", "SAC"}


def class_of(name: str) -> str:
    """Tell the class of a neuron from its name.

    Parameters
    ----------
    name : str
        ``<layer>_<m-type>_<e-type>_<clone>`` of the NMC portal, or ``<shape>_<rs or fs>_<number>`` of the project's
        own reduced cells.

    Returns
    -------
    str
        One of `CLASSES`.
    """
    parts = name.split("_")
    if parts[0][:1] == "L" and parts[0][1:].isdigit() and len(parts) > 1:
        # TTPC1 and TTPC2 are both TTPC; NGC-DA and NGC-SA both NGC.
        kind = parts[1].split("-")[0].rstrip("0123456789")
        if kind.endswith("PC") or kind in ("SP", "SS"):
            return EXCITATORY
        if kind in _FAST_TYPES:
            return FAST_SPIKING
        return OTHER if kind in _OTHER_TYPES else UNKNOWN
    if "rs" in parts:
        return EXCITATORY
    return FAST_SPIKING if "fs" in parts else UNKNOWN


def at_recording_rate(potentials: np.ndarray, *, dt: float) -> np.ndarray:
    """Resample windows around a spike to 30 kHz, with quiet before and after that filters can run in on.

    Parameters
    ----------
    potentials : np.ndarray, [num_traces, num_basis_samples]
        In uV.
    dt : float
        Their time step, in ms.

    Returns
    -------
    np.ndarray, [num_traces, num_samples]
        In uV, 0 at rest.
    """
    ratio = Fraction(SAMPLING_FREQUENCY * dt / 1000.0).limit_denominator(1000)
    rested = potentials - potentials[:, :8].mean(axis=1, keepdims=True)
    resampled = resample_poly(rested, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    per_ms = SAMPLING_FREQUENCY / 1000.0
    # A window ends before all currents have: a jump to 0 there would ring in the filter, a slope does not.
    fade = np.clip(1.0 - np.arange(1, int(_PADDING_MS * per_ms)) / (_DECAY_MS * per_ms), 0.0, None)
    before = np.zeros((len(resampled), int(_PADDING_MS * per_ms)))
    return np.concatenate([before, resampled, resampled[:, -1:] * fade], axis=1)


def filter_band(traces: np.ndarray, *, band: tuple[float, float] | None) -> np.ndarray:
    """Band-pass as recordings are: Butterworth of third order, forward and backward.

    Parameters
    ----------
    traces : np.ndarray, [num_traces, num_samples]
        At 30 kHz.
    band : tuple of float or None
        Lowest and highest frequency in Hz; None leaves traces as they are.

    Returns
    -------
    np.ndarray, [num_traces, num_samples]
    """
    if band is None:
        return traces
    return sosfiltfilt(butter(3, band, btype="bandpass", fs=SAMPLING_FREQUENCY, output="sos"), traces, axis=1)


def _vertex(trace: np.ndarray, index: int) -> float:
    """Where the parabola through an extremum and its neighbours turns, in samples."""
    if not 0 < index < len(trace) - 1:
        return float(index)
    before, here, after = trace[index - 1 : index + 2]
    bend = before - 2 * here + after
    return index + (0.0 if bend == 0 else 0.5 * (before - after) / bend)


def trough_to_peak(trace: np.ndarray, *, sampling_frequency: float = SAMPLING_FREQUENCY) -> float:
    """Time from a spike's trough to the highest point of the 3 ms that follow.

    Parameters
    ----------
    trace : np.ndarray, [num_samples]
        One spike.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    float
        In ms; infinite where the trace still rises after 3 ms.
    """
    trough = int(trace.argmin())
    after = trace[trough : trough + int(PEAK_WITHIN_MS * sampling_frequency / 1000.0) + 1]
    peak = int(after.argmax())
    if peak in (0, len(after) - 1):
        return float("inf")
    return (_vertex(trace, trough + peak) - _vertex(trace, trough)) * 1000.0 / sampling_frequency


def half_width(trace: np.ndarray, *, sampling_frequency: float = SAMPLING_FREQUENCY) -> float:
    """Time that a spike's trough is below half its depth.

    Parameters
    ----------
    trace : np.ndarray, [num_samples]
        One spike, 0 at rest.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    float
        In ms; nan where the trace does not fall below 0, or does not come back to half.
    """
    trough = int(trace.argmin())
    half = 0.5 * trace[trough]
    before, after = np.flatnonzero(trace[:trough] > half), np.flatnonzero(trace[trough:] > half)
    if half >= 0 or not before.size or not after.size:
        return float("nan")
    first, last = int(before[-1]), trough + int(after[0])
    start = first + (trace[first] - half) / (trace[first] - trace[first + 1])
    stop = last - (trace[last] - half) / (trace[last] - trace[last - 1])
    return float(stop - start) * 1000.0 / sampling_frequency


def is_positive_first(trace: np.ndarray) -> bool:
    """Tell whether a spike's [num_samples] largest deflection is upward and comes before its trough."""
    peak, trough = int(trace.argmax()), int(trace.argmin())
    return bool(trace[peak] > -trace[trough] and peak < trough)


def decay_distance(amplitudes: np.ndarray, *, distances_um: Sequence[float] = DISTANCES_UM) -> float:
    """Distance at which amplitude has fallen to 1/e of that at the nearest contact, log-linear in between.

    Parameters
    ----------
    amplitudes : np.ndarray, [num_distances]
        In uV, above 0.
    distances_um : sequence of float
        From the soma, increasing.

    Returns
    -------
    float
        In um, from the soma; infinite where it has not fallen so far by the last contact.
    """
    wanted = -1.0
    logs = np.log(np.maximum(amplitudes, 1e-6) / max(amplitudes[0], 1e-6))
    below = np.flatnonzero(logs <= wanted)
    if not below.size:
        return float("inf")
    i = int(below[0])
    share = (logs[i - 1] - wanted) / (logs[i - 1] - logs[i])
    return float(distances_um[i - 1] + share * (distances_um[i] - distances_um[i - 1]))


def decay_exponent(amplitudes: np.ndarray, *, distances_um: Sequence[float] = DISTANCES_UM) -> float:
    """Exponent of the power of distance that amplitude falls with, from 40 um on (least squares of logarithms).

    Parameters
    ----------
    amplitudes : np.ndarray, [num_distances]
        In uV, above 0.
    distances_um : sequence of float
        From the soma.

    Returns
    -------
    float
        2 for a fall with the square.
    """
    far = np.asarray(distances_um) >= _FAR_FIELD_UM
    logs = np.log(np.maximum(amplitudes[far], 1e-6))
    return float(-np.polyfit(np.log(np.asarray(distances_um, dtype=float)[far]), logs, 1)[0])


@dataclass(frozen=True)
class PlacedSpikes:
    """A neuron's mean spike at contacts on lines from its soma.

    Attributes
    ----------
    distances_um : np.ndarray, [num_placements, 1 + len(DISTANCES_UM)]
        The near contact at a random distance first.
    traces : dict of np.ndarray, [num_placements, 1 + len(DISTANCES_UM), num_samples]
        In uV at 30 kHz, for each of `BANDS`.
    """

    distances_um: np.ndarray
    traces: dict[str, np.ndarray]


def place_spikes(neuron: NeuronCurrents, *, num_placements: int, seed: int = 0) -> PlacedSpikes:
    """Put contacts around a neuron.

    Parameters
    ----------
    neuron : NeuronCurrents
        From a bank.
    num_placements : int
        Random rotations; each has a contact at a random distance (`NEAR_UM`) and contacts at `DISTANCES_UM` on the
        same line from the soma.
    seed : int
        Placements depend on it and on the neuron's name, not on the other neurons.

    Returns
    -------
    PlacedSpikes
    """
    rng = np.random.default_rng([seed, zlib.crc32(neuron.name.encode())])
    # Turning the neuron and turning the line of contacts about its soma are the same.
    directions = rng.normal(size=(num_placements, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    near = rng.uniform(*NEAR_UM, size=num_placements)
    distances = np.column_stack([near, np.tile(DISTANCES_UM, (num_placements, 1))])
    contacts = (directions[:, None] * distances[:, :, None]).reshape(-1, 3)
    fields = lead_field(neuron, soma_position=np.zeros(3), contact_positions=contacts)
    wide = at_recording_rate(fields @ neuron.mean_currents, dt=neuron.dt)
    traces = {name: filter_band(wide, band=band).reshape(*distances.shape, -1) for name, band in BANDS.items()}
    return PlacedSpikes(distances, traces)


def measure_spikes(placed: PlacedSpikes, *, name: str) -> pd.DataFrame:
    """Measure a neuron's spikes.

    Parameters
    ----------
    placed : PlacedSpikes
        The spikes.
    name : str
        Of the neuron.

    Returns
    -------
    pandas.DataFrame
        A row a placement: name and class; of the near contact its distance, amplitude (uV, downward, 300-6000 Hz),
        widths (ms) and whether it is positive-first; amplitudes at all distances and their decay. Spikes that are
        positive-first in any band have no widths.
    """
    rows = []
    for index, near in enumerate(placed.distances_um[:, 0]):
        spikes = {band: traces[index, 0] for band, traces in placed.traces.items()}
        along = -placed.traces["300"][index, 1:].min(axis=1)
        row: dict[str, object] = {"name": name, "class": class_of(name), "distance_um": near}
        row["amplitude_uv"] = -spikes["300"].min()
        row["amplitude_wide_uv"] = -spikes["wide"].min()
        row |= {f"positive_first_{band}": is_positive_first(spike) for band, spike in spikes.items()}
        # Widths are published of spikes that fall first.
        falls_first = not any(row[f"positive_first_{band}"] for band in spikes)
        for band, spike in spikes.items():
            row[f"trough_to_peak_{band}_ms"] = trough_to_peak(spike) if falls_first else float("nan")
            row[f"half_width_{band}_ms"] = half_width(spike) if falls_first else float("nan")
        row |= {f"amplitude_{far}um_uv": size for far, size in zip(DISTANCES_UM, along, strict=True)}
        row["decay_um"], row["decay_exponent"] = decay_distance(along), decay_exponent(along)
        rows.append(row)
    return pd.DataFrame(rows)


def aligned_shapes(placed: PlacedSpikes, *, band: str = "100") -> np.ndarray:
    """Near spikes that fall first, trough at time 0 and of depth 1, [num_spikes, num_samples] of `SHAPE_MS`."""
    first, last = (int(ms * SAMPLING_FREQUENCY / 1000.0) for ms in SHAPE_MS)
    spikes = [trace for trace in placed.traces[band][:, 0] if not is_positive_first(trace)]
    cut = [trace[trace.argmin() + first : trace.argmin() + last] / -trace.min() for trace in spikes]
    return np.array(cut).reshape(len(cut), last - first)


def measure_bank(
    neurons: Sequence[NeuronCurrents], *, num_placements: int, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Measure all neurons.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        At least one.
    num_placements : int
        Of each.
    seed : int
        For the placements.

    Returns
    -------
    spikes : pandas.DataFrame
        A row a placement, see `measure_spikes`.
    shapes : dict of np.ndarray
        For each class, see `aligned_shapes`.
    """
    tables: list[pd.DataFrame] = []
    shapes: dict[str, list[np.ndarray]] = {}
    for index, neuron in enumerate(neurons):
        placed = place_spikes(neuron, num_placements=num_placements, seed=seed)
        tables.append(measure_spikes(placed, name=neuron.name))
        shapes.setdefault(class_of(neuron.name), []).append(aligned_shapes(placed))
        if (index + 1) % 50 == 0:
            logger.info("%d of %d neurons", index + 1, len(neurons))
    return pd.concat(tables, ignore_index=True), {group: np.concatenate(found) for group, found in shapes.items()}
