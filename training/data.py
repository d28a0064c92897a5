"""Training data composed on the fly: never the same trial twice, the same again from the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import signal
from torch.utils.data import Dataset

from spikeinterface_simsort.resampling import NYQUIST_SHARE
from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.composition import Trial, compose_trial
from spikeinterface_simsort.simulation.recipe import Recipe
from spikeinterface_simsort.simulation.spiketrains import overlapping
from spikeinterface_simsort.training.targets import IGNORED_SNR, PreparedTrial, detection_targets
from spikeinterface_simsort.waveforms import align_peaks, extract_waveforms

# How often a trial looks like one of these.
_P_SLOW, _SLOW_RATES_HZ = 0.25, (10000.0, 20000.0)
_P_CHANNEL_NOISE = 0.3
_P_DEAD = 0.1
_P_DOUBLE = 0.05
_P_TURNED = 0.1
# Waveforms of spike files are short: how often, and what they hold before and after the peak, in ms.
_P_SHORT, _SHORT_BEFORE_MS, _SHORT_AFTER_MS = 0.15, (0.12, 0.5), (0.6, 1.2)
# How often a spike is a little off in time, and by how many samples.
_P_JITTER, _JITTER_SAMPLES = 0.3, 0.2
# How often the spikes of a trial vary in size beyond what noise and bursts do, and by which share at most.
_P_SIZE, _MAX_SIZE_SPREAD = 0.5, 0.15


def prepare_trial(
    trial: Trial, *, rng: np.random.Generator, augment: bool = True, whiten: bool = False
) -> PreparedTrial:
    """Filter and scale a trial as the sorter's preprocessing does, with what varies between labs.

    Parameters
    ----------
    trial : Trial
        As composed, in uV.
    rng : np.random.Generator
        Source of the augmentations.
    augment : bool
        Vary the band, as far as that of a slow recording, the polarity, the order of the channels and their noise, and
        lose or double a channel at times.
    whiten : bool
        Make the channels uncorrelated, as the preset ``paper`` does.

    Returns
    -------
    PreparedTrial
    """
    rate = trial.sampling_frequency
    traces, templates = trial.traces, trial.templates
    low, high = 300.0, 6000.0
    if augment:
        low, high = rng.uniform(200.0, 450.0), rng.uniform(4500.0, 8000.0)
        if rng.random() < _P_SLOW:
            # What such a recording has above its Nyquist frequency no resampling brings back.
            high = min(high, NYQUIST_SHARE * rng.uniform(*_SLOW_RATES_HZ) / 2)
        order, gains = _draw_channels(traces.shape[1], rng=rng)
        traces, templates = traces[:, order] * gains, templates[:, :, order] * gains
        if rng.random() < _P_CHANNEL_NOISE:
            # After the doubling: two channels of one contact are nearly the same, not quite.
            spread = np.median(np.abs(trial.traces)) / 0.6745 * np.abs(gains) * rng.uniform(0.0, 1.0, size=len(gains))
            traces = traces + spread * rng.standard_normal(traces.shape, dtype="float32")
    # As in the sorter's preprocessing.
    band = (low, min(high, NYQUIST_SHARE * rate / 2))
    sos = signal.butter(3, band, btype="bandpass", fs=rate, output="sos")
    traces = signal.sosfiltfilt(sos, traces, axis=0)
    padded = np.pad(templates, ((0, 0), (200, 200), (0, 0)))
    templates = signal.sosfiltfilt(sos, padded, axis=1) if len(padded) else padded

    noise = np.median(np.abs(traces), axis=0) / 0.6745
    scale = np.where(noise > 0, 1.0 / np.where(noise > 0, noise, 1.0), 0.0)
    traces, templates = traces * scale, templates * scale
    if whiten:
        matrix = _whitening_matrix(traces)
        traces, templates = traces @ matrix, templates @ matrix
    deflection = np.abs(templates)
    snr = deflection.max(axis=(1, 2))
    shift = deflection.max(axis=2).argmax(axis=1) - 200 - trial.template_peak
    return PreparedTrial(
        traces=traces.astype("float32"),
        spike_samples=trial.spike_samples + shift[trial.spike_labels],
        spike_labels=trial.spike_labels,
        unit_snr=snr,
    )


def _whitening_matrix(traces: np.ndarray) -> np.ndarray:
    """Symmetric matrix that makes channels uncorrelated; silent ones stay silent."""
    variance, vectors = np.linalg.eigh(np.cov(traces, rowvar=False))
    inverse = np.where(variance > 1e-6, 1.0 / np.sqrt(np.maximum(variance, 1e-6)), 0.0)
    return (vectors * inverse) @ vectors.T


def _draw_channels(num_channels: int, *, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Order of the channels, one of them twice at times, and their gains: 0 for a dead one, -1 for turned polarity."""
    order, gains = rng.permutation(num_channels), np.ones(num_channels, dtype="float32")
    if rng.random() < _P_DEAD:
        gains[rng.integers(num_channels)] = 0.0
    elif rng.random() < _P_DOUBLE:
        order[rng.integers(num_channels)] = order[0]
    return order, -gains if rng.random() < _P_TURNED else gains


class _ComposedTrials(Dataset):
    """Trials numbered from a seed; an epoch's trials differ from every other's, unless there are only so many."""

    def __init__(
        self,
        neurons: Sequence[NeuronCurrents],
        *,
        seed: int,
        trials_per_epoch: int,
        recipe: Recipe,
        sampling_frequency: float,
        duration_s: float,
        num_units: tuple[int, int],
        firing_rate_hz: tuple[float, float],
        whiten: bool,
        overlaps: bool,
        num_trials: int | None,
    ) -> None:
        self.neurons = neurons
        self.seed = seed
        self.trials_per_epoch = trials_per_epoch
        self.sampling_frequency = sampling_frequency
        # What this network needs goes before what the recipe says.
        own = {
            "duration_s": duration_s,
            "sampling_frequency": sampling_frequency,
            "num_units": {"integers": list(num_units)},
            "firing_rate_hz": list(firing_rate_hz),
        }
        self.recipe = Recipe({**recipe.values, **own})
        self.whiten = whiten
        self.overlaps = overlaps
        self.num_trials = num_trials
        self.epoch = 0
        self._kept: dict[int, tuple[torch.Tensor, ...]] = {}

    def __len__(self) -> int:
        return self.trials_per_epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        if self.num_trials is None:
            return self._item(index)
        # What comes again and again is made once.
        number = self._number(index)
        if number not in self._kept:
            self._kept[number] = self._item(index)
        return self._kept[number]

    def _item(self, index: int) -> tuple[torch.Tensor, ...]:
        raise NotImplementedError

    def _number(self, index: int) -> int:
        number = self.epoch * self.trials_per_epoch + index
        return number if self.num_trials is None else number % self.num_trials

    def _overlapping(self, trial: PreparedTrial) -> np.ndarray:
        # The filter may have moved units' deflections past each other.
        order = np.argsort(trial.spike_samples, kind="stable")
        window = self.sampling_frequency / 1000.0
        result = np.zeros(len(order), dtype=bool)
        result[order] = overlapping(trial.spike_samples[order], trial.spike_labels[order], window=window)
        return result

    def prepared(self, index: int) -> tuple[PreparedTrial, np.random.Generator]:
        """Compose and prepare a trial; the generator is for what is drawn beyond."""
        sequence = np.random.SeedSequence([self.seed, self._number(index)])
        conditions, composition, augmentation = sequence.spawn(3)
        config = self.recipe.draw(int(conditions.generate_state(1)[0]))
        rng = np.random.default_rng(augmentation)
        trial = compose_trial(self.neurons, config=config, seed=composition)
        return prepare_trial(trial, rng=rng, whiten=self.whiten), rng


class DetectionWindows(_ComposedTrials):
    """Windows of traces with their detection targets.

    An item is one trial, cut into windows: traces [num_windows, window_samples, num_channels],
    target and weight [num_windows, window_samples].

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank.
    seed : int
        Same seed, same trials.
    trials_per_epoch : int
        Length of the data set.
    recipe : Recipe
        How trials are drawn; their length, rate and firing are the network's.
    sampling_frequency : float
        Of the detector, in Hz.
    window_samples : int
        Of the detector.
    windows_per_trial : int
        Windows cut from a trial, which is just long enough for them.
    whiten : bool
        See `prepare_trial`.
    overlaps : bool
        Whether to learn from spikes with one of another unit within 1 ms.
    num_trials : int, optional
        Only so many different trials, again and again; default never the same twice.
    """

    def __init__(
        self,
        neurons: Sequence[NeuronCurrents],
        *,
        seed: int,
        trials_per_epoch: int,
        recipe: Recipe,
        sampling_frequency: float,
        window_samples: int,
        windows_per_trial: int = 16,
        whiten: bool = False,
        overlaps: bool = True,
        num_trials: int | None = None,
    ) -> None:
        super().__init__(
            neurons,
            seed=seed,
            trials_per_epoch=trials_per_epoch,
            recipe=recipe,
            sampling_frequency=sampling_frequency,
            duration_s=window_samples * windows_per_trial / sampling_frequency,
            num_units=(1, 12),
            firing_rate_hz=(1.0, 30.0),
            whiten=whiten,
            overlaps=overlaps,
            num_trials=num_trials,
        )
        self.window_samples = window_samples

    def _item(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        trial, _ = self.prepared(index)
        target, weight = detection_targets(trial, sampling_frequency=self.sampling_frequency)
        if not self.overlaps:
            reach = round(self.sampling_frequency / 1000.0)
            for time in trial.spike_samples[self._overlapping(trial)].astype("int64"):
                weight[max(time - reach, 0) : time + reach + 1] = 0.0
        windows = (-1, self.window_samples)
        return (
            torch.from_numpy(trial.traces.reshape(*windows, trial.traces.shape[1])),
            torch.from_numpy(target.reshape(windows)),
            torch.from_numpy(weight.reshape(windows)),
        )


class SpikeWaveforms(_ComposedTrials):
    """Waveforms of many units of one trial, as the sorter would cut them.

    An item is one trial: waveforms [num_spikes, num_samples, num_channels] and labels [num_spikes].

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank.
    seed : int
        Same seed, same trials.
    trials_per_epoch : int
        Length of the data set.
    recipe : Recipe
        How trials are drawn; their length, rate and firing are the network's.
    sampling_frequency : float
        Of the embedder, in Hz.
    num_before, num_after : int
        Samples of a waveform before and from its peak on.
    search_samples : int
        Of the alignment, see `waveforms.align_peaks`.
    spikes_per_unit : int
        At most.
    whiten : bool
        See `prepare_trial`.
    overlaps : bool
        Whether to learn from spikes with one of another unit within 1 ms.
    num_trials : int, optional
        Only so many different trials, again and again; default never the same twice.
    """

    def __init__(
        self,
        neurons: Sequence[NeuronCurrents],
        *,
        seed: int,
        trials_per_epoch: int,
        recipe: Recipe,
        sampling_frequency: float,
        num_before: int,
        num_after: int,
        search_samples: int,
        spikes_per_unit: int = 24,
        whiten: bool = False,
        overlaps: bool = True,
        num_trials: int | None = None,
    ) -> None:
        super().__init__(
            neurons,
            seed=seed,
            trials_per_epoch=trials_per_epoch,
            recipe=recipe,
            sampling_frequency=sampling_frequency,
            duration_s=6.0,
            num_units=(6, 16),
            firing_rate_hz=(2.0, 8.0),
            whiten=whiten,
            overlaps=overlaps,
            num_trials=num_trials,
        )
        self.num_before = num_before
        self.num_after = num_after
        self.search_samples = search_samples
        self.spikes_per_unit = spikes_per_unit

    def _item(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        trial, rng = self.prepared(index)
        left_out = np.zeros(len(trial.spike_labels), dtype=bool) if self.overlaps else self._overlapping(trial)
        chosen = []
        for unit in np.flatnonzero(trial.unit_snr >= IGNORED_SNR[1]):
            spikes = np.flatnonzero((trial.spike_labels == unit) & ~left_out)
            if len(spikes) >= 4:
                chosen.append(rng.permutation(spikes)[: self.spikes_per_unit])
        spikes = np.concatenate(chosen) if chosen else np.empty(0, dtype="int64")
        # The detector is off by a sample at times.
        rough = np.round(trial.spike_samples[spikes] + rng.normal(0.0, 0.8, size=len(spikes))).astype("int64")
        times, _ = align_peaks(trial.traces, rough, search_samples=self.search_samples)
        jitter = np.where(rng.random(len(times)) < _P_JITTER, rng.normal(0.0, _JITTER_SAMPLES, size=len(times)), 0.0)
        waveforms = extract_waveforms(
            trial.traces, times + jitter, num_before=self.num_before, num_after=self.num_after
        )
        if rng.random() < _P_SIZE:
            spread = rng.uniform(0.0, _MAX_SIZE_SPREAD)
            waveforms *= rng.normal(1.0, spread, size=(len(times), 1, 1)).astype("float32")
        if rng.random() < _P_SHORT:
            before, after = rng.uniform(*_SHORT_BEFORE_MS), rng.uniform(*_SHORT_AFTER_MS)
            time_ms = (np.arange(waveforms.shape[1]) - self.num_before) * 1000.0 / self.sampling_frequency
            waveforms[:, (time_ms < -before) | (time_ms > after)] = 0.0
        return torch.from_numpy(waveforms), torch.from_numpy(trial.spike_labels[spikes])
