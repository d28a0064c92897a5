"""Labels of units by several methods, side by side: thresholds, Bombcell, UnitRefine, and the bundled classifier."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.curation.metrics import CurationError, compute_metrics
from spikeinterface_simsort.curation.models import CLASSES, classify, find_model

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import SortingAnalyzer

logger = logging.getLogger(__name__)

# Of Siegle et al. (2021), doi:10.1038/s41586-020-03171-x, as SpikeInterface's own pages have them.
THRESHOLDS: Mapping[str, Mapping[str, float]] = {
    "isi_violations_ratio": {"less": 0.5},
    "presence_ratio": {"greater": 0.9},
    "amplitude_cutoff": {"less": 0.1},
}
# Noise from neurons, and single neurons from several: of UnitRefine's authors, for Neuropixels.
UNITREFINE_MODELS = (
    "SpikeInterface/UnitRefine_noise_neural_classifier",
    "SpikeInterface/UnitRefine_sua_mua_classifier",
)
# Columns of the table that hold a label, and what it may be: the first means a single, well-sorted neuron.
METHODS: Mapping[str, tuple[str, ...]] = {
    "thresholds": ("good", "bad"),
    "bombcell": ("good", "mua", "noise", "non_soma"),
    "unitrefine": CLASSES,
    "classifier": CLASSES,
}
# With fewer spikes nothing can be said of a unit.
MIN_SPIKES = 10
# In terms of the bundled classifier, those that spikeinterface-gui offers.
_QUALITY = {"sua": "good", "mua": "MUA", "noise": "noise", "": ""}
QUALITIES = ("good", "MUA", "noise")


def label_units(
    analyzer: SortingAnalyzer,
    *,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    unitrefine: tuple[str | Path | None, str | Path | None] | None = None,
    model: str | Path | None = None,
    seed: int = 0,
    job_kwargs: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Label every unit by each method, and keep the labels as properties of the units.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        Of `make_analyzer`, or any other; metrics that it lacks are computed.
    thresholds : mapping, optional
        Bounds of metrics, as ``threshold_metrics_label_units`` takes them; default `THRESHOLDS`. A metric that is NaN
        does not count.
    unitrefine : (noise_neural, sua_mua), optional
        Models for ``unitrefine_label_units``, see `find_model`; either may be None. `UNITREFINE_MODELS` are published
        ones. A model that cannot be had is warned of, and its column left out.
    model : str or Path, optional
        Classifier of single neurons (``sua``), several (``mua``) and ``noise``; default the bundled one.
    seed : int
        See `compute_metrics`.
    job_kwargs : dict, optional
        SpikeInterface's job arguments.

    Returns
    -------
    pandas.DataFrame
        A row a unit: ``quality`` (`QUALITIES`: what the classifier says, in spikeinterface-gui's words; empty for units
        of fewer than `MIN_SPIKES` spikes, which are not judged), ``quality_probability`` (that it is a single neuron),
        the label of each of `METHODS` that could be had, ``unitrefine_probability``, and ``num_good``: how many methods
        hold it for a single neuron.

    Raises
    ------
    CurationError
        Metrics or the classifier cannot be had; the message says what to do.

    Notes
    -----
    The properties of the units have the names of the columns. Those of an analyzer in a folder are written there.
    """
    import pandas as pd

    metrics = compute_metrics(analyzer, seed=seed, job_kwargs=job_kwargs)
    table = pd.DataFrame(index=metrics.index)
    judged = metrics["num_spikes"].fillna(0) >= MIN_SPIKES
    probabilities = classify(metrics, **({} if model is None else {"model": model}))
    classes = _classes(probabilities).where(judged, "")
    table["quality"] = classes.map(lambda name: _QUALITY.get(name, name)).astype(object)
    table["quality_probability"] = probabilities[CLASSES[0]].where(judged)
    table["thresholds"] = label_by_thresholds(metrics, thresholds=thresholds)
    table["bombcell"] = label_by_bombcell(metrics, amplitudes_in_uv=analyzer.return_in_uV)
    if unitrefine is not None:
        try:
            table[["unitrefine", "unitrefine_probability"]] = label_by_unitrefine(analyzer, metrics, models=unitrefine)
        except CurationError as error:
            logger.warning("No labels of UnitRefine: %s", error)
    table["classifier"] = classes
    table["num_good"] = is_good(table).sum(axis=1).astype(int)
    for name in table.columns if len(table) else ():
        values = table[name].to_numpy()
        analyzer.set_sorting_property(name, values.astype(str) if values.dtype == object else values)
    return table


def label_by_thresholds(
    metrics: pd.DataFrame, *, thresholds: Mapping[str, Mapping[str, float]] | None = None
) -> pd.Series:
    """Label units ``good`` that keep to bounds of their metrics, and others ``bad``.

    Parameters
    ----------
    metrics : pandas.DataFrame
        Of `compute_metrics`.
    thresholds : mapping, optional
        See `label_units`.

    Returns
    -------
    pandas.Series of str

    Raises
    ------
    CurationError
        A metric is not in the table, or its bounds are not understood.
    """
    from spikeinterface.curation import threshold_metrics_label_units

    bounds = {name: dict(bound) for name, bound in (THRESHOLDS if thresholds is None else thresholds).items()}
    good, bad = METHODS["thresholds"]
    try:
        labels = threshold_metrics_label_units(
            metrics, bounds, pass_label=good, fail_label=bad, operator="and", nan_policy="ignore"
        )
    except ValueError as error:
        raise CurationError(f"The thresholds cannot be used: {error}") from error
    return labels["label"]


def label_by_bombcell(metrics: pd.DataFrame, *, amplitudes_in_uv: bool = True) -> pd.Series:
    """Label units by Bombcell's default thresholds, but for what four channels do not tell.

    Parameters
    ----------
    metrics : pandas.DataFrame
        Of `compute_metrics`.
    amplitudes_in_uv : bool
        Where they are not, Bombcell's bound of the amplitude is left out, with a warning.

    Returns
    -------
    pandas.Series of str
        ``good``, ``mua``, ``noise`` or ``non_soma``.
    """
    import pandas as pd
    from spikeinterface.curation import bombcell_get_default_thresholds, bombcell_label_units

    if not len(metrics):
        return pd.Series(index=metrics.index, dtype=object)
    thresholds = copy.deepcopy(bombcell_get_default_thresholds())
    for bounds in thresholds.values():
        # Such as the decay along a probe, without which all would be noise.
        for name in [name for name in bounds if name not in metrics.columns]:
            del bounds[name]
    if not amplitudes_in_uv:
        logger.warning("The recording's gains are not known: Bombcell's bound of the amplitude in uV is left out.")
        del thresholds["mua"]["amplitude_median"]
    return bombcell_label_units(external_metrics=metrics, thresholds=thresholds)["bombcell_label"].rename("label")


def label_by_unitrefine(
    analyzer: SortingAnalyzer, metrics: pd.DataFrame, *, models: tuple[str | Path | None, str | Path | None]
) -> pd.DataFrame:
    """Label units by one or two of UnitRefine's models.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        Whose metrics they are.
    metrics : pandas.DataFrame
        Of `compute_metrics`. Metrics of SpikeInterface that are not in it, such as the spread along a probe, are given
        to the models as not known.
    models : (noise_neural, sua_mua)
        See `find_model`.

    Returns
    -------
    pandas.DataFrame
        ``unitrefine`` (``sua``, ``mua``, ``noise``, ``neural``) and ``unitrefine_probability`` of that label.

    Raises
    ------
    CurationError
        A model cannot be had or used.
    """
    import pandas as pd
    from spikeinterface.curation import unitrefine_label_units

    noise_neural, sua_mua = (None if model is None else find_model(model) for model in models)
    columns = ["unitrefine", "unitrefine_probability"]
    if not len(metrics):
        return pd.DataFrame(columns=columns, index=metrics.index)
    units: Any = _UnitsWithMetrics(analyzer, metrics)
    with warnings.catch_warnings():
        # Of metrics that were computed otherwise than where the model was trained, and of labels that no unit has.
        warnings.simplefilter("ignore")
        try:
            labels = unitrefine_label_units(units, noise_neural, sua_mua)
        except Exception as error:  # Models are others' files: what is wrong with one shows only in its use.
            raise CurationError(f"The models {noise_neural} and {sua_mua} cannot be used: {error}") from error
    return labels.set_axis(columns, axis="columns")


class _UnitsWithMetrics:
    """An analyzer to SpikeInterface's classifiers: its units, and all metrics that they may ask for."""

    def __init__(self, analyzer: SortingAnalyzer, metrics: pd.DataFrame) -> None:
        from spikeinterface.metrics import ComputeQualityMetrics, ComputeTemplateMetrics

        known = [*ComputeQualityMetrics.get_metric_columns(), *ComputeTemplateMetrics.get_metric_columns()]
        self.unit_ids = analyzer.unit_ids
        self.get_extension = analyzer.get_extension
        self._metrics = metrics.reindex(columns=[*metrics.columns, *sorted(set(known) - set(metrics.columns))])

    def get_metrics_extension_data(self) -> pd.DataFrame:
        """Metrics that were not computed are NaN."""
        return self._metrics


def is_good(table: pd.DataFrame) -> pd.DataFrame:
    """Tell which method holds which unit for a single neuron.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `label_units`.

    Returns
    -------
    pandas.DataFrame, bool [num_units, num_methods]
        A column for each of `METHODS` in the table.
    """
    import pandas as pd

    return pd.DataFrame({name: table[name] == labels[0] for name, labels in METHODS.items() if name in table})


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Share of units that two methods agree on: a single neuron, or not.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `label_units`.

    Returns
    -------
    pandas.DataFrame, float64 [num_methods, num_methods]
        NaN where there is no unit.
    """
    import pandas as pd

    good = is_good(table)
    return pd.DataFrame({a: {b: (good[a] == good[b]).mean() for b in good} for a in good}, dtype=float)


def _classes(probabilities: pd.DataFrame) -> pd.Series:
    """A single neuron where that is more probable than not; else the more probable of the others."""
    single, *others = CLASSES
    if not len(probabilities):
        return probabilities[single].astype(object)
    return probabilities[others].idxmax(axis="columns").astype(object).mask(probabilities[single] >= 0.5, single)
