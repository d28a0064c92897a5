"""Orientation tuning of the units of a sorting: global orientation selectivity index, preferred orientation, p-value.

arXiv 2502.03198 judges sortings of recordings without ground truth by this index: spikes of differently tuned neurons
that were put together make a unit that is tuned less than either. The index is one minus the circular variance of
Ringach, Shapley and Hawken, J. Neurosci. 22, 5639-5651 (2002), where 0 is untuned and 1 answers one orientation only.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import spikeinterface as si
from spikeinterface.core import BaseSorting

logger = logging.getLogger(__name__)

BASELINES = ("none", "blank", "prestimulus")
COLUMNS = ("onset_s", "duration_s", "orientation_deg")

# Of a degree: what differs by less is one orientation, written otherwise.
_DECIMALS = 3
# An untuned unit that scores more than this, for where the orientations lie, is worth a warning.
_UNEVEN = 0.01
# Of two indices that differ by less, only rounding tells which is larger.
_TIE = 1e-12


@dataclass(frozen=True)
class Stimuli:
    """Trials: what was shown, and when.

    Attributes
    ----------
    onsets_s : np.ndarray, float64 [num_trials]
        In seconds, on the clock of the recording. In any order.
    durations_s : np.ndarray, float64 [num_trials]
        In seconds; a single number holds for all trials.
    orientations_deg : np.ndarray, float64 [num_trials]
        From 0 to 360: a direction of motion is as good, as 180 degrees more or less are the same orientation. NaN is a
        blank trial.

    Raises
    ------
    ValueError
        There is no trial, the lengths differ, a time or duration is impossible, or an orientation is out of range.
    """

    onsets_s: np.ndarray
    durations_s: np.ndarray
    orientations_deg: np.ndarray

    def __post_init__(self) -> None:
        onsets = np.atleast_1d(np.asarray(self.onsets_s, dtype="float64"))
        durations = np.asarray(self.durations_s, dtype="float64")
        durations = np.full(onsets.shape, durations) if durations.ndim == 0 else durations
        orientations = np.atleast_1d(np.asarray(self.orientations_deg, dtype="float64"))
        if onsets.size == 0:
            raise ValueError("There are no trials.")
        if onsets.ndim != 1 or not onsets.shape == durations.shape == orientations.shape:
            raise ValueError(
                "Onsets, durations and orientations must be lists of one length, a value a trial; "
                f"they have the shapes {onsets.shape}, {durations.shape} and {orientations.shape}."
            )
        if not np.isfinite(onsets).all():
            raise ValueError(f"Trial {_first(~np.isfinite(onsets))} has no onset.")
        # Written so that a NaN fails too.
        impossible = ~((durations > 0) & np.isfinite(durations))
        if impossible.any():
            trial = _first(impossible)
            raise ValueError(f"Trial {trial} lasts {durations[trial]} s; it must be longer than 0 s.")
        outside = (orientations < 0) | (orientations > 360)
        if outside.any():
            trial = _first(outside)
            raise ValueError(
                f"Trial {trial} has the orientation {orientations[trial]} degrees; it must be from 0 to 360, or NaN."
            )
        for name, values in (("onsets_s", onsets), ("durations_s", durations), ("orientations_deg", orientations)):
            object.__setattr__(self, name, values)

    @property
    def oriented(self) -> np.ndarray:
        """Which trials are not blank: bool [num_trials]."""
        return ~np.isnan(self.orientations_deg)


def _first(condition: np.ndarray) -> int:
    return int(np.flatnonzero(condition)[0])


def read_stimuli(path: Path) -> Stimuli:
    """Read trials from a CSV file.

    Parameters
    ----------
    path : Path
        With a row a trial and the columns `COLUMNS`: seconds, seconds and degrees, where an empty orientation is a
        blank trial. Other columns are ignored.

    Returns
    -------
    Stimuli

    Raises
    ------
    ValueError
        A column is missing or holds something else than numbers, or as for `Stimuli`.
    """
    try:
        table = pd.read_csv(path)
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty.") from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(table.columns)}.")
    try:
        columns = [table[name].to_numpy(dtype="float64", na_value=np.nan) for name in COLUMNS]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds something else than numbers: {error}") from error
    return Stimuli(*columns)


def load_sorting(path: Path) -> BaseSorting:
    """Load a sorting that SpikeInterface saved.

    Parameters
    ----------
    path : Path
        A folder, the folder that ``simsort sort`` made, or a file ``.npz``.

    Returns
    -------
    BaseSorting

    Raises
    ------
    ValueError
        There is none.
    """
    if path.suffix == ".npz":
        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        return si.NpzSortingExtractor(path)
    folder = path / "sorting" if (path / "sorting").is_dir() else path
    if not folder.is_dir():
        raise ValueError(f"There is no folder {path}.")
    sorting = si.load(folder)
    if not isinstance(sorting, BaseSorting):
        raise ValueError(f"{path} holds no sorting but a {type(sorting).__name__}.")
    return sorting


def fold(orientations_deg: np.ndarray) -> np.ndarray:
    """Fold directions to orientations: what differs by 180 degrees is one.

    Parameters
    ----------
    orientations_deg : np.ndarray, float
        In degrees.

    Returns
    -------
    np.ndarray, float64
        From 0 to below 180, rounded to thousandths.
    """
    return np.round(np.asarray(orientations_deg, dtype="float64"), _DECIMALS) % 180.0


def window_rates(sorting: BaseSorting, starts_s: np.ndarray, durations_s: np.ndarray) -> np.ndarray:
    """Firing rates in windows.

    Parameters
    ----------
    sorting : BaseSorting
        Of one segment.
    starts_s, durations_s : np.ndarray, float64 [num_windows]
        In seconds, on the clock of the recording. A spike at the very end is outside.

    Returns
    -------
    np.ndarray, float64 [num_units, num_windows]
        In Hz.

    Raises
    ------
    ValueError
        The sorting has several segments.
    """
    if sorting.get_num_segments() != 1:
        raise ValueError(f"The sorting has {sorting.get_num_segments()} segments; it must have one.")
    counts = np.zeros((len(sorting.unit_ids), len(starts_s)))
    for row, unit_id in enumerate(sorting.unit_ids):
        times = np.sort(sorting.get_unit_spike_train_in_seconds(unit_id, segment_index=0))
        counts[row] = np.searchsorted(times, starts_s + durations_s) - np.searchsorted(times, starts_s)
    return counts / durations_s


def trial_rates(
    sorting: BaseSorting,
    stimuli: Stimuli,
    *,
    baseline: str = "none",
    prestimulus_s: float = 0.5,
    recording_duration_s: float | None = None,
) -> np.ndarray:
    """Firing rates during each trial, blank ones too, less each unit's baseline.

    Parameters
    ----------
    sorting : BaseSorting
        Of one segment.
    stimuli : Stimuli
        Trials.
    baseline : {"none", "blank", "prestimulus"}
        What is taken off: nothing, the unit's mean rate in blank trials, or that before all trials.
    prestimulus_s : float
        How long before each onset the baseline ``"prestimulus"`` counts, in seconds.
    recording_duration_s : float, optional
        In seconds. Default: that of the recording which the sorting knows; where it knows none, nobody can tell whether
        a trial lies behind the end, and a warning is logged.

    Returns
    -------
    np.ndarray, float64 [num_units, num_trials]
        In Hz; negative where a unit fires less than its baseline.

    Raises
    ------
    ValueError
        The sorting has several segments, a trial lies outside the recording, there is no such baseline, there are no
        blank trials to tell it, or what comes before an onset is another trial or not recorded.
    """
    if baseline not in BASELINES:
        raise ValueError(f"The baseline must be one of {BASELINES}, not {baseline!r}.")
    rates = window_rates(sorting, stimuli.onsets_s, stimuli.durations_s)
    start, end = _recorded_span(sorting, recording_duration_s)
    _check_windows(stimuli.onsets_s, stimuli.durations_s, start=start, end=end, what="Trial")
    if baseline == "none":
        return rates
    if baseline == "blank":
        if stimuli.oriented.all():
            raise ValueError("There is no blank trial (orientation NaN) to tell the baseline.")
        return rates - rates[:, ~stimuli.oriented].mean(axis=1, keepdims=True)

    if not prestimulus_s > 0:
        raise ValueError(f"prestimulus_s must be larger than 0, not {prestimulus_s}.")
    before = stimuli.onsets_s - prestimulus_s
    durations = np.full_like(before, prestimulus_s)
    _check_windows(before, durations, start=start, end=end, what="What comes before trial")
    order = np.argsort(stimuli.onsets_s, kind="stable")
    ends = np.maximum.accumulate((stimuli.onsets_s + stimuli.durations_s)[order])
    # Onset and duration were rounded: a window may begin as another trial ends.
    reached = before[order][1:] < ends[:-1] - 1e-6
    if reached.any():
        trial = int(order[1:][_first(reached)])
        raise ValueError(f"The {prestimulus_s} s before trial {trial} reach into another trial.")
    return rates - window_rates(sorting, before, durations).mean(axis=1, keepdims=True)


def _recorded_span(sorting: BaseSorting, duration_s: float | None) -> tuple[float, float | None]:
    """When a recording begins and ends, in s; None where nobody knows."""
    start = float(sorting.get_start_time(segment_index=0))
    if duration_s is not None:
        return start, start + duration_s
    if sorting.has_recording():
        # The end is the time of the last sample.
        return start, float(sorting.get_end_time(segment_index=0)) + 1 / sorting.sampling_frequency
    logger.warning("The sorting does not know how long the recording was: trials behind its end go unnoticed.")
    return start, None


def _check_windows(starts: np.ndarray, durations: np.ndarray, *, start: float, end: float | None, what: str) -> None:
    """Raise ValueError where a window lies outside the recording, by more than is lost in rounding."""
    outside = starts < start - 1e-6
    if end is not None:
        outside |= starts + durations > end + 1e-6
    if outside.any():
        trial = _first(outside)
        span = f"from {start:g} s" + ("" if end is None else f" to {end:g} s")
        raise ValueError(
            f"{what} {trial} lies outside the recording: it lasts from {starts[trial]:g} s to "
            f"{starts[trial] + durations[trial]:g} s, the recording {span}."
        )


def orientation_rates(rates: np.ndarray, orientations_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the trials of each orientation.

    Parameters
    ----------
    rates : np.ndarray, float64 [num_units, num_trials]
        As from `trial_rates`.
    orientations_deg : np.ndarray, float64 [num_trials]
        Orientations or directions; NaN is a blank trial, which is left out.

    Returns
    -------
    orientations : np.ndarray, float64 [num_orientations]
        Those shown, folded, increasing.
    means : np.ndarray, float64 [num_units, num_orientations]
        In the unit of `rates`.

    Raises
    ------
    ValueError
        Rates and orientations are not of the same trials, or there are fewer than two orientations.
    """
    if rates.ndim != 2 or rates.shape[1:] != orientations_deg.shape:
        raise ValueError(f"Rates of shape {rates.shape} are not of {orientations_deg.shape} trials.")
    oriented = ~np.isnan(orientations_deg)
    if not oriented.any():
        raise ValueError("There are no trials but blank ones.")
    orientations, index = np.unique(fold(orientations_deg[oriented]), return_inverse=True)
    if len(orientations) < 2:
        raise ValueError(
            f"All trials have the orientation {orientations[0]:g} degrees; tuning takes at least two, and what differs "
            "by 180 degrees is one."
        )
    return orientations, rates[:, oriented] @ _averaging(index, num_orientations=len(orientations))


def _averaging(index: np.ndarray, *, num_orientations: int) -> np.ndarray:
    """Matrix [num_trials, num_orientations] that takes trials to the means of their orientations."""
    member = index[:, None] == np.arange(num_orientations)
    return member / member.sum(axis=0)


def resultant(rates: np.ndarray, orientations_deg: np.ndarray) -> np.ndarray:
    """Mean of ``exp(2 i theta)`` over orientations, weighted by the rates.

    A unit may fire less than its baseline. Such a rate counts as 0: a negative weight would point at the orthogonal
    orientation, and as the weights would no longer add up to their size, the index could exceed 1.

    Parameters
    ----------
    rates : np.ndarray, float64 [num_units, num_orientations]
        Mean rates.
    orientations_deg : np.ndarray, float64 [num_orientations]
        In degrees.

    Returns
    -------
    np.ndarray, complex128 [num_units]
        NaN where no rate is positive.
    """
    weights = np.maximum(rates, 0.0)
    total = weights.sum(axis=-1)
    summed = weights @ np.exp(2j * np.deg2rad(orientations_deg))
    return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)


def global_selectivity(rates: np.ndarray, orientations_deg: np.ndarray) -> np.ndarray:
    """Global orientation selectivity index ``|sum R exp(2 i theta)| / sum R``, one minus the circular variance.

    Few spikes make any unit look tuned: a single one gives an index of 1, which is what the p-value is for.

    Parameters
    ----------
    rates, orientations_deg : np.ndarray
        As for `resultant`.

    Returns
    -------
    np.ndarray, float64 [num_units]
        From 0 to 1; NaN where no rate is positive.
    """
    return np.abs(resultant(rates, orientations_deg))


def preferred_orientation(rates: np.ndarray, orientations_deg: np.ndarray) -> np.ndarray:
    """Orientation of the weighted mean, in degrees.

    Parameters
    ----------
    rates, orientations_deg : np.ndarray
        As for `resultant`.

    Returns
    -------
    np.ndarray, float64 [num_units]
        From 0 to below 180; NaN where no rate is positive, or where the mean is 0 and points nowhere.
    """
    mean = resultant(rates, orientations_deg)
    # A negative angle that is lost in rounding folds to 180 itself.
    degrees = np.rad2deg(np.angle(mean)) / 2 % 180.0 % 180.0
    return np.where(np.abs(mean) > _TIE, degrees, np.nan)


def permutation_p_values(
    rates: np.ndarray, orientations_deg: np.ndarray, *, num_permutations: int = 1000, seed: int = 0
) -> np.ndarray:
    """How likely an index as large is if orientations mean nothing: trials change theirs at random.

    Parameters
    ----------
    rates, orientations_deg : np.ndarray
        As for `orientation_rates`; blank trials stay what they are.
    num_permutations : int
        How many. No p-value is below ``1 / (1 + num_permutations)``, as what was recorded is one of the permutations.
    seed : int
        Of the permutations, which are the same for all units.

    Returns
    -------
    np.ndarray, float64 [num_units]
        1 where the unit has no index. A permutation that leaves a unit without one counts against it.

    Raises
    ------
    ValueError
        As for `orientation_rates`, or there are no permutations.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, not {num_permutations}.")
    orientations, means = orientation_rates(rates, orientations_deg)
    observed = global_selectivity(means, orientations)
    oriented = ~np.isnan(orientations_deg)
    responses = rates[:, oriented]
    index = np.searchsorted(orientations, fold(orientations_deg[oriented]))
    averaging = _averaging(index, num_orientations=len(orientations))
    rng = np.random.default_rng(seed)
    as_large = np.ones(len(rates))
    for _ in range(num_permutations):
        shuffled = responses @ averaging[rng.permutation(len(index))]
        # Written so that a NaN on either side counts.
        as_large += ~(global_selectivity(shuffled, orientations) < observed - _TIE)
    return as_large / (1 + num_permutations)


def tuning_table(
    sorting: BaseSorting,
    stimuli: Stimuli,
    *,
    baseline: str = "none",
    prestimulus_s: float = 0.5,
    recording_duration_s: float | None = None,
    num_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Tuning of every unit.

    Parameters
    ----------
    sorting : BaseSorting
        Of one segment.
    stimuli : Stimuli
        Trials.
    baseline, prestimulus_s, recording_duration_s
        See `trial_rates`.
    num_permutations, seed : int
        See `permutation_p_values`.

    Returns
    -------
    pandas.DataFrame
        A row a unit: ``unit_id``; ``gosi``, see `global_selectivity`; ``preferred_orientation_deg``; ``p_value``;
        ``num_spikes``, in the whole sorting; ``mean_rate`` during the trials that are not blank, in Hz, whatever the
        baseline. A unit without spikes in them has the index NaN and the p-value 1.

    Raises
    ------
    ValueError
        As for `trial_rates` and `permutation_p_values`.
    """
    rates = trial_rates(
        sorting,
        stimuli,
        baseline=baseline,
        prestimulus_s=prestimulus_s,
        recording_duration_s=recording_duration_s,
    )
    orientations, means = orientation_rates(rates, stimuli.orientations_deg)
    untuned = float(global_selectivity(np.ones((1, len(orientations))), orientations)[0])
    if untuned > _UNEVEN:
        logger.warning(
            "The orientations are not spread evenly over 180 degrees: an untuned unit has an index of %.2f.",
            untuned,
        )
    shown = stimuli.oriented
    counts = sorting.count_num_spikes_per_unit(outputs="array")
    raw = window_rates(sorting, stimuli.onsets_s[shown], stimuli.durations_s[shown])
    return pd.DataFrame(
        {
            "unit_id": sorting.unit_ids,
            "gosi": global_selectivity(means, orientations),
            "preferred_orientation_deg": preferred_orientation(means, orientations),
            "p_value": permutation_p_values(
                rates, stimuli.orientations_deg, num_permutations=num_permutations, seed=seed
            ),
            "num_spikes": counts,
            "mean_rate": raw @ stimuli.durations_s[shown] / stimuli.durations_s[shown].sum(),
        }
    )


def summary(table: pd.DataFrame, *, level: float = 0.05) -> str:
    """How many units are tuned, and how well, in a line.

    Parameters
    ----------
    table : pandas.DataFrame
        From `tuning_table`.
    level : float
        A p-value below which a unit is tuned.

    Returns
    -------
    str
    """
    tuned = table[table["p_value"] < level]
    line = f"{len(table)} units, {len(tuned)} of them tuned (p < {level:g})"
    if table["gosi"].notna().any():
        line += f"; gOSI: median {table['gosi'].median():.3f}"
    if len(tuned):
        line += f", of those tuned {tuned['gosi'].median():.3f}"
    return line


def main(argv: list[str] | None = None) -> int:
    """Write a row a unit as CSV, and print how many are tuned."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orientation_tuning", description=__doc__)
    parser.add_argument("sorting", type=Path, help="folder saved by SpikeInterface or by simsort sort, or .npz file")
    parser.add_argument("stimuli", type=Path, help=f"CSV file, a row a trial: {', '.join(COLUMNS)} (empty: blank)")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--baseline", choices=BASELINES, default="none", help="what is taken off (%(default)s)")
    parser.add_argument("--prestimulus", type=float, default=0.5, metavar="S", help="seconds before (%(default)s)")
    parser.add_argument("--duration", type=float, metavar="S", help="of the recording, to check the trials against")
    parser.add_argument("--num-permutations", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the permutations (%(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        table = tuning_table(
            load_sorting(arguments.sorting),
            read_stimuli(arguments.stimuli),
            baseline=arguments.baseline,
            prestimulus_s=arguments.prestimulus,
            recording_duration_s=arguments.duration,
            num_permutations=arguments.num_permutations,
            seed=arguments.seed,
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")
    sys.stdout.write(summary(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
