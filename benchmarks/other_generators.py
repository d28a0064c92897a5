"""Recordings of two generators that this project did not write: MEArec and SpikeInterface."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import MEArec
import numpy as np
import yaml
from probeinterface import generate_tetrode
from spikeinterface.core import BaseRecording, BaseSorting, generate_ground_truth_recording

from benchmarks.recordings import sorting_of, tetrode_recording
from spikeinterface_simsort.simulation.mearec_io import from_mearec

# Units smaller than this against the noise are hash: they stay in the traces, but nobody is asked for them.
MIN_SNR = 3.0
_SI_NOISE_UV, _SI_UNITS = 8.0, (5, 10)
_MEAREC_EXCITATORY, _MEAREC_INHIBITORY = (3, 6), (2, 3)


def make_si_groundtruth(*, seed: int, duration_s: float = 120.0) -> tuple[BaseRecording, BaseSorting]:
    """Make a recording with SpikeInterface's `generate_ground_truth_recording`.

    5 to 10 units, 1 to 12 Hz, 8 uV of white noise on a tetrode of 25 um diameter, all else as SpikeInterface has it.

    Parameters
    ----------
    seed : int
        The same seed gives the same recording.
    duration_s : float
        Length in s.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
        Units with an SNR under 3 are left out of the truth.
    """
    rng = np.random.default_rng([seed, 1])
    probe = generate_tetrode(r=12.5)
    probe.set_device_channel_indices(np.arange(4))
    recording, sorting = generate_ground_truth_recording(
        durations=[duration_s],
        sampling_frequency=30000.0,
        num_units=int(rng.integers(_SI_UNITS[0], _SI_UNITS[1] + 1)),
        probe=probe,
        generate_sorting_kwargs={"firing_rates": (1.0, 12.0), "refractory_period_ms": 3.0},
        noise_kwargs={"noise_levels": _SI_NOISE_UV, "strategy": "on_the_fly"},
        seed=seed,
    )
    templates = recording.templates  # pyright: ignore[reportAttributeAccessIssue]
    large = np.abs(templates).max(axis=(1, 2)) >= MIN_SNR * _SI_NOISE_UV
    trains = {i: sorting.get_unit_spike_train(unit) for i, unit in enumerate(sorting.unit_ids[large])}
    traces = tetrode_recording(recording.get_traces(), rate=30000.0, contacts_um=probe.contact_positions)
    return traces, sorting_of(trains, rate=30000.0)


def make_mearec_templates(path: Path, *, num_per_cell: int = 30) -> Path:
    """Simulate MEArec's own cell models around a tetrode, in NEURON and LFPy, as MEArec does it.

    Parameters
    ----------
    path : Path
        File to write, ``.h5``; it appears whole or not at all.
    num_per_cell : int
        Places for each of the 13 cells.

    Returns
    -------
    Path
    """
    params = _defaults("templates_params.yaml")
    params.update(probe="tetrode-mea-s", n=num_per_cell, xlim=[10, 60], overhang=20, seed=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        # A copy, as MEArec compiles the mechanisms where the cells lie.
        with as_file(files("MEArec") / "cell_models" / "bbp") as cells:
            shutil.copytree(cells, Path(folder) / "cells")
        for cell in (Path(folder) / "cells").iterdir():
            _adapt(cell)
        with _scripts_on_path():
            templates = MEArec.gen_templates(
                cell_models_folder=str(Path(folder) / "cells"),
                params=params,
                templates_tmp_folder=str(Path(folder) / "tmp"),
                n_jobs=1,
                recompile=True,
                verbose=False,
            )
        MEArec.save_template_generator(templates, Path(folder) / "templates.h5", verbose=False)
        os.replace(Path(folder) / "templates.h5", path)
    return path


def _adapt(cell: Path) -> None:
    """Make a cell model load under NEURON 9, in its own folder.

    Its synapses, which nobody uses, do not compile there; and cells of one electrical type share the name of a
    template, which must not be defined twice.
    """
    for mechanism in (cell / "mechanisms").glob("Prob*.mod"):
        mechanism.unlink()
    synapses = cell / "synapses" / "synapses.hoc"
    name = _template_name(synapses)
    synapses.write_text(f"begintemplate {name}\nendtemplate {name}\n", "latin-1")
    shared = _template_name(cell / "biophysics.hoc")
    for hoc in (cell / "biophysics.hoc", cell / "template.hoc"):
        text = re.sub(rf"\b{shared}\b", f"{shared}_of_{cell.name}", hoc.read_text("latin-1"))
        hoc.write_text(text, "latin-1")


def _template_name(hoc: Path) -> str:
    found = re.search(r"^begintemplate\s+(\w+)", hoc.read_text("latin-1"), flags=re.M)
    if found is None:
        raise ValueError(f"{hoc} holds no template.")
    return found[1]


class _scripts_on_path:  # noqa: N801  used like a function
    """MEArec calls ``nrnivmodl`` by its name: it lies beside the Python that runs, whether or not that is active."""

    def __enter__(self) -> None:
        self.before = os.environ["PATH"]
        os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + self.before

    def __exit__(self, *exception: object) -> None:
        os.environ["PATH"] = self.before


def make_mearec(templates: Path, *, seed: int, duration_s: float = 120.0) -> tuple[BaseRecording, BaseSorting]:
    """Make a recording with MEArec.

    5 to 9 units of 50 to 500 uV, 5 um apart or more, 10 uV of coloured noise that neighbours share, sizes that change
    over a burst, all else as MEArec has it.

    Parameters
    ----------
    templates : Path
        See `make_mearec_templates`.
    seed : int
        The same seed gives the same recording.
    duration_s : float
        Length in s.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
    """
    rng = np.random.default_rng([seed, 2])
    params = _defaults("recordings_params.yaml")
    params["spiketrains"].update(
        n_exc=int(rng.integers(_MEAREC_EXCITATORY[0], _MEAREC_EXCITATORY[1] + 1)),
        n_inh=int(rng.integers(_MEAREC_INHIBITORY[0], _MEAREC_INHIBITORY[1] + 1)),
        duration=duration_s,
    )
    params["templates"].update(min_dist=5, max_amp=500)
    params["recordings"].update(
        noise_mode="distance-correlated", noise_color=True, noise_half_distance=15, bursting=True
    )
    params["seeds"] = dict(zip(params["seeds"], rng.integers(2**31, size=4).tolist(), strict=True))
    loaded = MEArec.load_templates(templates, return_h5_objects=False, verbose=False)
    trial = from_mearec(MEArec.gen_recordings(tempgen=loaded, params=params, verbose=False))
    samples = np.round(trial.spike_samples).astype("int64")
    trains = {unit: samples[trial.spike_labels == unit] for unit in range(len(trial.unit_names))}
    rate = trial.sampling_frequency
    recording = tetrode_recording(trial.traces, rate=rate, contacts_um=trial.contact_positions[:, :2])
    return recording, sorting_of(trains, rate=rate)


def _defaults(name: str) -> dict[str, Any]:
    # Not by MEArec's own function, which copies its cell models into the home directory.
    return yaml.safe_load((files("MEArec") / "default_params" / name).read_text(encoding="utf8"))
