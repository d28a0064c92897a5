"""SimSort for SpikeInterface: importing this package makes ``run_sorter("simsort", recording)`` work."""

from importlib.util import find_spec

from spikeinterface_simsort._version import __version__

__all__ = ["__version__"]

# A machine that only composes trials and trains networks on them may lack SpikeInterface.
if find_spec("spikeinterface") is not None:
    from spikeinterface_simsort.group_runs import GroupsFailedError, sort_by_group
    from spikeinterface_simsort.registration import WithSimSort, register
    from spikeinterface_simsort.sorter import SimSortSorter

    __all__ += ["GroupsFailedError", "SimSortSorter", "WithSimSort", "sort_by_group"]

    register()
