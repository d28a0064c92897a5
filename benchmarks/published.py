"""Published recordings with ground truth, where they have been downloaded: SpikeForest's, and those of wave_clus.

References
----------
Magland et al. 2020, eLife 9:e55167 (SpikeForest).
Quiroga, Nadasdy & Ben-Shaul 2004, Neural Comput 16:1661 (the simulations that came with wave_clus).
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io.matlab import MatReadError
from spikeinterface.core import BaseRecording, BaseSorting
from spikeinterface.extractors import read_mda_recording, read_mda_sorting
from spikeinterface.preprocessing import scale

from benchmarks import waveclus
from benchmarks.catalogue import Dataset, find_dataset, save_dataset
from benchmarks.recordings import sorting_of

logger = logging.getLogger(__name__)

RAW_FILE, TRUTH_FILE, PARAMS_FILE = "raw.mda", "firings_true.mda", "params.json"
NUM_CHANNELS = 4
_WAVECLUS_NAME = re.compile(r"C_(Easy|Difficult).*\.mat", flags=re.IGNORECASE)
_MAX_STEP = np.iinfo("int16").max
_CHUNK_S = 10.0


@dataclass(frozen=True)
class Published:
    """A recording that was found.

    Attributes
    ----------
    family : str
        ``spikeforest_STUDY``, ``published_waveclus_easy`` or ``published_waveclus_difficult``.
    name : str
        As published.
    path : Path
        Folder with `RAW_FILE`, `TRUTH_FILE`, `PARAMS_FILE` and ``geom.csv``, or one of wave_clus's MATLAB files.
    """

    family: str
    name: str
    path: Path


@dataclass(frozen=True)
class Opened:
    """A recording with its truth.

    Attributes
    ----------
    recording : BaseRecording
        int16, with gain and offset.
    truth : BaseSorting
        Without spikes outside of the recording. Units with few spikes are kept.
    description : dict
        What is known of it, for ``dataset.json``.
    """

    recording: BaseRecording
    truth: BaseSorting
    description: dict[str, Any]


def find_published(folder: Path) -> list[Published]:
    """Find published recordings in a folder and those below it.

    Parameters
    ----------
    folder : Path
        Of ``.../STUDY/RECORDING/raw.mda``, of ``C_Easy1_noise005.mat`` and the like, or of both.

    Returns
    -------
    list of Published
        Ordered by path. Of two with the same study and name, the first; the other is warned of.

    Raises
    ------
    NotADirectoryError
        There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder {folder}.")
    # A study is told by its folder's name, which is none for one given as ".".
    folder = folder.resolve()
    found = []
    for path in sorted({raw.parent for raw in folder.rglob(RAW_FILE)}):
        found.append(Published(f"spikeforest_{path.parent.name}", path.name, path))
    for path in sorted(folder.rglob("*.mat")):
        if match := _WAVECLUS_NAME.fullmatch(path.name):
            found.append(Published(f"published_waveclus_{match[1].lower()}", path.stem, path))
    by_key: dict[tuple[str, str], Published] = {}
    for item in found:
        first = by_key.setdefault((item.family, item.name), item)
        if first is not item:
            logger.warning("%s is left out: it has the study and the name of %s", item.path, first.path)
    return list(by_key.values())


def open_published(published: Published) -> Opened:
    """Open a recording that was found.

    Parameters
    ----------
    published : Published
        Of `find_published`.

    Returns
    -------
    Opened
        One channel of wave_clus as four, the same four each time.

    Raises
    ------
    OSError
        A file is missing.
    ValueError
        A file is not what its name says, is truncated, or holds no true unit.
    """
    if published.path.is_dir():
        return _open_mda(published.path)
    try:
        channel = waveclus.read_waveclus(published.path)
    except (MatReadError, NotImplementedError, TypeError, zlib.error) as error:
        raise ValueError(f"{published.path} cannot be read as a file of MATLAB: {error}") from error
    # Each file has signs, gains and shifts of its own.
    seed = zlib.crc32(published.name.encode())
    recording, truth = waveclus.tetrode_recording(channel, seed=seed)
    return _opened(recording, truth, gain_to_uv=1.0, description={"source": "wave_clus", "seed": seed})


def import_published(folder: Path, *, data: Path, num_channels: int | None = NUM_CHANNELS) -> list[Dataset]:
    """Keep the published recordings of a folder as data sets of the benchmark.

    Parameters
    ----------
    folder : Path
        See `find_published`.
    data : Path
        Of all data sets. What is there already is not read again.
    num_channels : int, optional
        Recordings with another number of channels are left out, and said to be; None takes all.

    Returns
    -------
    list of Dataset
        Without what cannot be read, which is warned of.

    Raises
    ------
    NotADirectoryError
        There is no such folder.
    """
    datasets = []
    for item in find_published(folder):
        dataset = find_dataset(data, family=item.family, name=item.name)
        if dataset is None:
            try:
                opened = open_published(item)
            except (OSError, ValueError) as error:
                logger.warning("%s is left out: %s", item.path, error)
                continue
            dataset = _keep(item.family, item.name, opened, data=data, num_channels=num_channels)
        datasets += [dataset] if dataset else []
    return datasets


def fetch_spikeforest(
    *,
    data: Path,
    uri: str | None = None,
    studies: Collection[str] | None = None,
    num_channels: int | None = NUM_CHANNELS,
) -> list[Dataset]:
    """Download recordings of SpikeForest through its own package, and keep them as data sets of the benchmark.

    Parameters
    ----------
    data : Path
        Of all data sets. What is there already is not downloaded again.
    uri : str, optional
        Of a list of recordings on kachery; by default the one that the package names.
    studies : collection of str, optional
        Names of the studies to take; by default all.
    num_channels : int, optional
        See `import_published`; others are not downloaded.

    Returns
    -------
    list of Dataset
        Without what cannot be had, which is warned of.

    Raises
    ------
    ImportError
        The package ``spikeforest`` is not installed, or is not made for the version of SpikeInterface at hand.
    """
    package = _spikeforest()
    datasets = []
    for entry in package.load_spikeforest_recordings(*([uri] if uri else [])):
        if studies is not None and entry.study_name not in studies:
            continue
        if num_channels is not None and entry.num_channels != num_channels:
            continue
        family, name = f"spikeforest_{entry.study_name}", entry.recording_name
        dataset = find_dataset(data, family=family, name=name)
        if dataset is None:
            try:
                known = entry.recording_object
                params = known.get("params") or known.get("data", {}).get("params") or {}
                opened = _opened_spikeforest(
                    entry.get_recording_extractor(), entry.get_sorting_true_extractor(), params=params
                )
            # What is assured there is that the files could be downloaded.
            except (OSError, ValueError, AssertionError) as error:
                logger.warning("%s/%s is left out: %s", entry.study_name, name, error)
                continue
            dataset = _keep(family, name, opened, data=data, num_channels=num_channels)
        datasets += [dataset] if dataset else []
    return datasets


def _spikeforest() -> Any:
    try:
        return importlib.import_module("spikeforest")
    except ModuleNotFoundError as error:
        if error.name != "spikeforest":
            raise
        raise ImportError(
            "Recordings of SpikeForest are downloaded by its own package: pip install spikeforest, then "
            "kachery-cloud-init once. Folders that have been downloaded are read without it."
        ) from error
    except ImportError as error:
        raise ImportError(
            f"The package spikeforest that is installed does not go with this version of SpikeInterface ({error}): "
            "download in an environment of its own, and name the folder here."
        ) from error


def _keep(family: str, name: str, opened: Opened, *, data: Path, num_channels: int | None) -> Dataset | None:
    found = opened.recording.get_num_channels()
    if num_channels is not None and found != num_channels:
        logger.info("%s/%s is left out: it has %d channels, not %d", family, name, found, num_channels)
        return None
    try:
        return save_dataset(
            data,
            family=family,
            name=name,
            recording=opened.recording,
            truth=opened.truth,
            description=opened.description,
        )
    except ValueError as error:
        # Such as a sampling rate that leaves no band to measure the SNR in.
        logger.warning("%s/%s is left out: %s", family, name, error)
        return None


def _open_mda(folder: Path) -> Opened:
    for name in (TRUTH_FILE, PARAMS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has {RAW_FILE}, but no {name}")
    params = json.loads((folder / PARAMS_FILE).read_text(encoding="utf8"))
    if not isinstance(params, dict) or "samplerate" not in params:
        raise ValueError(f"{folder / PARAMS_FILE} does not tell the samplerate")
    # SpikeInterface prints what is wrong with a file, goes on with None, and stumbles over it.
    try:
        recording = read_mda_recording(folder)
    except (AssertionError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / RAW_FILE} is no recording in MDA format: {error}") from error
    dtype = np.dtype(recording.get_dtype())
    num_bytes = recording.get_num_samples() * recording.get_num_channels() * dtype.itemsize
    if (folder / RAW_FILE).stat().st_size < num_bytes:
        raise ValueError(f"{folder / RAW_FILE} is truncated: its header tells of {num_bytes} bytes")
    try:
        truth = read_mda_sorting(folder / TRUTH_FILE, sampling_frequency=recording.get_sampling_frequency())
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{folder / TRUTH_FILE} holds no spikes in MDA format: {error}") from error
    return _opened_spikeforest(recording, truth, params=params)


def _opened_spikeforest(recording: BaseRecording, truth: BaseSorting, *, params: dict[str, Any]) -> Opened:
    # In uV; some studies do not tell it.
    known = params.get("scale_factor")
    description = {"source": "SpikeForest", "gain_is_known": known is not None}
    return _opened(recording, truth, gain_to_uv=1.0 if known is None else float(known), description=description)


def _opened(recording: BaseRecording, truth: BaseSorting, *, gain_to_uv: float, description: dict[str, Any]) -> Opened:
    """Whole numbers with a gain, and a truth that lies inside."""
    num_samples, rate = recording.get_num_samples(), recording.get_sampling_frequency()
    trains, num_outside = {}, 0
    for unit in truth.unit_ids:
        train = np.sort(truth.get_unit_spike_train(unit)).astype("int64")
        inside = (train >= 0) & (train < num_samples)
        trains[int(unit)] = train[inside]
        num_outside += int(np.sum(~inside))
    if not trains or not any(len(train) for train in trains.values()):
        raise ValueError("it has no true spikes")
    step = 1.0
    if np.dtype(recording.get_dtype()) != np.dtype("int16"):
        # Some sorters read nothing else. One step is as fine as 16 bits allow, whatever the traces' unit.
        step = max((float(np.abs(chunk).max()) for chunk in _chunks(recording)), default=0.0) / _MAX_STEP
        if not (np.isfinite(step) and step > 0):
            raise ValueError("its traces are empty or hold what is no number")
        recording = scale(recording, gain=1.0 / step, dtype="int16")
    recording.set_channel_gains(step * gain_to_uv)
    recording.set_channel_offsets(0.0)
    known = {**description, "num_spikes_outside": num_outside}
    return Opened(recording, sorting_of(trains, rate=rate), known)


def _chunks(recording: BaseRecording) -> Iterator[np.ndarray]:
    """Traces, float64 [num_frames, num_channels], piece by piece."""
    length = round(_CHUNK_S * recording.get_sampling_frequency())
    for start in range(0, recording.get_num_samples(), length):
        end = min(start + length, recording.get_num_samples())
        yield recording.get_traces(start_frame=start, end_frame=end).astype("float64")
