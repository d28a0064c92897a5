"""Orientation tuning: units whose tuning is known."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spikeinterface.core import NpzSortingExtractor, NumpyRecording, NumpySorting

from benchmarks.orientation_tuning import (
    Stimuli,
    fold,
    global_selectivity,
    load_sorting,
    main,
    orientation_rates,
    permutation_p_values,
    preferred_orientation,
    read_stimuli,
    trial_rates,
    tuning_table,
)

RATE = 10000.0
DIRECTIONS = np.arange(0.0, 360.0, 30.0)
EVEN = np.arange(0.0, 180.0, 22.5)


def shown(*, num_repeats: int = 10, orientations: np.ndarray = DIRECTIONS, num_blank: int = 0) -> Stimuli:
    """Trials of 1 s, a second apart, in random order."""
    labels = np.concatenate([np.repeat(orientations, num_repeats), np.full(num_blank, np.nan)])
    labels = np.random.default_rng(0).permutation(labels)
    return Stimuli(1.0 + 2.0 * np.arange(len(labels)), 1.0, labels)  # pyright: ignore[reportArgumentType]


def sorting_of(
    rates: list[np.ndarray], stimuli: Stimuli, *, spontaneous_hz: float = 0.0, seed: int = 1
) -> NumpySorting:
    """Poisson units of given rates [num_trials] in Hz; between the trials they fire spontaneously."""
    rng = np.random.default_rng(seed)
    units = {}
    end_s = stimuli.onsets_s.max() + 3.0
    for unit, trial_hz in enumerate(rates):
        counts = rng.poisson(trial_hz * stimuli.durations_s)
        times = [
            onset + duration * rng.random(count)
            for onset, duration, count in zip(stimuli.onsets_s, stimuli.durations_s, counts, strict=True)
        ]
        times.append(end_s * rng.random(rng.poisson(spontaneous_hz * end_s)))
        # Not at the very end of a trial, which rounding would put outside.
        units[f"u{unit}"] = np.sort(np.floor(np.concatenate(times) * RATE).astype("int64"))
    return NumpySorting.from_unit_dict([units], RATE)


def von_mises(
    orientations_deg: np.ndarray, *, preferred: float, peak_hz: float = 20.0, kappa: float = 2.0
) -> np.ndarray:
    """Rate in Hz; 0 in blank trials."""
    rates = peak_hz * np.exp(kappa * (np.cos(2 * np.deg2rad(orientations_deg - preferred)) - 1))
    return np.nan_to_num(rates)


def distance_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs((np.asarray(first) - second + 90) % 180 - 90)


def test_tuned_units_are_recovered() -> None:
    stimuli = shown()
    preferred = np.array([0.0, 40.0, 95.0, 150.0, 178.0])
    sorting = sorting_of([von_mises(stimuli.orientations_deg, preferred=angle) for angle in preferred], stimuli)
    table = tuning_table(sorting, stimuli, recording_duration_s=300.0, num_permutations=200)
    assert list(table.columns) == [
        "unit_id",
        "gosi",
        "preferred_orientation_deg",
        "p_value",
        "num_spikes",
        "mean_rate",
    ]
    assert list(table["unit_id"]) == [f"u{i}" for i in range(5)]
    assert (distance_deg(table["preferred_orientation_deg"].to_numpy(), preferred) < 10.0).all()
    assert (table["p_value"] == 1 / 201).all()
    # What a von Mises curve has without noise: a ratio of Bessel functions, 0.70 at kappa 2.
    assert table["gosi"].to_numpy() == pytest.approx(0.698, abs=0.08)
    counts = [len(sorting.get_unit_spike_train(unit)) for unit in sorting.unit_ids]
    assert list(table["num_spikes"]) == counts
    np.testing.assert_allclose(table["mean_rate"], np.array(counts) / 120.0)


def test_untuned_units_are_not_tuned() -> None:
    stimuli = shown(num_blank=10)
    sorting = sorting_of([np.full(130, 20.0)] * 40, stimuli)
    table = tuning_table(sorting, stimuli, recording_duration_s=300.0, num_permutations=100)
    assert table["gosi"].max() < 0.15
    # Two of 40 are expected at this level.
    assert (table["p_value"] > 0.05).sum() >= 34
    assert 0.3 < table["p_value"].mean() < 0.7


def test_one_orientation_only() -> None:
    stimuli = shown()
    rates = np.where(fold(stimuli.orientations_deg) == 60.0, 30.0, 0.0)
    table = tuning_table(sorting_of([rates], stimuli), stimuli, recording_duration_s=300.0, num_permutations=50)
    assert table.loc[0, "gosi"] == pytest.approx(1.0)
    assert table.loc[0, "preferred_orientation_deg"] == pytest.approx(60.0)


def test_merging_orthogonal_units_hides_their_tuning() -> None:
    stimuli = shown()
    rates = [von_mises(stimuli.orientations_deg, preferred=angle) for angle in (30.0, 120.0)]
    apart = sorting_of(rates, stimuli)
    trains = [apart.get_unit_spike_train(unit) for unit in apart.unit_ids]
    merged = NumpySorting.from_unit_dict([{"both": np.sort(np.concatenate(trains))}], RATE)
    before = tuning_table(apart, stimuli, recording_duration_s=300.0, num_permutations=50)["gosi"]
    after = tuning_table(merged, stimuli, recording_duration_s=300.0, num_permutations=50)["gosi"]
    assert after[0] < 0.2 < 0.6 < before.min()


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("preferred", [0.0, 33.0, 179.0])
def test_cosine_has_half_its_strength(strength: float, preferred: float) -> None:
    rates = (1 + strength * np.cos(2 * np.deg2rad(EVEN - preferred)))[None]
    assert global_selectivity(rates, EVEN)[0] == pytest.approx(strength / 2)
    found = preferred_orientation(rates, EVEN)[0]
    assert np.isnan(found) if strength == 0 else distance_deg(found, preferred) < 1e-9
    # Whatever the unit of rates.
    np.testing.assert_allclose(global_selectivity(7.5 * rates, EVEN), global_selectivity(rates, EVEN), atol=1e-15)
    # One minus the circular variance, written out.
    angles = np.deg2rad(EVEN)
    cosine, sine = (rates * np.cos(2 * angles)).sum(), (rates * np.sin(2 * angles)).sum()
    assert global_selectivity(rates, EVEN)[0] == pytest.approx(np.hypot(cosine, sine) / rates.sum())


def test_directions_are_folded() -> None:
    np.testing.assert_allclose(fold(np.array([0.0, 180.0, 360.0, 190.0, 179.9999, 359.0])), [0, 0, 0, 10, 0, 179])
    rates = np.array([[1.0, 3.0, 5.0, 2.0]])
    orientations, means = orientation_rates(rates, np.array([30.0, 210.0, 90.0, np.nan]))
    np.testing.assert_array_equal(orientations, [30.0, 90.0])
    np.testing.assert_array_equal(means, [[2.0, 5.0]])
    # Opposite directions of equal rates are one orientation; a cell that prefers a direction is tuned as well.
    one_direction = np.where(DIRECTIONS == 120.0, 10.0, 0.0)[None]
    folded, means = orientation_rates(one_direction, DIRECTIONS)
    assert global_selectivity(means, folded)[0] == pytest.approx(1.0)


def test_baselines() -> None:
    stimuli = shown(orientations=EVEN, num_repeats=30, num_blank=60)
    tuned = von_mises(stimuli.orientations_deg, preferred=67.5)
    sorting = sorting_of([tuned], stimuli, spontaneous_hz=8.0)
    tables = {
        baseline: tuning_table(sorting, stimuli, baseline=baseline, recording_duration_s=700.0, num_permutations=20)
        for baseline in ("none", "blank", "prestimulus")
    }
    assert tables["none"].loc[0, "gosi"] < 0.5
    for baseline in ("blank", "prestimulus"):
        assert tables[baseline].loc[0, "gosi"] == pytest.approx(0.7, abs=0.1)
        assert tables[baseline].loc[0, "mean_rate"] == tables["none"].loc[0, "mean_rate"]


def test_rates_below_the_baseline_count_as_none() -> None:
    rates = np.array([[4.0, -1.0], [-2.0, -3.0]])
    index = global_selectivity(rates, np.array([0.0, 90.0]))
    assert index[0] == 1.0 and np.isnan(index[1])
    assert np.isnan(preferred_orientation(rates, np.array([0.0, 90.0]))[1])


def test_windows_hold_their_begin_and_not_their_end() -> None:
    train = (np.array([0.9, 1.0, 1.5, 2.0, 5.0]) * RATE).astype("int64")
    sorting = NumpySorting.from_unit_dict([{0: train}], RATE)
    stimuli = Stimuli(np.array([1.0, 4.0]), np.array([1.0, 2.0]), np.array([0.0, 90.0]))
    np.testing.assert_allclose(trial_rates(sorting, stimuli, recording_duration_s=6.0), [[2.0, 0.5]])


def test_unit_without_spikes() -> None:
    stimuli = shown()
    sorting = NumpySorting.from_unit_dict([{"silent": np.empty(0, dtype="int64"), "late": np.array([5])}], RATE)
    table = tuning_table(sorting, stimuli, recording_duration_s=300.0, num_permutations=20)
    assert table["gosi"].isna().all() and table["preferred_orientation_deg"].isna().all()
    assert (table["p_value"] == 1.0).all() and list(table["num_spikes"]) == [0, 1]


def test_single_spike_proves_nothing() -> None:
    stimuli = shown()
    sorting = NumpySorting.from_unit_dict([{0: np.array([int(1.5 * RATE)])}], RATE)
    table = tuning_table(sorting, stimuli, recording_duration_s=300.0, num_permutations=20)
    assert table.loc[0, "gosi"] == pytest.approx(1.0) and table.loc[0, "p_value"] == 1.0


def test_p_values_come_from_the_seed() -> None:
    orientations = np.tile(EVEN, 5)
    rates = np.random.default_rng(2).poisson(5.0, size=(6, 40)).astype("float64")
    first, again, other = (
        permutation_p_values(rates, orientations, num_permutations=100, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_times_are_those_of_the_recording() -> None:
    """A recording that begins at 100 s, and which the sorting knows."""
    train = (np.array([1.5, 1.6, 4.5]) * RATE).astype("int64")
    sorting = NumpySorting.from_unit_dict([{0: train}], RATE)
    recording = NumpyRecording([np.zeros((int(6 * RATE), 1), dtype="float32")], RATE)
    recording.shift_times(100.0)
    sorting.register_recording(recording)
    stimuli = Stimuli(np.array([101.0, 104.0]), np.array([1.0, 2.0]), np.array([0.0, 90.0]))
    np.testing.assert_allclose(trial_rates(sorting, stimuli), [[2.0, 0.5]])
    late = Stimuli(np.array([101.0, 105.0]), np.array([1.0, 2.0]), np.array([0.0, 90.0]))
    with pytest.raises(ValueError, match="Trial 1 lies outside .* 105 s to 107 s, the recording from 100 s to 106 s"):
        trial_rates(sorting, late)


@pytest.mark.parametrize(
    ("onsets", "durations", "orientations", "message"),
    [
        ([], [], [], "no trials"),
        ([1.0, 2.0], [1.0, 1.0], [0.0], "one length"),
        ([1.0, 2.0], [1.0], [0.0, 90.0], "one length"),
        ([1.0, np.nan], [1.0, 1.0], [0.0, 90.0], "Trial 1 has no onset"),
        ([1.0, 2.0], [1.0, 0.0], [0.0, 90.0], "Trial 1 lasts 0.0 s"),
        ([1.0, 2.0], [1.0, np.nan], [0.0, 90.0], "Trial 1 lasts nan s"),
        ([1.0, 2.0], [1.0, 1.0], [0.0, 361.0], "361.0 degrees"),
        ([1.0, 2.0], [1.0, 1.0], [-45.0, 0.0], "-45.0 degrees"),
    ],
)
def test_impossible_trials(onsets: list, durations: list, orientations: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stimuli(np.array(onsets), np.array(durations), np.array(orientations))


def test_what_cannot_be_told() -> None:
    sorting = NumpySorting.from_unit_dict([{0: np.array([100, 200])}], RATE)
    orthogonal = Stimuli(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([0.0, 90.0]))
    with pytest.raises(ValueError, match="Trial 1 lies outside"):
        trial_rates(sorting, orthogonal, recording_duration_s=2.5)
    with pytest.raises(ValueError, match="Trial 0 lies outside"):
        trial_rates(sorting, Stimuli(np.array([-0.5]), np.array([1.0]), np.array([0.0])), recording_duration_s=2.5)
    with pytest.raises(ValueError, match="no blank trial"):
        trial_rates(sorting, orthogonal, baseline="blank", recording_duration_s=3.0)
    with pytest.raises(ValueError, match="before trial 1 reach into another"):
        trial_rates(sorting, orthogonal, baseline="prestimulus", recording_duration_s=3.0)
    with pytest.raises(ValueError, match="before trial 0 lies outside"):
        trial_rates(sorting, orthogonal, baseline="prestimulus", prestimulus_s=1.5, recording_duration_s=3.0)
    with pytest.raises(ValueError, match="prestimulus_s must be larger"):
        trial_rates(sorting, orthogonal, baseline="prestimulus", prestimulus_s=0.0, recording_duration_s=3.0)
    with pytest.raises(ValueError, match="one of .* not 'mean'"):
        trial_rates(sorting, orthogonal, baseline="mean")
    opposite = Stimuli(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([0.0, 180.0]))
    with pytest.raises(ValueError, match="at least two"):
        tuning_table(sorting, opposite, recording_duration_s=3.0)
    with pytest.raises(ValueError, match="no trials but blank"):
        orientation_rates(np.ones((1, 2)), np.full(2, np.nan))
    with pytest.raises(ValueError, match="are not of"):
        orientation_rates(np.ones((1, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="at least 1"):
        permutation_p_values(np.ones((1, 2)), np.array([0.0, 90.0]), num_permutations=0)
    two_segments = NumpySorting.from_unit_dict([{0: np.array([1])}, {0: np.array([2])}], RATE)
    with pytest.raises(ValueError, match="2 segments"):
        trial_rates(two_segments, orthogonal)


def test_warns_of_uneven_orientations(caplog: pytest.LogCaptureFixture) -> None:
    stimuli = Stimuli(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([0.0, 45.0]))
    sorting = NumpySorting.from_unit_dict([{0: np.array([12000, 22000])}], RATE)
    with caplog.at_level(logging.WARNING):
        table = tuning_table(sorting, stimuli, num_permutations=5)
    assert "an index of 0.71" in caplog.text and "how long the recording was" in caplog.text
    assert table.loc[0, "gosi"] == pytest.approx(np.sqrt(0.5))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stimuli = shown(num_blank=5)
    sorting = sorting_of([von_mises(stimuli.orientations_deg, preferred=45.0), np.full(125, 20.0)], stimuli)
    columns = {
        "onset_s": stimuli.onsets_s,
        "duration_s": stimuli.durations_s,
        "orientation_deg": stimuli.orientations_deg,
    }
    csv = tmp_path / "stimuli.csv"
    pd.DataFrame(columns).to_csv(csv, index=False)
    np.testing.assert_array_equal(read_stimuli(csv).orientations_deg, stimuli.orientations_deg)

    sorting.save(folder=tmp_path / "sorted" / "sorting")
    NpzSortingExtractor.write_sorting(sorting, tmp_path / "sorting.npz")
    tables = []
    for path in (tmp_path / "sorted", tmp_path / "sorted" / "sorting", tmp_path / "sorting.npz"):
        output = tmp_path / "out" / "tuning.csv"
        arguments = ["--output", str(output), "--num-permutations", "50", "--baseline", "blank"]
        assert main([str(path), str(csv), *arguments]) == 0
        assert "2 units, 1 of them tuned" in capsys.readouterr().out
        tables.append(pd.read_csv(output))
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])
    assert distance_deg(tables[0]["preferred_orientation_deg"].to_numpy()[0], 45.0) < 10.0


def test_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sorting = NumpySorting.from_unit_dict([{0: np.array([100])}], RATE)
    sorting.save(folder=tmp_path / "sorting")
    csv = tmp_path / "stimuli.csv"

    def fails(path: Path, content: str) -> str:
        csv.write_text(content)
        with pytest.raises(SystemExit, match="2"):
            main([str(path), str(csv), "--output", str(tmp_path / "tuning.csv")])
        return capsys.readouterr().err

    assert "lacks the columns ['duration_s']" in fails(tmp_path / "sorting", "onset_s,orientation_deg\n1,0\n")
    assert "else than numbers" in fails(tmp_path / "sorting", "onset_s,duration_s,orientation_deg\n1,1,up\n")
    assert "is empty" in fails(tmp_path / "sorting", "")
    assert "no trials" in fails(tmp_path / "sorting", "onset_s,duration_s,orientation_deg\n")
    content = "onset_s,duration_s,orientation_deg\n1,1,0\n2,1,90\n"
    assert "no folder" in fails(tmp_path / "nothing", content)
    assert "no file" in fails(tmp_path / "nothing.npz", content)
    assert not (tmp_path / "tuning.csv").exists()


def test_recording_is_no_sorting(tmp_path: Path) -> None:
    NumpyRecording([np.zeros((100, 1), dtype="float32")], RATE).save(folder=tmp_path / "recording", verbose=False)
    with pytest.raises(ValueError, match="no sorting but a"):
        load_sorting(tmp_path / "recording")
