"""Labels of units: metrics, the methods, and what is kept."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import skops.io
import spikeinterface as si
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from spikeinterface.core import NumpySorting, create_sorting_analyzer
from spikeinterface.curation import apply_curation, load_curation, model_based_label_units
from spikeinterface.metrics import ComputeQualityMetrics, ComputeTemplateMetrics

from spikeinterface_simsort.curation.companions import coincidence_ratio, halves_distance, template_similarity
from spikeinterface_simsort.curation.curation_file import CURATION_FILE, LABELS_FILE, METRICS_FILE, write_curation
from spikeinterface_simsort.curation.labels import METHODS, agreement, is_good, label_units
from spikeinterface_simsort.curation.metrics import (
    LEFT_OUT,
    QUALITY_METRICS,
    TEMPLATE_METRICS,
    CurationError,
    compute_metrics,
    make_analyzer,
    metric_columns,
)
from spikeinterface_simsort.curation.models import BUNDLED_MODEL, CLASSES, classify, find_model
from spikeinterface_simsort.sorted_units import open_units

COLUMNS = ["quality", "quality_probability", "thresholds", "bombcell", "classifier", "num_good"]


@pytest.fixture(scope="module")
def sorting(trial):
    """The true units as "0" to "3", spikes at random times, and a unit of five spikes."""
    recording, truth = trial
    rate, num_samples = recording.get_sampling_frequency(), recording.get_num_samples()
    trains = {str(unit): truth.get_unit_spike_train(unit) for unit in truth.unit_ids}
    rng = np.random.default_rng(0)
    trains["random"] = np.sort(rng.choice(num_samples - 2000, size=300, replace=False)) + 1000
    trains["few"] = truth.get_unit_spike_train(truth.unit_ids[0])[10:15]
    return NumpySorting.from_unit_dict([trains], rate)


@pytest.fixture(scope="module")
def analyzer(trial, sorting):
    return make_analyzer(trial[0], sorting)


@pytest.fixture(scope="module")
def metrics(analyzer):
    return compute_metrics(analyzer)


@pytest.fixture(scope="module")
def labels(analyzer, metrics):
    return label_units(analyzer)


def test_every_metric_is_taken_or_left_out_with_a_reason():
    known = {
        metric.metric_name
        for extension in (ComputeQualityMetrics, ComputeTemplateMetrics)
        for metric in extension.metric_list
    }
    assert {*QUALITY_METRICS, *TEMPLATE_METRICS, *LEFT_OUT} == known
    assert not {*QUALITY_METRICS, *TEMPLATE_METRICS} & set(LEFT_OUT)


def test_metrics_are_one_table(metrics, sorting):
    assert list(metrics.columns) == metric_columns()
    assert list(metrics.index) == list(sorting.unit_ids)
    assert (metrics.loc[["0", "1", "2", "3"], "snr"] > 2 * metrics.loc["random", "snr"]).all()
    assert metrics.loc["few", "num_spikes"] == 5


def test_halves_of_one_cloud_are_nearer_than_two_clouds():
    points = np.random.default_rng(0).normal(size=(300, 12))
    assert 2.3 < halves_distance(points) < 3.2
    assert halves_distance(points + 6.0 * (np.arange(300) % 2)[:, None] * np.eye(12)[0]) > 5.0
    # A few spikes that overlap others are no second neuron.
    assert halves_distance(points + 30.0 * (np.arange(300) < 20)[:, None] * np.eye(12)[0]) < 3.2
    assert np.isnan(halves_distance(points[:10])) and np.isnan(halves_distance(np.ones((50, 3))))


def test_similarity_finds_the_shift():
    waveform = np.random.default_rng(0).normal(size=(60, 4))
    waveform[:10] = waveform[-10:] = 0.0
    similarity = template_similarity(np.stack([waveform, np.roll(waveform, 5, axis=0), -waveform]), largest_shift=9)
    np.testing.assert_allclose(similarity[0, 1], 1.0, atol=1e-6)
    assert similarity[0, 2] < 0.4 and (similarity == similarity.T).all()
    assert template_similarity(np.stack([waveform, np.roll(waveform, 5, axis=0)]), largest_shift=2)[0, 1] < 0.9


def test_parts_of_one_neuron_never_fire_together():
    rng = np.random.default_rng(0)
    # Intervals of 3 ms and more, 50 spikes a second.
    one, two = (np.cumsum(rng.exponential(17.0, size=5000) * 30 + 90).astype(int) for _ in range(2))
    options = {"num_samples": [max(one[-1], two[-1])], "sampling_frequency": 30000.0}
    assert coincidence_ratio([one[::2]], [one[1::2]], **options) == 0.0
    assert 0.9 < coincidence_ratio([one], [two], **options) < 1.1
    assert np.isnan(coincidence_ratio([one[:50]], [two[:50]], **options))


def test_a_neuron_that_was_cut_in_two(trial):
    recording, truth = trial
    train = truth.get_unit_spike_train(truth.unit_ids[0])
    half = recording.get_num_samples() // 2
    trains = {"odd": train[::2], "even": train[1::2], "early": train[train < half]}
    trains |= {f"whole{unit}": truth.get_unit_spike_train(unit) for unit in truth.unit_ids[1:]}
    units = NumpySorting.from_unit_dict([trains], recording.get_sampling_frequency())
    table = compute_metrics(make_analyzer(recording, units.remove_units(["early"])))
    assert (table.loc[["odd", "even"], "companion_similarity"] > 0.9).all()
    table = compute_metrics(make_analyzer(recording, units.select_units(["early", "whole1", "whole2"])))
    assert table.loc["early", "silent_share"] == pytest.approx(0.5, abs=0.05)
    assert (table.loc[["whole1", "whole2"], "silent_share"] < 0.2).all()


def test_metrics_that_are_there_are_kept(trial, sorting, metrics):
    analyzer = make_analyzer(trial[0], sorting.select_units(["0", "1"]))
    options = {"max_spikes_per_unit": 50, "seed": 7}
    analyzer.compute({"random_spikes": options, "noise_levels": {}, "templates": {}}, progress_bar=False)
    analyzer.compute("quality_metrics", metric_names=["snr"], progress_bar=False)
    before = analyzer.get_extension("quality_metrics").get_data()["snr"].copy()
    table = compute_metrics(analyzer)
    assert list(table["snr"]) == list(before)
    assert analyzer.get_extension("random_spikes").params["max_spikes_per_unit"] == 50
    assert table["num_spikes"].tolist() == metrics.loc[["0", "1"], "num_spikes"].tolist()


def test_an_analyzer_with_its_metrics_can_be_opened_again(trial, sorting, tmp_path):
    folder = tmp_path / "analyzer"
    metrics = compute_metrics(make_analyzer(trial[0], sorting, folder=folder))
    opened = open_units(folder).analyzer
    assert opened is not None
    assert opened.get_extension("principal_components").get_data().shape[0] > 0
    pd.testing.assert_frame_equal(compute_metrics(opened), metrics)


def test_true_units_are_good_and_random_spikes_are_not(labels):
    assert list(labels.columns) == COLUMNS
    assert labels.loc[["0", "1", "2", "3"], "quality"].tolist() == ["good"] * 4
    assert labels.loc["random", "quality"] != "good" and labels.loc["random", "quality_probability"] < 0.2
    assert labels.loc["random", "bombcell"] != "good"
    assert (labels["num_good"] == is_good(labels).sum(axis=1)).all()


def test_a_unit_of_few_spikes_is_not_judged(labels):
    assert labels.loc["few", "quality"] == "" and np.isnan(labels.loc["few", "quality_probability"])
    assert labels.loc["few", "classifier"] == ""


def test_labels_are_properties_of_the_units(analyzer, labels):
    for name in labels.columns:
        values = analyzer.sorting.get_property(name)
        if name == "quality_probability":
            np.testing.assert_allclose(values, labels[name])
        else:
            assert values.tolist() == labels[name].tolist()


def test_agreement_of_the_methods(labels):
    shares = agreement(labels)
    assert list(shares.columns) == ["thresholds", "bombcell", "classifier"] == list(shares.index)
    assert (np.diag(shares) == 1).all() and (shares == shares.T).all(axis=None)
    good = is_good(labels)
    assert shares.loc["bombcell", "classifier"] == (good["bombcell"] == good["classifier"]).mean()


def test_curation_file_is_spikeinterfaces(labels, metrics, sorting, tmp_path):
    write_curation(tmp_path, labels=labels, metrics=metrics)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CURATION_FILE, LABELS_FILE, METRICS_FILE])
    curation = load_curation(tmp_path / CURATION_FILE)
    assert json.loads((tmp_path / CURATION_FILE).read_text())["format_version"] == "2"
    assert curation.label_definitions["quality"].label_options == ["good", "MUA", "noise"]
    curated = apply_curation(sorting.clone(), curation)
    assert curated.get_property("quality").tolist() == labels["quality"].tolist()
    assert curated.get_property("bombcell").tolist() == labels["bombcell"].tolist()


def test_without_gains_the_classifier_says_the_same(trial, sorting, labels, caplog):
    counts = trial[0].clone()
    for name in ("gain_to_uV", "offset_to_uV"):
        counts.delete_property(name)
    analyzer = make_analyzer(counts, sorting)
    assert not analyzer.return_in_uV
    with caplog.at_level(logging.WARNING):
        table = label_units(analyzer)
    assert "gains are not known" in caplog.text
    assert list(table["quality"]) == list(labels["quality"])
    # Metrics differ in their last digits, and trees jump there.
    np.testing.assert_allclose(table["quality_probability"], labels["quality_probability"], atol=0.05)


@pytest.mark.parametrize("unit_ids", [["0"], []])
def test_one_unit_and_none(trial, sorting, unit_ids, tmp_path):
    analyzer = make_analyzer(trial[0], sorting.select_units(unit_ids))
    table = label_units(analyzer)
    assert list(table.columns) == COLUMNS and list(table.index) == unit_ids
    write_curation(tmp_path, labels=table, metrics=compute_metrics(analyzer))
    assert load_curation(tmp_path / CURATION_FILE).unit_ids == unit_ids


def test_units_that_are_numbers(trial, sorting, tmp_path):
    analyzer = make_analyzer(trial[0], sorting.select_units(["1", "few"], renamed_unit_ids=[7, 3]))
    write_curation(tmp_path, labels=label_units(analyzer), metrics=compute_metrics(analyzer))
    assert load_curation(tmp_path / CURATION_FILE).unit_ids == [7, 3]


def test_labels_stay_in_the_analyzers_folder(trial, sorting, tmp_path):
    analyzer = make_analyzer(trial[0], sorting.select_units(["0", "random"]), folder=tmp_path / "analyzer")
    table = label_units(analyzer)
    again = si.load_sorting_analyzer(tmp_path / "analyzer")
    assert again.sorting.get_property("quality").tolist() == table["quality"].tolist()
    assert again.has_extension("quality_metrics")


def test_an_analyzer_that_lost_its_recording(trial, sorting, tmp_path):
    recording = trial[0].save(folder=tmp_path / "recording", verbose=False)
    make_analyzer(recording, sorting, folder=tmp_path / "analyzer")
    shutil.rmtree(tmp_path / "recording")
    with pytest.raises(CurationError, match="does not find its recording"):
        compute_metrics(si.load_sorting_analyzer(tmp_path / "analyzer"))


def test_units_are_looked_at_on_their_own_group(trial, sorting):
    recording = trial[0]
    both = si.aggregate_channels([recording.rename_channels([f"{n}.{c}" for c in range(4)]) for n in (0, 1)])
    both.set_property("group", [0] * 4 + [1] * 4)
    units = sorting.select_units(["0", "1"])
    units.set_property("group", [0, 1])
    analyzer = make_analyzer(both, units)
    assert analyzer.sparsity.mask.tolist() == [[True] * 4 + [False] * 4, [False] * 4 + [True] * 4]
    assert analyzer.get_main_channels(outputs="index", with_dict=False)[1] >= 4
    alone = compute_metrics(make_analyzer(recording, units.select_units(["1"])))
    table = compute_metrics(analyzer)
    np.testing.assert_allclose(table.loc["1", "snr"], alone.loc["1", "snr"], rtol=0.05)


def test_thresholds_of_ones_own(analyzer):
    table = label_units(analyzer, thresholds={"snr": {"greater": 1e9}})
    assert (table["thresholds"] == "bad").all()
    with pytest.raises(CurationError, match="no_such_metric"):
        label_units(analyzer, thresholds={"no_such_metric": {"less": 1}})


def test_spikeinterface_uses_the_bundled_model(analyzer, labels):
    trusted = ["numpy.dtype", "sklearn.tree._tree.Tree"]
    found = model_based_label_units(
        analyzer, model_folder=BUNDLED_MODEL, trusted=trusted, set_predictions_as_properties=False
    )
    assert set(found["prediction"]) <= set(CLASSES)
    judged = labels["classifier"] != ""
    assert (found["prediction"] == "sua")[judged].tolist() == (labels["classifier"] == "sua")[judged].tolist()


def test_unitrefine_takes_models_of_a_folder(analyzer):
    table = label_units(analyzer, unitrefine=(BUNDLED_MODEL, None))
    assert set(table["unitrefine"]) <= set(METHODS["unitrefine"])
    assert table["unitrefine_probability"].between(1 / 3, 1).all()
    assert "unitrefine" in agreement(table)


def test_offline_the_other_labels_are_there(analyzer, monkeypatch, caplog):
    def unreachable(*args, **kwargs):
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with caplog.at_level(logging.WARNING):
        table = label_units(analyzer, unitrefine=("owner/noise", "owner/sua"))
    assert list(table.columns) == COLUMNS
    assert "owner/noise" in caplog.text and "no route to the hub" in caplog.text


def test_models_that_are_none(tmp_path):
    with pytest.raises(CurationError, match="There is no model"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(CurationError, match="no .skops file"):
        find_model(tmp_path)
    (tmp_path / "broken.skops").write_bytes(b"no archive")
    with pytest.raises(CurationError, match="not a skops file"):
        find_model(tmp_path / "broken.skops")


def test_a_model_that_might_run_code_is_not_loaded(tmp_path):
    skops.io.dump(Pipeline([("step", FunctionTransformer(shutil.rmtree))]), tmp_path / "model.skops")
    with pytest.raises(CurationError, match="shutil.rmtree"):
        find_model(tmp_path)


def test_a_table_without_what_the_model_needs(metrics):
    with pytest.raises(CurationError, match="needs snr"):
        classify(metrics.drop(columns="snr"))


def test_probabilities_sum_to_one(metrics):
    table = classify(metrics)
    assert set(table.columns) == set(CLASSES)
    np.testing.assert_allclose(table.sum(axis=1), 1.0)


def test_an_analyzer_of_spikeinterfaces_own(trial, sorting):
    true_units = sorting.select_units(["0", "1", "2", "3"])
    table = label_units(create_sorting_analyzer(true_units, trial[0], sparse=False))
    assert table["quality"].tolist() == ["good"] * 4
