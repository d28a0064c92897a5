"""The benchmark's figures: that they are drawn of whatever the tables hold, and colours that stay."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from benchmarks import plots
from benchmarks.catalogue import Dataset, save_dataset
from benchmarks.peers import ORACLES, PEERS
from benchmarks.recordings import sorting_of
from benchmarks.runs import RESULT_FILE, run_folder
from benchmarks.spike_file import write_spikes
from benchmarks.tables import OURS
from benchmarks.worker import SPIKES_FILE

SORTERS = (OURS, "kilosort4", "mountainsort5", "a sorter to come", *ORACLES)


def make_tables(sorters: tuple[str, ...], *, num: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units and recordings of two families, all runs gone well."""
    rng = np.random.default_rng(0)
    units, recordings = [], []
    for family in ("bbp_l6", "waveclus_difficult"):
        for dataset in range(num):
            snr = rng.uniform(3.0, 30.0, 4)
            for sorter in sorters:
                accuracy = rng.uniform(0.0, 1.0, len(snr))
                names = {"family": family, "dataset": str(dataset), "sorter": sorter}
                for delta_ms in (1.0, 0.4):
                    units.append(pd.DataFrame({"snr": snr, "accuracy": accuracy, "delta_ms": delta_ms, **names}))
                size = {"seconds": rng.uniform(1.0, 90.0), "peak_mb": rng.uniform(300.0, 900.0)}
                recordings.append({**names, "status": "ok", "accuracy_1.0ms": accuracy.mean(), **size})
    return pd.concat(units, ignore_index=True), pd.DataFrame(recordings)


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that are written, as they are."""
    written = []
    save = plots.save_figure

    def keep(figure: Figure, path: Path, *, dpi: float) -> None:
        written.append(figure)
        save(figure, path, dpi=dpi)

    monkeypatch.setattr(plots, "save_figure", keep)
    return written


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    parts: list[Any] = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(part.get_text() for part in parts if part.get_visible())


def test_colours_stay() -> None:
    every = [*PEERS, *ORACLES]
    colours, markers = plots.sorter_colours(every), plots.sorter_markers(every)
    for sorter in every:
        assert plots.sorter_colours([sorter]) == {sorter: colours[sorter]}
    assert plots.sorter_colours(["new", OURS])["new"] == plots.sorter_colours(["new"])["new"]
    # Nobody looks like another, and nobody has this sorter's colour.
    looks = [(colours[sorter], markers[sorter]) for sorter in every]
    assert len(set(looks)) == len(every)
    assert [sorter for sorter in every if colours[sorter] == colours[OURS]] == [OURS]
    assert colours[OURS] not in plots.PALETTE


@pytest.mark.parametrize("sorters", [SORTERS, (OURS,), ("kilosort4",)])
def test_figures_of_tables(sorters: tuple[str, ...], tmp_path: Path, figures: list[Figure]) -> None:
    units, recordings = make_tables(sorters)
    plots.accuracy_by_family(recordings, tmp_path / "new" / "family.png")
    plots.accuracy_against_snr(units, tmp_path / "snr.png")
    plots.time_and_memory(recordings, tmp_path / "time.png")
    assert all(is_picture(path) for path in (tmp_path / "new" / "family.png", tmp_path / "snr.png"))
    family, snr, time = map(texts, figures)
    assert "accuracy (share of spikes, 0 to 1), spikes within 1 ms" in family and "bbp_l6 (3 recordings)" in family
    assert "noise levels" in snr and "0 to 1" in snr and f"{sorters[0]} (24 units)" in snr
    assert "(s)" in time and "(MB)" in time
    for sorter in sorters:
        assert (sorter in family) == (sorter in time) == (sorter not in ORACLES)
    assert ("oracle" in family) == ("oracle-identity" in sorters)
    # Pictures of a README are shown 900 pixels wide.
    assert figures[0].get_figwidth() == figures[2].get_figwidth() == 9.0


def test_runs_that_went_wrong(tmp_path: Path, figures: list[Figure]) -> None:
    units, recordings = make_tables(SORTERS)
    is_kilosort = recordings["sorter"] == "kilosort4"
    recordings.loc[is_kilosort, ["status", "accuracy_1.0ms", "seconds"]] = ["failed", 0.0, np.nan]
    late = recordings.index[recordings["sorter"] == "mountainsort5"][0]
    recordings.loc[late, ["status", "accuracy_1.0ms", "seconds", "peak_mb"]] = ["timeout", 0.0, 1800.0, np.nan]
    missing = {"family": "bbp_l6", "dataset": "0", "sorter": "kilosort", "status": "missing"}
    recordings = pd.concat([recordings, pd.DataFrame([missing])], ignore_index=True)
    # A truth without SNR, and a unit of which nothing is known.
    units.loc[units["family"] == "waveclus_difficult", "snr"] = np.nan
    units.loc[0, "accuracy"] = np.nan
    plots.accuracy_by_family(recordings, tmp_path / "family.png")
    plots.accuracy_against_snr(units, tmp_path / "snr.png")
    plots.time_and_memory(recordings, tmp_path / "time.png")
    family, snr, time = map(texts, figures)
    assert "3 of 3 failed" in family and "1 of 3 failed" in family and "kilosort\n" not in family
    assert f"{OURS} (11 units)" in snr and "kilosort4 (12 units)" in snr
    assert "kilosort4 (6 failed)" in time and "mountainsort5 (1 failed)" in time
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("family", "snr", "time"))


def test_nothing_to_draw(tmp_path: Path) -> None:
    units, recordings = make_tables((OURS,))
    missing = recordings[["family", "dataset", "sorter"]].assign(status="missing")
    with pytest.raises(ValueError, match="no sorter has a score"):
        plots.accuracy_by_family(missing, tmp_path / "none.png")
    with pytest.raises(ValueError, match="no sorter has run"):
        plots.time_and_memory(missing, tmp_path / "none.png")
    with pytest.raises(ValueError, match="SNR"):
        plots.accuracy_against_snr(units.assign(snr=np.nan), tmp_path / "none.png")
    # None of them ended, but they did run.
    plots.time_and_memory(recordings.assign(status="failed", seconds=np.nan), tmp_path / "failed.png")
    assert is_picture(tmp_path / "failed.png")


@pytest.mark.parametrize(("num", "num_bins"), [(0, 0), (1, 1), (9, 1), (10, 2), (500, 8)])
def test_binned_means(num: int, num_bins: int) -> None:
    x = np.random.default_rng(0).permutation(np.arange(float(num)))
    bins = plots.binned_means(x, 2.0 * x)
    assert len(bins) == num_bins and bins["num"].sum() == num
    assert bins["x"].is_monotonic_increasing
    # The medians of whole numbers in a row are their means.
    np.testing.assert_allclose(bins["mean"], 2.0 * bins["x"])
    assert bins["sem"].isna().all() == (num <= 1)


def test_agreement_is_ordered_by_snr(trial: tuple[BaseRecording, BaseSorting]) -> None:
    truth = trial[1].clone()
    truth.set_property("snr", [3.0, 9.0, 5.0, 7.0])
    trains = {f"found {unit}": truth.get_unit_spike_train(unit) for unit in truth.unit_ids}
    # Half of unit 1, and none of unit 0.
    trains["found 1"] = trains["found 1"][::2]
    del trains["found 0"]
    noise = np.sort(np.random.default_rng(0).integers(0, 600_000, 50))
    rate = truth.get_sampling_frequency()
    scores = plots.agreement(truth, NumpySorting.from_unit_dict([{"noise": noise, **trains}], rate))
    assert list(scores.index) == [1, 3, 2, 0]
    assert list(scores.columns) == ["found 1", "found 3", "found 2", "noise"]
    np.testing.assert_allclose(np.diag(scores)[:3], [0.5, 1.0, 1.0], atol=0.02)
    few = plots.agreement(truth, NumpySorting.from_unit_dict([{"found 2": trains["found 2"]}], rate))
    assert list(few.columns) == ["found 2"] and few.loc[2, "found 2"] == 1.0
    empty = plots.agreement(truth, sorting_of({}, rate=rate))
    assert empty.shape == (4, 0)


@pytest.fixture(scope="module")
def results(trial: tuple[BaseRecording, BaseSorting], tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """A recording and runs on it: one that found all, one that found nothing, one that failed."""
    folder = tmp_path_factory.mktemp("results")
    dataset = save_dataset(folder / "data", family="bbp_l6", name="0", recording=trial[0], truth=trial[1])
    runs = folder / "runs"
    nothing = sorting_of({}, rate=trial[1].get_sampling_frequency())
    for sorter, status, sorting in ((OURS, "ok", trial[1]), ("lupin", "ok", nothing), ("kilosort4", "failed", nothing)):
        target = run_folder(dataset, sorter, folder=runs)
        target.mkdir(parents=True)
        write_spikes(target / SPIKES_FILE, sorting)
        (target / RESULT_FILE).write_text(json.dumps({"status": status}), encoding="utf8")
    return dataset, runs


@pytest.mark.parametrize("sorters", [(OURS,), ("lupin",), ("lupin", "kilosort4", "simple", OURS, "herdingspikes", "x")])
def test_agreement_matrices(
    results: tuple[Dataset, Path], sorters: tuple[str, ...], tmp_path: Path, figures: list[Figure]
) -> None:
    dataset, runs = results
    plots.agreement_matrices(dataset, sorters, runs_folder=runs, path=tmp_path / "agreement.png")
    assert is_picture(tmp_path / "agreement.png")
    written = texts(figures[0])
    assert "true unit" in written and "found unit" in written
    assert (f"{OURS}: 4 found" in written) == ("agreement (0 to 1), spikes within 1 ms" in written) == (OURS in sorters)
    assert ("lupin: 0 found" in written) == ("no units" in written) == ("lupin" in sorters)
    assert ("failed" in written) == ("not run" in written) == ("kilosort4" in sorters)
    with pytest.raises(ValueError, match="no sorter"):
        plots.agreement_matrices(dataset, [], runs_folder=runs, path=tmp_path / "none.png")


def test_main_draws_all(
    results: tuple[Dataset, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    dataset, runs = results
    units, recordings = make_tables((OURS, "lupin", "kilosort4"), num=2)
    units.to_csv(tmp_path / "units.csv", index=False)
    recordings.to_csv(tmp_path / "recordings.csv", index=False)
    options = ["--results", str(tmp_path), "--data", str(dataset.folder.parents[1]), "--runs", str(runs)]
    output = tmp_path / "out"
    assert plots.main([*options, "--output", str(output)]) == 0
    names = {"accuracy_by_family", "accuracy_against_snr", "time_and_memory", "agreement_bbp_l6_0"}
    assert {path.stem for path in output.iterdir()} == names
    written = capsys.readouterr().out
    assert all(str(output / f"{name}.png") in written for name in names)
    # Of the other family there is no recording here.
    assert "waveclus_difficult/0 is not drawn" in caplog.text
    assert plots.main([*options, "--output", str(tmp_path / "one"), "--dataset", "bbp_l6/0"]) == 0
    assert (tmp_path / "one" / "agreement_bbp_l6_0.png").exists()
    with pytest.raises(SystemExit):
        plots.main([*options, "--output", str(output), "--dataset", "bbp_l6/17"])
    with pytest.raises(SystemExit):
        plots.main(["--results", str(tmp_path / "nowhere")])
