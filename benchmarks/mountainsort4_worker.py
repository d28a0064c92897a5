"""MountainSort4 on one recording, under the Python of an environment of its own.

It needs numpy below 2 and a SpikeInterface (0.102.3) that reads no folders of later versions, so this file imports
nothing else of the project and is given the raw binary: `python mountainsort4_worker.py REQUEST.json`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import spikeinterface as si
import spikeinterface.sorters as ss


def main() -> int:
    """Write the spikes and what is known of the run, as `benchmarks.worker` does."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf8"))
    recording = si.read_binary(
        request["binary"],
        sampling_frequency=request["sampling_frequency"],
        dtype=request["dtype"],
        num_channels=request["num_channels"],
        gain_to_uV=request["gain_to_uv"],
        offset_to_uV=request["offset_to_uv"],
    )
    # It reads the contacts' places from this property.
    recording.set_property("location", np.array(request["locations"]))
    output = Path(request["output"])
    start = time.perf_counter()
    sorting = ss.run_sorter("mountainsort4", recording, folder=str(output / "sorter"), **request["params"])
    seconds = time.perf_counter() - start
    spikes = sorting.to_spike_vector()
    np.savez_compressed(
        output / "spikes.npz",
        frames=spikes["sample_index"].astype("int64"),
        unit_index=spikes["unit_index"].astype("int64"),
        unit_ids=np.asarray(sorting.unit_ids).astype(str),
        sampling_frequency=request["sampling_frequency"],
    )
    facts = {"seconds": seconds, "sorter_version": version("mountainsort4")}
    (output / "facts.json").write_text(json.dumps(facts), encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
