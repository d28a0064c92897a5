"""Trials as SpikeInterface recordings and sortings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from probeinterface import Probe
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting

from spikeinterface_simsort.simulation.bank import NeuronCurrents, load_bank
from spikeinterface_simsort.simulation.composition import Trial, TrialConfig, compose_trial


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
    probe = Probe(ndim=2, si_units="um")
    probe.set_contacts(positions=trial.contact_positions[:, :2], shapes="circle", shape_params={"radius": 6.0})
    probe.set_device_channel_indices(np.arange(len(trial.contact_positions)))
    # SpikeInterface up to 0.104 returns a recording with the probe; later versions set it in place.
    probed = recording.set_probe(probe)
    return recording if probed is None else probed


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


def save_trial(
    folder: str | Path,
    neurons: Sequence[NeuronCurrents] | None = None,
    *,
    config: TrialConfig | None = None,
    seed: int = 0,
) -> Path:
    """Compose a trial and write it as SpikeInterface folders ``recording`` and ``sorting``.

    Parameters
    ----------
    folder : str or Path
        To be made; it appears whole or not at all.
    neurons, config, seed
        See `make_trial`.

    Returns
    -------
    Path
        The folder; ``trial.json`` in it says how the trial was made.

    Raises
    ------
    FileExistsError
        The folder is there already.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: choose another folder or remove it.")
    config = config or TrialConfig()
    recording, sorting = make_trial(neurons, config=config, seed=seed)
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    recording.save(folder=partial / "recording", verbose=False, progress_bar=False)
    sorting.save(folder=partial / "sorting")
    description = {
        "seed": seed,
        "config": asdict(config),
        "cells": [str(cell) for cell in (sorting.get_property("cell") if config.num_units else [])],
    }
    (partial / "trial.json").write_text(json.dumps(description, indent=2), encoding="utf8")
    partial.rename(folder)
    return folder
