"""Whether composed trials look like cells that are simulated all the way through: their templates, side by side."""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from spikeinterface_simsort.simulation.cells import read_cells
from spikeinterface_simsort.simulation.faithful import FaithfulUnit, faithful_trial
from spikeinterface_simsort.simulation.own_cells import own_cells_folder
from spikeinterface_simsort.simulation.spike_synthesis import phase_basis
from spikeinterface_simsort.simulation.trial_config import TrialConfig

COLUMNS = ["cell", "spikes", "correlation", "amplitude_uv", "composed_amplitude_uv"]
# Nothing else in the window: the mean is of one spike each.
ALONE_S = 0.006


def compare_templates(
    unit: FaithfulUnit, *, sampling_frequency: float, before_ms: float = 1.0, after_ms: float = 2.0
) -> dict[str, Any]:
    """Compare a unit's spike-triggered mean with the template that composition would give it.

    Parameters
    ----------
    unit : FaithfulUnit
        Of a faithful trial.
    sampling_frequency : float
        Of its potentials, in Hz.
    before_ms, after_ms : float
        What to compare, about the somatic voltage peak.

    Returns
    -------
    dict
        By `COLUMNS`: number of spikes that stand alone, correlation over all channels and samples, largest
        deflection of both in uV.

    Raises
    ------
    ValueError
        No spike stands alone.
    """
    before, after = (round(ms * sampling_frequency / 1000.0) for ms in (before_ms, after_ms))
    offsets = np.arange(-before, after)
    alone = (np.diff(unit.times, prepend=-1.0) > ALONE_S) & (np.diff(unit.times, append=np.inf) > ALONE_S)
    centres = unit.times[alone] * sampling_frequency
    centres = centres[(centres > before) & (centres < len(unit.potentials) - after - 1)]
    if not centres.size:
        raise ValueError(f"{unit.placed.neuron.name} has no spike that stands alone.")
    samples = np.arange(len(unit.potentials))
    mean = np.zeros((len(offsets), unit.potentials.shape[1]))
    for centre in centres:
        # Between samples: spikes do not fall on them.
        for channel, trace in enumerate(unit.potentials.T):
            mean[:, channel] += np.interp(centre + offsets, samples, trace) / len(centres)
    basis, num_before = phase_basis(unit.placed.neuron, sampling_frequency=sampling_frequency)
    composed = (unit.placed.coef[0].mean(axis=0) @ basis[0]).T[num_before - before : num_before + after]
    return {
        "cell": unit.placed.neuron.name,
        "spikes": len(centres),
        "correlation": float(np.corrcoef(mean.ravel(), composed.ravel())[0, 1]),
        "amplitude_uv": float(np.abs(mean).max()),
        "composed_amplitude_uv": float(np.abs(composed).max()),
    }


def main(argv: list[str] | None = None) -> int:
    """Simulate one trial through and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithful", description=__doc__)
    parser.add_argument("--cells", type=Path, help="cell models (the project's own)")
    parser.add_argument("--names", nargs="*", help="which of them (all)")
    parser.add_argument("--duration", type=float, default=10.0, help="in s (10)")
    parser.add_argument("--num-units", type=int, default=5, help="(5)")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time (1)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    config = TrialConfig(
        duration_s=arguments.duration, num_units=arguments.num_units, num_far=0, firing_rate_hz=(3.0, 15.0)
    )
    with own_cells_folder() as own:
        models = read_cells(arguments.cells or own, names=arguments.names)
    _, units = faithful_trial(models, config=config, seed=arguments.seed, num_processes=arguments.jobs)
    rows = [compare_templates(unit, sampling_frequency=config.sampling_frequency) for unit in units]
    sys.stdout.write(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n")
    for row in rows:
        cells = [f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key]) for key in COLUMNS]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    if arguments.output is not None:
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
