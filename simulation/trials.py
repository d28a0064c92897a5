"""Trials as SpikeInterface recordings and sortings, in memory and on disk."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.composition import Trial, compose_trial
from spikeinterface_simsort.simulation.electrodes import Contacts
from spikeinterface_simsort.simulation.probes import probe_of_contacts
from spikeinterface_simsort.simulation.trial_config import TrialConfig

TRIAL_FILE, TRUTH_FILE, WAVEFORMS_FILE = "trial.yaml", "truth.npz", "waveforms.npz"
FORMATS = ("binary", "zarr")


def bundled_bank() -> list[NeuronCurrents]:
    """Load the small bank of the project's own reduced cells, which ships with the package."""
    with as_file(files("spikeinterface_simsort") / "assets" / "neuron_bank.npz") as path:
        return load_bank(path)


def to_recording(trial: Trial) -> BaseRecording:
    """Make a recording of a trial, in memory.

    Parameters
    ----------
    trial : Trial
        As composed.

    Returns
    -------
    BaseRecording
        In uV (gain 1), with a probe. Save it (``recording.save()``) before sorting it with a sorter of SpikeInterface.
    """
    recording = NumpyRecording([trial.traces], sampling_frequency=trial.sampling_frequency)
    recording.set_channel_gains(1.0)
    recording.set_channel_offsets(0.0)
    normals = np.tile([0.0, 0.0, 1.0], (len(trial.contact_positions), 1))
    # SpikeInterface 0.104 returns another recording, later versions change this one.
    with_probe: Any = recording.set_probe(
        probe_of_contacts(Contacts(trial.contact_positions, trial.contact_radius_um, normals))
    )
    return recording if with_probe is None else with_probe


def to_sorting(trial: Trial) -> BaseSorting:
    """Make a sorting of a trial's ground truth.

    Parameters
    ----------
    trial : Trial
        As composed.

    Returns
    -------
    BaseSorting
        Unit ids from 0; properties ``cell`` (name in the bank), ``gt_unit_locations`` (um) and ``amplitude_uv``.
    """
    samples = np.round(trial.spike_samples).astype("int64")
    unit_ids = np.arange(len(trial.unit_names))
    trains = {int(unit): samples[trial.spike_labels == unit] for unit in unit_ids}
    sorting = NumpySorting.from_unit_dict([trains], trial.sampling_frequency)
    if len(unit_ids):
        sorting.set_property("cell", np.array(trial.unit_names))
        sorting.set_property("gt_unit_locations", trial.unit_positions)
        sorting.set_property("amplitude_uv", np.abs(trial.templates).max(axis=(1, 2)))
    return sorting


def make_trial(
    neurons: Sequence[NeuronCurrents] | None = None, *, config: TrialConfig | None = None, seed: int = 0
) -> tuple[BaseRecording, BaseSorting]:
    """Compose a trial as a recording and the sorting that is true for it.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents, optional
        Of a bank; default the bundled one.
    config : TrialConfig, optional
        What the trial looks like.
    seed : int
        The same seed gives the same trial.

    Returns
    -------
    recording : BaseRecording
        See `to_recording`.
    sorting : BaseSorting
        See `to_sorting`.

    Examples
    --------
    >>> recording, truth = make_trial(config=TrialConfig(duration_s=10.0), seed=1)
    """
    trial = compose_trial(neurons or bundled_bank(), config=config or TrialConfig(), seed=seed)
    return to_recording(trial), to_sorting(trial)


def labelled_waveforms(
    trial: Trial, *, most_per_unit: int = 500, before_ms: float = 1.0, after_ms: float = 2.0
) -> dict[str, np.ndarray]:
    """Cut the labelled spikes out of a trial's traces: the set that an embedder learns from.

    Parameters
    ----------
    trial : Trial
        As composed.
    most_per_unit : int
        Most spikes of each unit, spread over the trial.
    before_ms, after_ms : float
        What to cut before and after the largest deflection.

    Returns
    -------
    dict
        ``waveforms`` float32 [num_spikes, num_samples, num_channels] in uV, ``labels`` int64 [num_spikes],
        ``samples`` int64 [num_spikes] (of the largest deflection) and ``overlapping`` bool [num_spikes].
    """
    before, after = (round(ms * trial.sampling_frequency / 1000.0) for ms in (before_ms, after_ms))
    centres = np.round(trial.spike_samples).astype("int64")
    inside = (centres >= before) & (centres + after <= len(trial.traces))
    chosen = []
    for unit in range(len(trial.unit_names)):
        of_unit = np.flatnonzero(inside & (trial.spike_labels == unit))
        spread = np.linspace(0, len(of_unit) - 1, min(most_per_unit, len(of_unit))).round().astype(int)
        chosen.append(of_unit[spread])
    order = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=int)
    return {
        "waveforms": trial.traces[centres[order][:, None] + np.arange(-before, after)],
        "labels": trial.spike_labels[order],
        "samples": centres[order],
        "overlapping": trial.overlapping()[order],
    }


def write_trial(
    folder: str | Path,
    trial: Trial,
    *,
    description: dict[str, Any],
    format: str = "binary",
    most_waveforms: int = 0,
) -> Path:
    """Write a trial as SpikeInterface folders and what else is known of it.

    Parameters
    ----------
    folder : str or Path
        To be made; it appears whole or not at all.
    trial : Trial
        The trial.
    description : dict
        How it was made: goes into ``trial.yaml``.
    format : {"binary", "zarr"}
        Of the recording: ``recording`` or ``recording.zarr`` in the folder; ``spikeinterface.load`` reads both.
    most_waveforms : int
        Also write ``waveforms.npz`` with so many spikes of each unit, see `labelled_waveforms`.

    Returns
    -------
    Path
        The folder. ``truth.npz`` in it holds what a sorting cannot: sub-sample spike times, overlaps, templates,
        gains, drift.

    Raises
    ------
    FileExistsError
        The folder is there already.
    ValueError
        There is no such format.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: choose another folder or remove it.")
    # Of this writer alone: another that makes the same trial has its own, and the first to finish stays.
    partial = folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        recording = to_recording(trial)
        if format == "zarr":
            recording.save(format="zarr", folder=partial / "recording.zarr", verbose=False, progress_bar=False)
        else:
            recording.save(folder=partial / "recording", verbose=False, progress_bar=False)
        to_sorting(trial).save(folder=partial / "sorting")
        np.savez(partial / TRUTH_FILE, **_truth(trial))  # pyright: ignore[reportArgumentType]
        if most_waveforms:
            np.savez(partial / WAVEFORMS_FILE, **labelled_waveforms(trial, most_per_unit=most_waveforms))  # pyright: ignore[reportArgumentType]
        description = {**description, "version": __version__, "cells": [str(name) for name in trial.unit_names]}
        (partial / TRIAL_FILE).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FileExistsError(f"{folder} was made by another process meanwhile.") from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _truth(trial: Trial) -> dict[str, np.ndarray]:
    known = {
        "spike_samples": trial.spike_samples,
        "spike_labels": trial.spike_labels,
        "overlapping": trial.overlapping(),
        "templates": trial.templates,
        "template_peak": trial.template_peak,
        "unit_positions": trial.unit_positions,
        "unit_rotations": trial.unit_rotations,
        "contact_positions": trial.contact_positions,
        "channel_gains": trial.channel_gains,
        "drift_um": trial.drift_um,
    }
    return {name: value for name, value in known.items() if value is not None}


def save_trial(
    folder: str | Path,
    neurons: Sequence[NeuronCurrents] | None = None,
    *,
    config: TrialConfig | None = None,
    seed: int = 0,
    format: str = "binary",
    most_waveforms: int = 0,
) -> Path:
    """Compose a trial and write it.

    Parameters
    ----------
    folder : str or Path
        To be made; it appears whole or not at all.
    neurons, config, seed
        See `make_trial`.
    format, most_waveforms
        See `write_trial`.

    Returns
    -------
    Path
        The folder; ``trial.yaml`` in it says how the trial was made.

    Raises
    ------
    FileExistsError
        The folder is there already.
    """
    config = config or TrialConfig()
    if Path(folder).exists():
        raise FileExistsError(f"{folder} exists already: choose another folder or remove it.")
    trial = compose_trial(neurons or bundled_bank(), config=config, seed=seed)
    description = {"seed": seed, "config": config.to_dict()}
    return write_trial(folder, trial, description=description, format=format, most_waveforms=most_waveforms)
