"""From clusters to units: double detections removed, what is no unit dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikeinterface_simsort.peaks import separated_times

# A unit that shares so many of its spikes with a larger one is that neuron seen twice.
_DUPLICATE_SHARE = 0.5
# A mean waveform is as good from so many spikes as from all.
_SPIKES_PER_TEMPLATE = 500


@dataclass(frozen=True)
class Unit:
    """A unit that stays.

    Attributes
    ----------
    spikes : np.ndarray, int64 [num_spikes]
        Indices of its peaks.
    template : np.ndarray, float32 [num_samples, num_channels]
        Mean waveform, in units of noise.
    snr : float
        Its largest deflection.
    channel_index : int
        Where that is.
    probability : float
        Mean probability of its spikes.
    predicted_accuracy : float
        What its accuracy is expected to be, see `confidence`; NaN before that is asked.
    """

    spikes: np.ndarray
    template: np.ndarray
    snr: float
    channel_index: int
    probability: float
    predicted_accuracy: float = float("nan")


def refine(
    peaks: np.ndarray,
    waveforms: np.ndarray,
    labels: np.ndarray,
    *,
    num_channels: int,
    duplicate_frames: int,
    min_spikes: int,
    min_snr: float,
    seed: int,
) -> list[Unit]:
    """Make units of labelled peaks.

    Parameters
    ----------
    peaks : np.ndarray, structured [num_peaks]
        Sorted by segment and sample index.
    waveforms : np.ndarray, float16 [num_peaks, num_samples * num_channels]
        In units of noise.
    labels : np.ndarray, int [num_peaks]
        Clusters; -1 is noise.
    num_channels : int
        Of the waveforms.
    duplicate_frames : int
        Spikes of a unit that are closer than this are one spike.
    min_spikes : int
        Smaller units are dropped.
    min_snr : float
        Units with a smaller mean waveform are dropped.
    seed : int
        For the spikes that a template is made of.

    Returns
    -------
    list of Unit
        The largest mean waveform first.
    """
    rng = np.random.default_rng(seed)
    units = []
    for label in np.unique(labels[labels >= 0]):
        spikes = remove_double_spikes(peaks, np.flatnonzero(labels == label), duplicate_frames=duplicate_frames)
        if len(spikes) < min_spikes:
            continue
        sample = spikes if len(spikes) <= _SPIKES_PER_TEMPLATE else rng.choice(spikes, _SPIKES_PER_TEMPLATE, False)
        template = waveforms[np.sort(sample)].astype("float32").mean(axis=0).reshape(-1, num_channels)
        largest = np.abs(template).max(axis=0)
        if largest.max() < min_snr:
            continue
        units.append(
            Unit(
                spikes=spikes,
                template=template,
                snr=float(largest.max()),
                channel_index=int(largest.argmax()),
                probability=float(peaks["probability"][spikes].mean()),
            )
        )
    units.sort(key=lambda unit: -unit.snr)
    return remove_double_units(peaks, units, duplicate_frames=duplicate_frames)


def remove_double_spikes(peaks: np.ndarray, spikes: np.ndarray, *, duplicate_frames: int) -> np.ndarray:
    """Keep the likelier of two spikes of one unit that are closer than a neuron can fire.

    Parameters
    ----------
    peaks : np.ndarray, structured [num_peaks]
        Sorted by segment and sample index.
    spikes : np.ndarray, int64 [num_spikes]
        Indices of the unit's peaks, increasing.
    duplicate_frames : int
        How close.

    Returns
    -------
    np.ndarray, int64
        Those kept.
    """
    while len(spikes) > 1:
        close = (np.diff(peaks["sample_index"][spikes]) < duplicate_frames) & (
            np.diff(peaks["segment_index"][spikes]) == 0
        )
        if not close.any():
            break
        # Of a run of close spikes, one goes at a time: the first pair decides.
        first = np.flatnonzero(close)
        first = first[np.diff(first, prepend=-2) > 1]
        probability = peaks["probability"][spikes]
        spikes = np.delete(spikes, np.where(probability[first] < probability[first + 1], first, first + 1))
    return spikes


def remove_double_units(peaks: np.ndarray, units: list[Unit], *, duplicate_frames: int) -> list[Unit]:
    """Drop a unit most of whose spikes coincide with those of a larger one.

    Parameters
    ----------
    peaks : np.ndarray, structured [num_peaks]
        Sorted by segment and sample index.
    units : list of Unit
        The largest mean waveform first.
    duplicate_frames : int
        Spikes closer than this coincide.

    Returns
    -------
    list of Unit
    """
    kept: list[Unit] = []
    times = separated_times(peaks)
    for unit in units:
        if not any(
            _coincident_share(times[unit.spikes], times[other.spikes], duplicate_frames) > _DUPLICATE_SHARE
            for other in kept
        ):
            kept.append(unit)
    return kept


def _coincident_share(times: np.ndarray, others: np.ndarray, tolerance: int) -> float:
    """Share of the spikes of a train that have a partner in another."""
    nearest = np.searchsorted(others, times)
    left = np.abs(times - others[np.clip(nearest - 1, 0, None)])
    right = np.abs(times - others[np.clip(nearest, None, len(others) - 1)])
    return float(np.mean(np.minimum(left, right) < tolerance))
