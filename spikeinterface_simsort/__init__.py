"""SimSort for SpikeInterface: importing this package makes ``run_sorter("simsort", recording)`` work."""

from spikeinterface_simsort._version import __version__
from spikeinterface_simsort.registration import WithSimSort, register
from spikeinterface_simsort.sorter import SimSortSorter

__all__ = ["SimSortSorter", "WithSimSort", "__version__"]

register()
