"""How many cores to use where nobody says."""

from __future__ import annotations

# Of processes, each has memory of its own; more threads hardly help, as what is between the chunks is done by one.
_MOST = 8


def default_num_jobs() -> int:
    """As many as this process may use, up to 8."""
    # Takes the limits of containers into account; not at the top, as the command line's help does not need it.
    from loky import cpu_count

    return min(cpu_count(), _MOST)
