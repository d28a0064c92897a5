"""Spikes put into traces: interpolation between samples, choice of waveforms, addition."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.placement import PlacedNeuron

# Sub-sample positions at which a spike may start: a tenth of a sample is finer than any jitter of detection.
NUM_PHASES = 10


@lru_cache(maxsize=32)
def _interpolation(num_basis: int, dt: float, peak_index: int, sampling_frequency: float) -> np.ndarray:
    """Band-limited interpolation from the spectrum of a basis to each sub-sample phase of the recording.

    Returns float32 [2 * num_frequencies, num_phases * num_waveform_samples], for the real and the imaginary part of
    the spectrum of a basis padded to twice its length; exact for what lies below both Nyquist rates. The sample
    `num_before` of a phase-0 waveform is the bank's `peak_index`, with ``num_before = floor(peak_index * dt * rate)``.
    """
    padded = 2 * num_basis
    rate = sampling_frequency / 1000.0
    before, after = int(peak_index * dt * rate), int((num_basis - 1 - peak_index) * dt * rate) - 1
    offsets = np.arange(-before, after + 1)
    phases = np.arange(NUM_PHASES) / NUM_PHASES
    # A spike that falls `phase` after a sample shows at that sample what the waveform was `phase` earlier.
    times = peak_index * dt + (offsets[None, :] - phases[:, None]) / rate
    frequencies = np.fft.rfftfreq(padded, dt)
    # A raised cosine edge below the recording's Nyquist frequency stands for its anti-aliasing filter.
    edge = np.clip((frequencies / (rate / 2) - 0.85) / 0.15, 0.0, 1.0)
    weight = np.where((frequencies == 0) | (np.arange(frequencies.size) == frequencies.size - 1), 1.0, 2.0)
    weight = weight * 0.5 * (1 + np.cos(np.pi * edge)) / padded
    angle = 2 * np.pi * np.outer(frequencies, times.ravel())
    return np.concatenate([weight[:, None] * np.cos(angle), -weight[:, None] * np.sin(angle)]).astype("float32")


def phase_basis(neuron: NeuronCurrents, *, sampling_frequency: float) -> tuple[np.ndarray, int]:
    """A neuron's basis at the recording's rate, at each sub-sample phase.

    Parameters
    ----------
    neuron : NeuronCurrents
        From a bank.
    sampling_frequency : float
        Of the recording, in Hz.

    Returns
    -------
    basis : np.ndarray, float32 [num_phases, num_components, num_waveform_samples]
        Basis for a spike that falls ``phase / num_phases`` after a sample.
    num_before : int
        Samples before the somatic voltage peak.
    """
    num_components, num_basis = neuron.basis.shape
    matrix = _interpolation(num_basis, neuron.dt, neuron.peak_index, float(sampling_frequency))
    spectrum = np.fft.rfft(neuron.basis, n=2 * num_basis, axis=1)
    parts = np.concatenate([spectrum.real, spectrum.imag], axis=1).astype("float32")
    basis = (parts @ matrix).reshape(num_components, NUM_PHASES, -1)
    return np.ascontiguousarray(basis.swapaxes(0, 1)), int(neuron.peak_index * neuron.dt * sampling_frequency / 1000.0)


def choose_variants(neuron: NeuronCurrents, intervals_ms: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Choose for each spike one of the neuron's simulated spikes by the interval before it.

    Parameters
    ----------
    neuron : NeuronCurrents
        With `isi` of its simulated spikes.
    intervals_ms : np.ndarray, [num_spikes]
        Intervals before the spikes wanted.
    rng : np.random.Generator
        Breaks the tie among the five nearest intervals.

    Returns
    -------
    np.ndarray, int [num_spikes]
        Indices into the neuron's spikes.
    """
    order = np.argsort(neuron.isi)
    known = np.log(np.maximum(neuron.isi[order], 0.1))
    nearest = np.searchsorted(known, np.log(np.maximum(intervals_ms, 0.1)))
    nearest = nearest + rng.integers(-2, 3, size=nearest.shape)
    return order[np.clip(nearest, 0, len(order) - 1)]


def add_spikes(
    traces: np.ndarray,
    placed: PlacedNeuron,
    *,
    times: np.ndarray,
    displacement: np.ndarray,
    channel_gains: np.ndarray,
    sampling_frequency: float,
    rng: np.random.Generator,
) -> None:
    """Add a placed neuron's spikes to traces, in place.

    Parameters
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        In uV.
    placed : PlacedNeuron
        The neuron.
    times : np.ndarray, [num_spikes]
        Times of its somatic voltage peaks in s, increasing.
    displacement : np.ndarray, [num_spikes]
        Where on its way each spike finds it, from 0 to ``num_displacements - 1``, interpolated linearly.
    channel_gains : np.ndarray, [num_channels]
        Gains of the electrodes.
    sampling_frequency : float
        In Hz.
    rng : np.random.Generator
        For the choice of waveforms.
    """
    if times.size == 0:
        return
    basis, num_before = phase_basis(placed.neuron, sampling_frequency=sampling_frequency)
    num_after = basis.shape[2] - num_before
    if placed.coef.shape[1] == 1:
        variants = np.zeros(times.size, dtype=int)
    else:
        variants = choose_variants(placed.neuron, np.diff(times, prepend=-1e6) * 1000.0, rng=rng)
    step = np.clip(displacement.astype("int64"), 0, max(len(placed.coef) - 2, 0))
    share = (displacement - step).astype("float32")[:, None, None]
    coef = (1 - share) * placed.coef[step, variants]
    if share.any():
        coef += share * placed.coef[step + 1, variants]
    coef *= channel_gains[:, None].astype("float32")
    ticks = np.round(times * sampling_frequency * NUM_PHASES).astype("int64")
    centres, phases = ticks // NUM_PHASES, ticks % NUM_PHASES
    for phase in range(NUM_PHASES):
        chosen = np.flatnonzero(phases == phase)
        waveforms = np.matmul(basis[phase].T, coef[chosen].swapaxes(1, 2))
        for centre, waveform in zip(centres[chosen], waveforms, strict=True):
            start, stop = centre - num_before, centre + num_after
            inside = slice(max(-start, 0), len(waveform) - max(stop - len(traces), 0))
            if inside.start < inside.stop:
                traces[max(start, 0) : min(stop, len(traces))] += waveform[inside]
