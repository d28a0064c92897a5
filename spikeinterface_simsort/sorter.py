"""The adapter between SpikeInterface and the pipeline."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NpzSortingExtractor
from spikeinterface.sorters import BaseSorter

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.params import SimSortParams

_RESULT_FILE = "sorting.npz"
_PROPERTIES_FOLDER = "properties"
# SpikeInterface takes the lines of a file of this name into its own log, as `runtime_trace`.
_LOG_FILE = "simsort.log"


class SimSortSorter(BaseSorter):
    """Sorter for tetrodes whose networks were trained on biophysical simulations (arXiv 2502.03198)."""

    sorter_name = "simsort"
    sorter_description = (
        "Sorter for tetrodes: a detector and an embedder, neural networks trained on biophysical simulations "
        "(method: SimSort, arXiv 2502.03198), and clustering of the embeddings. No parameter needs tuning."
    )
    installation_mesg = "pip install spikeinterface-simsort"
    requires_locations = False
    handle_multi_segment = True
    gpu_capability = "nvidia-optional"
    compatible_with_parallel = {"loky": True, "multiprocessing": True, "threading": True}

    _default_params = asdict(SimSortParams())
    _params_description = SimSortParams.describe()

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the sorter can run: its dependencies came with it."""
        return True

    @classmethod
    def get_sorter_version(cls) -> str:
        """Version of the package."""
        return __version__

    @classmethod
    def use_gpu(cls, params: dict[str, Any]) -> bool:
        """Whether a run with these parameters may use a GPU."""
        return params["device"] != "cpu"

    @classmethod
    def _check_params(cls, recording: BaseRecording, output_folder: Path, params: dict[str, Any]) -> dict[str, Any]:
        SimSortParams.from_dict(params)
        return params

    @classmethod
    def _check_apply_filter_in_params(cls, params: dict[str, Any]) -> bool:
        return True

    @classmethod
    def _setup_recording(
        cls, recording: BaseRecording, sorter_output_folder: Path, params: dict[str, Any], verbose: bool
    ) -> None:
        """Nothing to set up: the recording is read as it is."""

    @classmethod
    def _run_from_folder(cls, sorter_output_folder: Path, params: dict[str, Any], verbose: bool) -> None:
        # Imported here, as importing the package must not import torch.
        from spikeinterface_simsort.pipeline import sort

        logger = logging.getLogger("spikeinterface_simsort")
        recording = cls.load_recording_from_folder(sorter_output_folder.parent, with_warnings=False)
        job_kwargs = {"progress_bar": bool(verbose), **params["job_kwargs"]}
        level = logger.level
        if verbose and logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        try:
            with _logging_warnings(logger, path=sorter_output_folder / _LOG_FILE):
                sorting = sort(recording, params=SimSortParams.from_dict({**params, "job_kwargs": job_kwargs}))
        finally:
            logger.setLevel(level)
        if len(sorting.unit_ids) == 0:
            warnings.warn("simsort found no unit in the recording.", stacklevel=2)
        # The spike times come last: a folder that holds them is whole.
        _save_properties(sorter_output_folder / _PROPERTIES_FOLDER, sorting)
        partial = sorter_output_folder / f"partial_{_RESULT_FILE}"
        _write_spikes(partial, sorting)
        partial.replace(sorter_output_folder / _RESULT_FILE)

    @classmethod
    def _get_result_from_folder(cls, sorter_output_folder: Path) -> NpzSortingExtractor:
        folder = Path(sorter_output_folder)
        sorting = NpzSortingExtractor(folder / _RESULT_FILE)
        _load_properties(folder / _PROPERTIES_FOLDER, sorting)
        return sorting


@contextmanager
def _logging_warnings(logger: logging.Logger, *, path: Path) -> Iterator[None]:
    """Write what is warned of meanwhile to a file, a line each; no file where there is nothing."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _write_spikes(path: Path, sorting: BaseSorting) -> None:
    """Write the file of an `NpzSortingExtractor`, whose own way compiles a loop first: half a second."""
    spikes, unit_ids = sorting.to_spike_vector(), sorting.unit_ids
    arrays = {
        "unit_ids": unit_ids,
        "num_segment": np.array([sorting.get_num_segments()]),
        "sampling_frequency": np.array([sorting.get_sampling_frequency()]),
    }
    for segment in range(sorting.get_num_segments()):
        begin, end = np.searchsorted(spikes["segment_index"], [segment, segment + 1])
        arrays[f"spike_indexes_seg{segment}"] = spikes["sample_index"][begin:end]
        arrays[f"spike_labels_seg{segment}"] = unit_ids[spikes["unit_index"][begin:end]]
    np.savez(path, **arrays)


# SpikeInterface's own functions for this read and write pickles.
def _save_properties(folder: Path, sorting: BaseSorting) -> None:
    folder.mkdir(exist_ok=True)
    for name in sorting.get_property_keys():
        values = sorting.get_property(name)
        # Names of groups of mixed types.
        np.save(folder / f"{name}.npy", values.astype(str) if values.dtype.kind == "O" else values, allow_pickle=False)


def _load_properties(folder: Path, sorting: BaseSorting) -> None:
    for path in sorted(folder.glob("*.npy")):
        sorting.set_property(path.stem, np.load(path, allow_pickle=False))
