"""Trials without composition: cells simulated for the whole length, their currents turned into traces as they come.

A hundred times slower than composing, and the check on it: what composition leaves out (currents between spikes,
waveforms that depend on more than the interval before) is all there.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly
from threadpoolctl import threadpool_limits

from spikeinterface_simsort.simulation.bank_building import BankConfig, drive_into_bank
from spikeinterface_simsort.simulation.cell_models import CellModel
from spikeinterface_simsort.simulation.composition import (
    Trial,
    assemble_trial,
    compose_noise,
    config_contacts,
    draw_gains,
    random_streams,
    unit_truth,
)
from spikeinterface_simsort.simulation.drive import drive
from spikeinterface_simsort.simulation.electrodes import Contacts
from spikeinterface_simsort.simulation.extracellular import contact_field
from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms
from spikeinterface_simsort.simulation.placement import PlacedNeuron, draw_unit
from spikeinterface_simsort.simulation.spike_currents import DT, spike_samples
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import write_trial


@dataclass(frozen=True)
class FaithfulUnit:
    """One cell of a trial.

    Attributes
    ----------
    placed : PlacedNeuron
        The cell's bank entry at its place: what a composed trial would be made of.
    times : np.ndarray, [num_spikes]
        Peaks of the somatic voltage, in s.
    potentials : np.ndarray, float32 [num_samples, num_channels]
        At the contacts, in uV, at the trial's rate, gains left out.
    """

    placed: PlacedNeuron
    times: np.ndarray
    potentials: np.ndarray


def simulate_unit(
    model: CellModel,
    *,
    config: TrialConfig,
    contacts: Contacts,
    seed: np.random.SeedSequence,
) -> FaithfulUnit:
    """Place a cell and simulate it for the length of a trial, in this process.

    Parameters
    ----------
    model : CellModel
        The cell.
    config : TrialConfig
        Gives the length, the rate, and limits of place, amplitude and firing rate.
    contacts : Contacts
        Of the electrode.
    seed : np.random.SeedSequence
        The same seed gives the same unit.

    Returns
    -------
    FaithfulUnit

    Raises
    ------
    ValueError
        The cell does not spike as it should, or at no place gives the amplitude asked for.
    """
    # Here alone, so that only processes that simulate load NEURON.
    from spikeinterface_simsort.simulation.neuron_cells import NeuronCell

    stimuli, place = (np.random.default_rng(child) for child in seed.spawn(2))
    bank_config = BankConfig()
    cell = NeuronCell(model, max_segment_um=bank_config.max_segment_um)
    neuron, _, _ = drive_into_bank(cell, rng=stimuli, config=bank_config)
    placed = draw_unit([neuron], config=config, contacts=contacts, displacements=np.zeros((1, 3)), rng=place)
    field = contact_field(neuron, soma_position=placed.soma_position, rotation=placed.rotation, contacts=contacts)
    num_samples = round(config.duration_s * 1000.0 / DT)
    potentials = np.empty((len(contacts), num_samples), dtype="float32")
    v_soma = np.empty(num_samples, dtype="float32")
    position = 0
    for v, currents in drive(cell, rheobase=neuron.rheobase, rng=stimuli, rate_hz=config.firing_rate_hz):
        count = min(len(v), num_samples - position)
        potentials[:, position : position + count] = (field @ currents)[:, :count]
        v_soma[position : position + count] = v[:count]
        position += count
        if position == num_samples:
            break
    times = spike_samples(v_soma=v_soma) * DT / 1000.0
    # From the simulation's rate to the recording's, past its anti-aliasing filter.
    ratio = Fraction(config.sampling_frequency * DT / 1000.0).limit_denominator(2000)
    resampled = resample_poly(potentials, ratio.numerator, ratio.denominator, axis=1).astype("float32").T
    length = round(config.duration_s * config.sampling_frequency)
    return FaithfulUnit(placed, times, np.ascontiguousarray(resampled[:length]))


def faithful_trial(
    models: Sequence[CellModel], *, config: TrialConfig, seed: int, num_processes: int = 1
) -> tuple[Trial, list[FaithfulUnit]]:
    """Simulate a trial: one process a cell, all of them for the whole length.

    Parameters
    ----------
    models : sequence of CellModel
        Units are drawn from these.
    config : TrialConfig
        What the trial looks like; without drift, far neurons, and spike trains of its own: cells spike as they are
        driven, between the lowest and the highest rate where they can.
    seed : int
        The same seed gives the same trial.
    num_processes : int
        Cells at a time.

    Returns
    -------
    trial : Trial
        Its templates are those that a composed trial would have.
    units : list of FaithfulUnit
        Of which it is the sum, with noise.

    Raises
    ------
    ValueError
        The configuration asks for what this mode does not have, or a cell cannot be simulated.
    """
    if config.num_far or config.drift_um or config.spike_speed != (1.0, 1.0):
        raise ValueError(
            "A faithful trial has no far neurons, no drift and no other speed: set num_far and drift_um to 0, and "
            "spike_speed to [1, 1]."
        )
    if not config.num_units:
        raise ValueError("A faithful trial needs num_units of 1 or more.")
    compile_mechanisms()
    rngs = random_streams(seed, "noise", "electrode", "cells")
    contacts = config_contacts(config)
    gains = draw_gains(config=config, num_channels=len(contacts), rng=rngs["electrode"])
    chosen = [models[int(index)] for index in rngs["cells"].integers(len(models), size=config.num_units)]
    seeds = np.random.SeedSequence([seed, 1]).spawn(config.num_units)
    tasks = [(model, config, contacts, child) for model, child in zip(chosen, seeds, strict=True)]
    # A fresh process a cell: NEURON keeps one world a process.
    with multiprocessing.get_context("spawn").Pool(num_processes, maxtasksperchild=1) as pool:
        units = pool.starmap(_simulate, tasks, chunksize=1)

    traces = compose_noise(config=config, contacts=contacts, rng=rngs["noise"])
    samples, labels, templates, peaks = [], [], [], []
    for index, unit in enumerate(units):
        traces += unit.potentials * gains.astype("float32")
        template, peak, spikes = unit_truth(
            unit.placed, times=unit.times, channel_gains=gains, sampling_frequency=config.sampling_frequency
        )
        inside = (spikes >= 0) & (spikes <= len(traces) - 1)
        samples.append(spikes[inside])
        labels.append(np.full(int(inside.sum()), index))
        templates.append(template)
        peaks.append(peak)
    if config.saturation_uv is not None:
        np.clip(traces, -config.saturation_uv, config.saturation_uv, out=traces)
    trial = assemble_trial(
        traces=traces,
        config=config,
        contacts=contacts,
        placed_units=[unit.placed for unit in units],
        samples=samples,
        labels=labels,
        templates=templates,
        peaks=peaks,
        channel_gains=gains,
        drift_um=None,
    )
    return trial, units


def save_faithful_trial(
    folder: str | Path,
    models: Sequence[CellModel],
    *,
    config: TrialConfig,
    seed: int,
    num_processes: int = 1,
    format: str = "binary",
    most_waveforms: int = 0,
) -> Path:
    """Simulate a trial and write it.

    Parameters
    ----------
    folder : str or Path
        To be made; it appears whole or not at all.
    models, config, seed, num_processes
        See `faithful_trial`.
    format, most_waveforms
        See `trials.write_trial`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        The folder is there already.
    """
    if Path(folder).exists():
        raise FileExistsError(f"{folder} exists already: choose another folder or remove it.")
    trial, _ = faithful_trial(models, config=config, seed=seed, num_processes=num_processes)
    description = {"seed": seed, "faithful": True, "config": config.to_dict()}
    return write_trial(folder, trial, description=description, format=format, most_waveforms=most_waveforms)


def _simulate(model: CellModel, config: TrialConfig, contacts: Contacts, seed: np.random.SeedSequence) -> FaithfulUnit:
    # NEURON says on import otherwise that there is no screen.
    os.environ.setdefault("NEURON_MODULE_OPTIONS", "-nogui")
    with threadpool_limits(1):
        return simulate_unit(model, config=config, contacts=contacts, seed=seed)
