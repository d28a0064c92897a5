"""One sorter on one recording, in a process of its own: `python -m benchmarks.worker DATASET SORTER OUTPUT`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import spikeinterface as si
import spikeinterface.sorters as ss
from spikeinterface.core import BaseRecording, BaseSorting

import spikeinterface_simsort  # noqa: F401  registers the sorter
from benchmarks.oracles import identify, match
from benchmarks.peers import checked_params
from benchmarks.spike_file import write_spikes

SPIKES_FILE, FACTS_FILE = "spikes.npz", "facts.json"
# Where a sorter's version is that of a package of its own, and not of SpikeInterface.
_PACKAGES = {"simsort": "spikeinterface-simsort", "kilosort4": "kilosort"}


def sort(recording: BaseRecording, truth: BaseSorting, *, sorter: str, folder: Path) -> BaseSorting:
    """Run a sorter, or an oracle, which is told the truth.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        A data set.
    sorter : str
        Key of `benchmarks.peers.PEERS` or one of its `ORACLES`.
    folder : Path
        For the sorter's own output.

    Returns
    -------
    BaseSorting
    """
    oracles: dict[str, Callable[[BaseRecording, BaseSorting], BaseSorting]] = {
        "oracle-identity": identify,
        "oracle-matching": match,
    }
    if sorter in oracles:
        return oracles[sorter](recording, truth)
    return ss.run_sorter(sorter, recording, folder=folder, remove_existing_folder=True, **checked_params(sorter))


def package_version(sorter: str) -> str:
    """Version of the package that a sorter comes from."""
    try:
        return version(_PACKAGES.get(sorter, sorter))
    except PackageNotFoundError:
        return f"spikeinterface {si.__version__}"


def main(argv: list[str] | None = None) -> int:
    """Write the spikes and what is known of the run."""
    dataset, sorter, output = argv or sys.argv[1:]
    recording = si.load(Path(dataset) / "recording")
    truth = si.load(Path(dataset) / "sorting")
    # Sorters of SpikeInterface use one core unless told; the others use all.
    si.set_global_job_kwargs(n_jobs=-1, progress_bar=False)
    start = time.perf_counter()
    sorting = sort(recording, truth, sorter=sorter, folder=Path(output) / "sorter")
    facts: dict[str, Any] = {"seconds": time.perf_counter() - start, "sorter_version": package_version(sorter)}
    write_spikes(Path(output) / SPIKES_FILE, sorting)
    (Path(output) / FACTS_FILE).write_text(json.dumps(facts), encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
