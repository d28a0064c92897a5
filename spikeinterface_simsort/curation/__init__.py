"""Which units to believe: labels of sorted units, on the metrics and curation functions of SpikeInterface."""
