"""A trial as the networks see it, and what the detector is asked to say about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A unit under the lower bound is noise to the detector, one above the upper is a spike to be found;
# in between nothing is asked of it.
IGNORED_SNR = (2.5, 3.5)
# Standard deviation of the soft label around each spike, in ms.
LABEL_WIDTH_MS = 0.1


@dataclass(frozen=True)
class PreparedTrial:
    """A trial as the networks see it.

    Attributes
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        Band-passed, in units of each channel's noise.
    spike_samples : np.ndarray, float64 [num_spikes]
        Time of each spike's largest deflection after the filter, in samples.
    spike_labels : np.ndarray, int64 [num_spikes]
        Its unit.
    unit_snr : np.ndarray, [num_units]
        Largest deflection of each unit's mean waveform, in units of noise.
    """

    traces: np.ndarray
    spike_samples: np.ndarray
    spike_labels: np.ndarray
    unit_snr: np.ndarray


def detection_targets(trial: PreparedTrial, *, sampling_frequency: float) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels of spikes for every sample, and the weight of each sample.

    Parameters
    ----------
    trial : PreparedTrial
        With its spikes.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    target : np.ndarray, float32 [num_samples]
        A Gaussian of height 1 at each spike to be found.
    weight : np.ndarray, float32 [num_samples]
        0 around spikes too small to be asked for, else 1.
    """
    num_samples = len(trial.traces)
    width = LABEL_WIDTH_MS * sampling_frequency / 1000.0
    reach = int(np.ceil(3 * width))
    target = np.zeros(num_samples, dtype="float32")
    weight = np.ones(num_samples, dtype="float32")
    snr = trial.unit_snr[trial.spike_labels]
    for time in trial.spike_samples[(snr > IGNORED_SNR[0]) & (snr < IGNORED_SNR[1])]:
        weight[max(int(time) - reach, 0) : int(time) + reach + 1] = 0.0
    for time in trial.spike_samples[snr >= IGNORED_SNR[1]]:
        index = np.arange(max(int(time) - reach, 0), min(int(time) + reach + 2, num_samples))
        target[index] = np.maximum(target[index], np.exp(-0.5 * ((index - time) / width) ** 2))
        weight[index] = 1.0
    return target, weight
