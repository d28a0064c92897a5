"""The benchmark's data sets by name, and how each of their recordings is made and kept."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, create_sorting_analyzer

from benchmarks.hybrid import WAVEFORM_FILE, make_hybrid, read_units
from benchmarks.other_generators import make_mearec, make_mearec_templates, make_si_groundtruth
from benchmarks.recordings import sorting_of, spike_band, tetrode_recording
from benchmarks.waveclus import NOISE_LEVELS, make_waveclus, spike_shapes
from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.simulation.bank import load_bank
from spikeinterface_simsort.simulation.trial_config import TrialConfig
from spikeinterface_simsort.simulation.trials import make_trial

logger = logging.getLogger(__name__)

DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What data sets are made from, and cannot be had here.

    Attributes
    ----------
    bank : Path or None
        Neuron bank with layer-6 cells, see ``simsort bank``.
    waveforms : Path or None
        Folder with the recorded waveforms of the hybrids.
    cache : Path
        Folder for what is made once, such as MEArec's templates.
    """

    bank: Path | None
    waveforms: Path | None
    cache: Path

    def need(self, name: str) -> Path:
        """A source that a data set cannot do without.

        Parameters
        ----------
        name : {"bank", "waveforms"}
            Which.

        Returns
        -------
        Path

        Raises
        ------
        FileNotFoundError
            It was not named, or is not there.
        """
        path: Path | None = getattr(self, name)
        if path is None or not path.exists():
            where = "" if path is None else f"; there is no {path}"
            raise FileNotFoundError(f"this data set is made from what --{name} names{where}")
        return path


@dataclass(frozen=True, kw_only=True)
class Family:
    """Recordings of one kind.

    Attributes
    ----------
    make : callable
        (sources, seed) -> recording and ground truth.
    description : str
        What they are.
    is_rebuild : bool
        Whether they stand for published recordings that could not be had.
    table : str
        Which of the SimSort paper's tables is about them.
    num_full : int
        Recordings of the full benchmark.
    """

    make: Callable[[Sources, int], tuple[BaseRecording, BaseSorting]] = field(repr=False)
    description: str
    is_rebuild: bool = False
    table: str = ""
    num_full: int = 4


def as_stored(recording: BaseRecording, truth: BaseSorting) -> tuple[BaseRecording, BaseSorting]:
    """Whole numbers in place of floating point, and a truth without what only a simulation knows.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        As composed, see `make_trial`.

    Returns
    -------
    recording, truth : BaseRecording, BaseSorting
        int16, see `tetrode_recording`.
    """
    rate = recording.get_sampling_frequency()
    trains = {int(unit): truth.get_unit_spike_train(unit) for unit in truth.unit_ids}
    traces, contacts = recording.get_traces(return_in_uV=True), recording.get_channel_locations()
    return tetrode_recording(traces, rate=rate, contacts_um=contacts), sorting_of(trains, rate=rate)


def _layer6(sources: Sources, seed: int) -> tuple[BaseRecording, BaseSorting]:
    neurons = load_bank(sources.need("bank"), include=("L6",))
    return as_stored(*make_trial(neurons, config=TrialConfig(duration_s=120.0), seed=6000 + seed))


def _hybrid(sources: Sources, seed: int, *, drifting: bool) -> tuple[BaseRecording, BaseSorting]:
    units = read_units(sources.need("waveforms") / WAVEFORM_FILE)
    return make_hybrid(units, seed=seed, drifting=drifting)


def _waveclus(sources: Sources, seed: int, *, similarity: str) -> tuple[BaseRecording, BaseSorting]:
    neurons = load_bank(sources.need("bank"), include=("L6",))
    shapes = spike_shapes(neurons, recorded=sources.need("waveforms"))
    noise_level = NOISE_LEVELS[seed % len(NOISE_LEVELS)]
    return as_stored(*make_waveclus(shapes, similarity=similarity, noise_level=noise_level, seed=seed))


def _mearec(sources: Sources, seed: int) -> tuple[BaseRecording, BaseSorting]:
    templates = sources.cache / "mearec_templates.h5"
    if not templates.exists():
        logger.info("simulating MEArec's cells once, some minutes ...")
        make_mearec_templates(templates)
    return make_mearec(templates, seed=seed)


FAMILIES: dict[str, Family] = {
    "bbp_l6": Family(
        make=_layer6, description="five layer-6 neurons, which no training has seen", table="1", num_full=20
    ),
    "hybrid_static": Family(
        make=lambda sources, seed: _hybrid(sources, seed, drifting=False),
        description="recorded mean waveforms in synthetic noise",
        is_rebuild=True,
        table="2",
        num_full=9,
    ),
    "hybrid_drift": Family(
        make=lambda sources, seed: _hybrid(sources, seed, drifting=True),
        description="the same, drifting",
        is_rebuild=True,
        table="2",
        num_full=9,
    ),
    "waveclus_easy": Family(
        make=lambda sources, seed: _waveclus(sources, seed, similarity="easy"),
        description="three unlike spike shapes in noise of spikes, one channel turned into four",
        is_rebuild=True,
        table="3",
        num_full=8,
    ),
    "waveclus_difficult": Family(
        make=lambda sources, seed: _waveclus(sources, seed, similarity="difficult"),
        description="the same of shapes that are alike",
        is_rebuild=True,
        table="3",
        num_full=8,
    ),
    "mearec": Family(make=_mearec, description="MEArec, its own cells of layer 5 and recordings"),
    "si_groundtruth": Family(
        make=lambda sources, seed: make_si_groundtruth(seed=seed),
        description="SpikeInterface's generate_ground_truth_recording",
    ),
}


@dataclass(frozen=True)
class Dataset:
    """A recording on disk.

    Attributes
    ----------
    family : str
        Key of `FAMILIES`, or the name of published recordings.
    name : str
        Within the family: the seed, or the published name.
    folder : Path
        ``recording`` and ``sorting``, as SpikeInterface saves them, and what is known of it in ``dataset.json``.
    """

    family: str
    name: str
    folder: Path


def find_dataset(folder: Path, *, family: str, name: str) -> Dataset | None:
    """A data set that has been kept.

    Parameters
    ----------
    folder : Path
        Of all data sets.
    family, name : str
        Of the data set.

    Returns
    -------
    Dataset or None
        None where there is none, or not all of it: `save_dataset` writes ``dataset.json`` last.
    """
    target = folder / family / name
    return Dataset(family=family, name=name, folder=target) if (target / DESCRIPTION_FILE).exists() else None


def save_dataset(
    folder: Path,
    *,
    family: str,
    name: str,
    recording: BaseRecording,
    truth: BaseSorting,
    description: dict | None = None,
) -> Dataset:
    """Keep a recording, its ground truth, and its units' SNR.

    Parameters
    ----------
    folder : Path
        Of all data sets: this one goes to ``FOLDER/FAMILY/NAME``, whole or not at all.
    family, name : str
        Of the data set.
    recording, truth : BaseRecording, BaseSorting
        What is kept. Where the truth is not known, it has no units.
    description : dict, optional
        Goes into ``dataset.json``, beside what is read off the recording and its truth.

    Returns
    -------
    Dataset

    Raises
    ------
    FileExistsError
        There is one of this name, all of it. What is incomplete, as a copy that was stopped, is replaced.
    """
    target = folder / family / name
    if find_dataset(folder, family=family, name=name):
        raise FileExistsError(f"{target} is there: remove it to have it made anew.")
    unfinished = target.with_name(f"{name}.partial-{uuid.uuid4().hex[:8]}")
    unfinished.mkdir(parents=True)
    try:
        # HerdingSpikes reads the contacts' places from this property of what was saved.
        recording = recording.clone()
        recording.set_property("location", recording.get_channel_locations())
        # SpikeInterface collects garbage after each chunk: longer ones are saved in a tenth of the time.
        recording.save(folder=unfinished / "recording", chunk_duration="60s", verbose=False, progress_bar=False)
        truth = truth.clone()
        truth.set_property("snr", unit_snr(recording, truth))
        truth.save(folder=unfinished / "sorting")
        known = {
            "family": family,
            "name": name,
            "version": __version__,
            "seconds": recording.get_total_duration(),
            "sampling_frequency": recording.get_sampling_frequency(),
            "num_channels": recording.get_num_channels(),
            "num_units": len(truth.unit_ids),
            "num_spikes": int(truth.to_spike_vector().size),
        }
        text = json.dumps({**known, **(description or {})}, indent=1)
        (unfinished / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf8")
        if not (target / DESCRIPTION_FILE).exists():
            shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Dataset(family=family, name=name, folder=target)


def find_or_save(
    folder: Path,
    *,
    family: str,
    name: str,
    make: Callable[[], tuple[BaseRecording, BaseSorting]],
    description: dict | None = None,
) -> Dataset:
    """Make a recording and keep it, unless it is there already.

    Parameters
    ----------
    folder : Path
        Of all data sets.
    family, name : str
        Of the data set.
    make : callable
        Gives recording and ground truth.
    description : dict, optional
        See `save_dataset`.

    Returns
    -------
    Dataset
    """
    if kept := find_dataset(folder, family=family, name=name):
        return kept
    recording, truth = make()
    return save_dataset(folder, family=family, name=name, recording=recording, truth=truth, description=description)


def unit_snr(recording: BaseRecording, truth: BaseSorting) -> np.ndarray:
    """Largest deflection of each unit's mean spike, in noise levels of its channel, as SpikeInterface measures both.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Band-passed here.

    Returns
    -------
    np.ndarray, float64 [num_units]
    """
    if not len(truth.unit_ids):
        return np.empty(0)
    band = spike_band(recording)
    analyzer = create_sorting_analyzer(truth, band, sparse=False)
    analyzer.compute(
        {"random_spikes": {"seed": 0}, "templates": {}, "noise_levels": {"random_slices_kwargs": {"seed": 0}}},
        n_jobs=1,
        progress_bar=False,
    )
    templates = analyzer.get_extension("templates").get_data(operator="average")
    noise = analyzer.get_extension("noise_levels").get_data()
    return (np.abs(templates).max(axis=1) / noise).max(axis=1)


def prepare(family: str, *, seed: int, folder: Path, sources: Sources) -> Dataset:
    """Make a recording of a family, unless it is there already.

    Parameters
    ----------
    family : str
        Key of `FAMILIES`.
    seed : int
        The same seed gives the same recording.
    folder : Path
        Of all data sets.
    sources : Sources
        What it is made from.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        A source is missing.
    """
    made = FAMILIES[family]
    description = {**{k: v for k, v in asdict(made).items() if k != "make"}, "seed": seed}
    return find_or_save(
        folder, family=family, name=str(seed), make=partial(made.make, sources, seed), description=description
    )
