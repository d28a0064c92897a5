"""What can be had of a recording by those who know the truth: two bounds beside the sorters."""

from __future__ import annotations

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting, create_sorting_analyzer
from spikeinterface.sortingcomponents.matching import find_spikes_from_templates

from benchmarks.recordings import spike_band

BEFORE_MS, AFTER_MS = 0.7, 1.4
_FOLDS = 5
# Of SpikeInterface's engines: the one that its own Lupin matches with.
_ENGINE = "wobble"


def identify(recording: BaseRecording, truth: BaseSorting, *, seed: int = 0) -> BaseSorting:
    """Tell the true spikes' units by a supervised classifier, told their times: a bound for clustering.

    A linear discriminant with shrinkage, on snippets of all channels from 0.7 ms before to 1.4 ms after each spike,
    300 to 6000 Hz; each spike is classified by one that was not trained on it (five-fold cross-validation).

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of one segment.
    seed : int
        Of the folds.

    Returns
    -------
    BaseSorting
        The true spike times, labelled by the classifier, but for those of units with fewer than five spikes.
    """
    rate = recording.get_sampling_frequency()
    traces = spike_band(recording).get_traces()
    spikes = truth.to_spike_vector()
    frames, labels = spikes["sample_index"], spikes["unit_index"]
    # Units with fewer spikes than folds cannot be learnt: their spikes are left out.
    counts = np.bincount(labels, minlength=len(truth.unit_ids))
    known = counts[labels] >= _FOLDS
    offsets = np.arange(-round(BEFORE_MS * rate / 1000), round(AFTER_MS * rate / 1000))
    at = np.clip(frames[known, None] + offsets, 0, len(traces) - 1)
    predicted = labels[known]
    if len(np.unique(predicted)) > 1:
        classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
        snippets = traces[at].reshape(len(at), -1)
        predicted = cross_val_predict(classifier, snippets, labels[known], cv=folds)
    trains = {unit: frames[known][predicted == index] for index, unit in enumerate(truth.unit_ids)}
    return NumpySorting.from_unit_dict([trains], rate)


def match(recording: BaseRecording, truth: BaseSorting, *, seed: int = 0) -> BaseSorting:
    """Find spikes by SpikeInterface's template matching, told the true templates: a bound for matching.

    Parameters
    ----------
    recording, truth : BaseRecording, BaseSorting
        Of one segment.
    seed : int
        Of the spikes that are averaged into templates.

    Returns
    -------
    BaseSorting
    """
    band = spike_band(recording)
    # Templates in the traces' own units: a gain between the two would scale the one and not the other.
    analyzer = create_sorting_analyzer(truth, band, sparse=False, return_in_uV=False)
    analyzer.compute({"random_spikes": {"seed": seed}, "templates": {"ms_before": 1.0, "ms_after": 2.0}})
    templates = analyzer.get_extension("templates").get_data(outputs="Templates")
    spikes = find_spikes_from_templates(
        band, templates, method=_ENGINE, job_kwargs={"n_jobs": 1, "progress_bar": False}, verbose=False
    )
    # Engines report the sample of the template's own centre, which is the spike time of the truth.
    order = np.argsort(spikes["sample_index"], kind="stable")
    frames, indices = spikes["sample_index"][order], spikes["cluster_index"][order]
    trains = {unit: frames[indices == index] for index, unit in enumerate(truth.unit_ids)}
    return NumpySorting.from_unit_dict([trains], recording.get_sampling_frequency())
