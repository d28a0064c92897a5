"""The report as a page: what it tells, that no sorting is too odd for it, and how it behaves in a browser."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from PIL import Image
from spikeinterface.core import (
    BaseRecording,
    NumpyRecording,
    NumpySorting,
    create_sorting_analyzer,
)

from spikeinterface_simsort import group_sections, pipeline, report
from spikeinterface_simsort.cli import main
from spikeinterface_simsort.html_page import Column, GroupSection, UnitCard, render_page
from spikeinterface_simsort.html_report import write_html_report
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.sorted_units import SourceError, open_units
from spikeinterface_simsort.unit_pictures import high_pass
from spikeinterface_simsort.workers import map_in_workers

RATE = 10000.0


def make_units(
    *, num_units: int, num_channels: int = 4, durations: tuple[float, ...] = (3.0,), num_spikes: int = 25
) -> tuple[NumpyRecording, NumpySorting]:
    """Noise of 5 uV and units of 100 uV, each largest on a channel of its own; gain 1, no probe."""
    rng = np.random.default_rng(0)
    traces, trains = [], []
    for duration in durations:
        segment = 5.0 * rng.normal(size=(int(duration * RATE), num_channels))
        train = {}
        for unit in range(num_units):
            train[unit] = 20 + np.sort(rng.choice(len(segment) // 20 - 5, num_spikes, replace=False)) * 20
            for sample in train[unit]:
                segment[sample - 4 : sample + 5, unit % num_channels] -= 100.0 * np.hanning(9)
        traces.append(segment.astype("float32"))
        trains.append(train)
    recording = NumpyRecording(traces, RATE)
    recording.set_channel_gains(1.0)
    recording.set_channel_offsets(0.0)
    return recording, NumpySorting.from_unit_dict(trains, RATE)


def text_of(page: Path | str) -> str:
    """What is read on a page, without its pictures and program."""
    html = page if isinstance(page, str) else page.read_text(encoding="utf-8")
    html = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.replace("&nbsp;", " ")))


def rows_of(page: Path) -> list[list[str]]:
    table = re.search(r"<tbody>(.*?)</tbody>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    return [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", row)]
        for row in re.findall(r"<tr>.*?</tr>", table[1])
    ]


def heads_of(page: Path) -> list[str]:
    return re.findall(r"<th [^>]*>(.*?)<button", page.read_text(encoding="utf-8"))


def pictures_of(page: Path) -> list[str]:
    return re.findall(r'<img [^>]*alt="([^"]*)"', page.read_text(encoding="utf-8"))


# What it tells


def test_page_of_units_with_labels(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=3)
    for name, values in (
        ("snr", [5.0, 19.5, 7.0]),
        ("predicted_accuracy", [0.31, 0.96, 0.8]),
        ("quality", ["noise", "good", ""]),
        ("bombcell", ["good", "mua", "mua"]),
        ("main_channel_id", ["a", "b", "c"]),
    ):
        sorting.set_property(name, np.array(values))
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording, title="rat 1")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    text = text_of(page)
    assert "rat 1 3 units, 75 spikes in 3 s" in text
    assert "3 s, 4 channels in 1 group, 10000 Hz, float32" in text
    assert "quality: noise 1 good 1" in text and "bombcell: mua 2 good 1" in text
    heads = ["unit", "channel", "quality", "bombcell", "predicted accuracy", "spikes", "rate (Hz)", "SNR"]
    assert heads_of(page) == [*heads, "ISI &lt; 1.5 ms"]
    assert rows_of(page)[1] == ["1", "b", "good", "mua", "0.96", "25", "8.33", "19.5", "0.00%"]
    assert rows_of(page)[2][2] == "–"
    assert "25 spikes · 8.33 Hz · SNR 19.5 · predicted accuracy 0.96 · channel b" in text
    assert len(pictures_of(page)) == 1 + 3
    # The other units' sorting is somebody else's.
    assert sorting.get_property("snr").tolist() == [5.0, 19.5, 7.0]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=1)
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording)
    image = r'<img width="(\d+)" height="(\d+)" [^>]*alt="unit 0[^"]*" src="data:image/png;base64,([^"]*)"'
    [(width, height, source)] = re.findall(image, page.read_text())
    picture = Image.open(io.BytesIO(base64.b64decode(source)))
    assert picture.size == (int(width), int(height))
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    # Lighter where a dot lets the paper through.
    blue = (pixels[..., 2] > 150) & (pixels[..., 2] - pixels[..., 0] > 80)
    # Waveforms, autocorrelogram and amplitudes: each third of the picture has some.
    shares = [float(part.mean()) for part in np.array_split(blue, 3, axis=1)]
    assert min(shares) > 5e-4, shares


def test_snr_is_computed_where_it_is_not_known(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=2)
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording)
    place = heads_of(page).index("SNR")
    assert all(10 < float(row[place]) < 25 for row in rows_of(page))


def test_groups_have_sections(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=3, num_channels=6)
    recording.set_property("group", np.array(["left"] * 2 + ["right"] * 4))
    sorting.set_property("group", np.array(["left", "left", "right"]))
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording)
    text = text_of(page)
    assert "Groups, and their units: left (2) right (1)" in text
    assert "Group left 2 units, channels 0, 1" in text and "Group right 1 unit, channels 2, 3, 4, 5" in text
    assert [alt.split(":")[0] for alt in pictures_of(page)] == [
        "Group left",
        "unit 0",
        "unit 1",
        "Group right",
        "unit 2",
    ]


def in_copies(function: Any, jobs: Any, *, num_workers: int) -> Iterator[tuple[Any, Any]]:
    """What processes do, which get copies and give copies, without the time that these take to start."""
    for job in jobs:
        yield job, cloudpickle.loads(cloudpickle.dumps(function(cloudpickle.loads(cloudpickle.dumps(job)))))


@pytest.mark.parametrize("mapped", [in_copies, pytest.param(map_in_workers, marks=pytest.mark.slow)])
def test_groups_are_drawn_in_processes_as_in_one(mapped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_sections, "map_in_workers", mapped)
    recording, sorting = make_units(num_units=2, num_channels=8)
    saved = recording.save(folder=tmp_path / "recording", verbose=False, progress_bar=False)
    saved.set_property("group", np.repeat([0, 1], 4))
    sorting.set_property("group", np.array([0, 1]))
    analyzer = create_sorting_analyzer(sorting, high_pass(saved), sparse=False)
    analyzer.compute(["random_spikes", "waveforms", "templates"])
    for source in (sorting, analyzer):
        pages = [
            write_html_report(source, tmp_path / f"{jobs}.html", recording=saved, n_jobs=jobs, title="x").read_text()
            for jobs in (1, 2)
        ]
        # But for the time at which they were written.
        assert len({re.sub(r"<dt>report</dt><dd>.*?</dd>", "", page) for page in pages}) == 1
        # Of each group the unit, and its plane of components.
        assert pages[0].count("<img ") == 4


# Odd ones


def test_no_units(tmp_path: Path) -> None:
    recording, _ = make_units(num_units=0)
    empty = NumpySorting(NumpySorting.from_unit_dict([{}], RATE).to_spike_vector(), RATE, np.array([], dtype="int64"))
    page = write_html_report(empty, tmp_path / "page.html", recording=recording)
    assert "0 units, 0 spikes in 3 s" in text_of(page) and "No units were found." in text_of(page)
    assert "<table" not in page.read_text() and pictures_of(page) == []


def test_units_without_spikes_and_with_one(tmp_path: Path) -> None:
    recording, _ = make_units(num_units=0)
    none = np.array([], dtype="int64")
    for trains, num_pictures in (({0: np.array([200]), 1: none}, 1), ({0: none, 1: none}, 0)):
        sorting = NumpySorting.from_unit_dict([trains], RATE)
        page = write_html_report(sorting, tmp_path / "page.html", recording=recording)
        assert [row[0] for row in rows_of(page)] == ["0", "1"]
        assert len(pictures_of(page)) == num_pictures
        assert text_of(page).count("No spikes to be shown.") == 2 - num_pictures


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_no_gains_and_no_probe(tmp_path: Path, dtype: str) -> None:
    recording, sorting = make_units(num_units=1)
    bare = NumpyRecording([(recording.get_traces() + (2**15 if dtype == "uint16" else 0)).astype(dtype)], RATE)
    page = write_html_report(sorting, tmp_path / "page.html", recording=bare)
    assert "it has no gains, so nothing is in µV" in text_of(page)
    assert len(pictures_of(page)) == 2 and not bare.has_probe()


def test_segments(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=1, durations=(2.0, 1.0))
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording)
    assert "1 unit, 50 spikes in 3 s in 2 segments" in text_of(page)


def test_many_channels_of_one_group(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=2, num_channels=70)
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording)
    assert "2 units, channels 0, 1, 2, 3, 4, 5, 6, 7, … 69 (70)" in text_of(page)
    assert len(pictures_of(page)) == 3


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=1)
    evil = "<script>alert('\"&</script>"
    named = NumpySorting.from_unit_dict([{evil: sorting.get_unit_spike_train(0)}], RATE)
    named.set_property("quality", np.array([evil]))
    page = write_html_report(named, tmp_path / "page.html", recording=recording, title=evil)
    html = page.read_text()
    assert html.count("<script>") == 1 and "alert('" not in html
    assert html.count("&lt;script&gt;alert(&#x27;&quot;&amp;&lt;/script&gt;") >= 5


def test_what_is_refused(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=2)
    with pytest.raises(SourceError, match="pass recording="):
        write_html_report(sorting, tmp_path / "page.html")
    (tmp_path / "empty").mkdir()
    for source, message in ((tmp_path / "nowhere", "There is no"), (tmp_path / "empty", "nor an analyzer")):
        with pytest.raises(SourceError, match=message):
            write_html_report(source, tmp_path / "page.html", recording=recording)
    other = {"format_version": "2", "unit_ids": [0, 7], "label_definitions": {}, "manual_labels": []}
    (tmp_path / "curation.json").write_text(json.dumps(other))
    with pytest.raises(SourceError, match="cannot be applied to these units"):
        write_html_report(sorting, tmp_path / "page.html", recording=recording, curation=tmp_path / "curation.json")
    assert not (tmp_path / "page.html").exists()


def test_page_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, sorting = make_units(num_units=1)
    (tmp_path / "page.html").write_text("earlier")

    def fail(path: Path, text: str, **kwargs: Any) -> None:
        path.open("w").write(text[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        write_html_report(sorting, tmp_path / "page.html", recording=recording)
    monkeypatch.undo()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "earlier")]


# What it is made from


@pytest.fixture
def quick_sorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that finds the two units of `make_units` at once, and warns; and no picture beside the page."""

    def find(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        logging.getLogger("spikeinterface_simsort.preprocessing").warning("Channel %s is dead.", 3)
        _, sorting = make_units(num_units=2)
        sorting.set_property("snr", np.array([8.0, 4.0]))
        sorting.set_property("group", recording.get_property("group")[[0, 0]])
        return sorting

    monkeypatch.setattr(pipeline, "sort", find)
    monkeypatch.setattr(report, "draw_units", lambda *args, **kwargs: None)


def write_curation(folder: Path, unit_ids: list[int], words: list[str]) -> Path:
    """Labels as `simsort curate` and spikeinterface-gui write them."""
    path = folder / "curation.json"
    labels = [{"unit_id": unit, "labels": {"quality": [word]}} for unit, word in zip(unit_ids, words, strict=True)]
    options = {"name": "quality", "label_options": ["good", "MUA", "noise"], "exclusive": True}
    text = {"format_version": "2", "unit_ids": unit_ids, "label_definitions": {"quality": options}}
    path.write_text(json.dumps({**text, "manual_labels": labels}))
    return path


@pytest.mark.parametrize("group_size", [4, 2])
def test_report_of_a_sort(
    group_size: int, tmp_path: Path, quick_sorter: None, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, _ = make_units(num_units=2)
    recording.save(folder=tmp_path / "session", verbose=False, progress_bar=False)
    output = tmp_path / "out"
    options = ["--group-size", str(group_size), "--n-jobs", "1", "--output", str(output), "-q"]
    assert main(["sort", str(tmp_path / "session"), *options, "--report"]) == 0
    page = output / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    num_groups = 4 // group_size
    text = text_of(page)
    assert f"session {2 * num_groups} units" in text
    assert f"3 s, 4 channels in {num_groups} group" in text
    assert "sorted by simsort " in text and "min_spikes" in text
    assert text.count("WARNING Channel 3 is dead.") == num_groups
    assert len(pictures_of(page)) == 3 * num_groups

    # Later, with labels, into a page of another name; and the output can still be replaced.
    write_curation(output, list(range(2 * num_groups)), ["good", "MUA"] * num_groups)
    assert main(["report", str(output), "--output", str(tmp_path / "labelled.html"), "--title", "mouse"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'labelled.html'}\n"
    labelled = text_of(tmp_path / "labelled.html")
    assert f"quality: good {num_groups} MUA {num_groups}" in labelled and "mouse" in labelled
    (output / "curation.json").unlink()
    assert main(["sort", str(tmp_path / "session"), *options, "--overwrite"]) == 0
    assert not page.exists()


def test_report_of_a_recording_that_was_moved(
    tmp_path: Path, quick_sorter: None, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, _ = make_units(num_units=2)
    recording.save(folder=tmp_path / "session", verbose=False, progress_bar=False)
    output = tmp_path / "out"
    assert main(["sort", str(tmp_path / "session"), "--group-size", "4", "--output", str(output), "-q"]) == 0
    shutil.move(tmp_path / "session", tmp_path / "archive")
    capsys.readouterr()
    assert main(["report", str(output)]) == 1
    assert "cannot be read" in (message := capsys.readouterr().err) and "--recording" in message
    assert not (output / "report.html").exists()
    assert main(["report", str(output), "--recording", str(tmp_path / "archive")]) == 0
    assert len(pictures_of(output / "report.html")) == 3


def test_failed_groups_are_told(tmp_path: Path, quick_sorter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    find = pipeline.sort

    def fail_on_the_second(recording: BaseRecording, *, params: SimSortParams) -> NumpySorting:
        if recording.get_property("group")[0] == 1:
            raise ValueError("It is raining.")
        return find(recording, params=params)

    monkeypatch.setattr(pipeline, "sort", fail_on_the_second)
    recording, _ = make_units(num_units=2)
    recording.save(folder=tmp_path / "session", verbose=False, progress_bar=False)
    output = tmp_path / "out"
    options = ["--group-size", "2", "--n-jobs", "1", "--output", str(output), "-q", "--report"]
    assert main(["sort", str(tmp_path / "session"), *options]) == 1
    assert "Group 1 could not be sorted: It is raining." in text_of(output / "report.html")
    assert len(pictures_of(output / "report.html")) == 3


@pytest.mark.parametrize("format", ["binary_folder", "zarr"])
def test_report_of_an_analyzer(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, sorting = make_units(num_units=2)
    recording.set_dummy_probe_from_locations(np.stack([np.zeros(4), 20.0 * np.arange(4)], 1))
    saved = recording.save(folder=tmp_path / "session", verbose=False, progress_bar=False)
    folder = tmp_path / ("units.zarr" if format == "zarr" else "units")
    analyzer = create_sorting_analyzer(sorting, saved, folder=folder, format=format, sparse=False, verbose=False)
    analyzer.compute(["random_spikes", "templates", "noise_levels"])
    analyzer.compute("quality_metrics", metric_names=["snr"])
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert main(["report", str(folder), "-q"]) == 0
    page = tmp_path / "units_report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert [float(row[heads_of(page).index("SNR")]) > 8 for row in rows_of(page)] == [True, True]
    assert len(pictures_of(page)) == 3
    # What is somebody else's stays as it was.
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    # Without its recording, what is stored is shown.
    shutil.rmtree(tmp_path / "session")
    assert main(["report", str(folder), "-q"]) == 0
    assert len(pictures_of(page)) == 3


def test_analyzer_that_holds_nothing(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=1)
    recording.set_dummy_probe_from_locations(np.stack([np.zeros(4), 20.0 * np.arange(4)], 1))
    analyzer = create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer._recording = None
    with pytest.raises(ValueError, match="holds no templates"):
        write_html_report(analyzer, tmp_path / "page.html")
    page = write_html_report(analyzer, tmp_path / "page.html", recording=recording)
    assert len(pictures_of(page)) == 2


def test_pickles_of_an_analyzer_are_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "recording.pickle").write_bytes(b"cos\nsystem\n")
    assert main(["report", str(tmp_path / "units")]) == 1
    assert "holds a pickle (recording.pickle)" in capsys.readouterr().err


def test_merged_and_removed_units(tmp_path: Path) -> None:
    recording, sorting = make_units(num_units=4)
    path = tmp_path / "curation.json"
    text = {"format_version": "2", "unit_ids": [0, 1, 2, 3], "removed": [3], "merges": [{"unit_ids": [0, 1]}]}
    path.write_text(json.dumps(text))
    units = open_units(sorting, recording=recording, curation=path)
    assert units.sorting.unit_ids.tolist() == [2, 3] and units.sorting.count_total_num_spikes() == 75
    page = write_html_report(sorting, tmp_path / "page.html", recording=recording, curation=path)
    assert [row[0] for row in rows_of(page)] == ["2", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "There is no"),
        ([".", "--output", "page.pdf"], "let it end in .html"),
        ([".", "--output", "nowhere/page.html"], "There is no folder"),
        ([".", "--recording", "nowhere"], "There is no nowhere"),
    ],
)
def test_command_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the distribution, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium, for example Debian's: apt-get install chromium")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def make_page(folder: Path, *, num_units: int, num_groups: int) -> Path:
    """A page with as many units as are wanted, and a picture that is the same for all."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.new("RGB", (1144, 192), "white").save(file, "PNG")
    unit_ids = list(range(num_units))
    cards = [
        UnitCard(
            unit_id=unit, facts=["10 spikes"], labels=["good"], colour="#0072B2", marker="o", picture=file.getvalue()
        )
        for unit in unit_ids
    ]
    accuracies: list[Any] = [round(float(value), 3) for value in rng.uniform(size=num_units)]
    accuracies[1] = None
    html = render_page(
        title="many units",
        headline=f"{num_units} units",
        facts={"recording": "60 s"},
        parameters={"min_spikes": 20},
        warnings=["Channel 3 is dead."],
        unit_ids=unit_ids,
        columns=[
            Column(title="quality", values=list(rng.choice(["good", "MUA", "noise"], num_units)), is_label=True),
            Column(title="predicted accuracy", values=accuracies, form=".2f"),
            Column(title="spikes", values=[int(value) for value in rng.integers(1, 100000, num_units)], form=","),
        ],
        sections=[
            GroupSection(name=str(group), channel_ids=[group], overview=b"", cards=cards[group::num_groups])
            for group in range(num_groups)
        ],
        note="",
    )
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def column(page: Any, place: int) -> list[str]:
    return page.eval_on_selector_all(f"tbody td:nth-child({place})", "cells => cells.map(cell => cell.innerText)")


def test_in_a_browser(browser: Any, tmp_path: Path) -> None:
    path = make_page(tmp_path, num_units=200, num_groups=8)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    requests: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    page.goto(path.as_uri())
    # Nothing but the page itself; pictures are parts of it.
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    broken = page.eval_on_selector_all("img", "all => all.filter(one => !one.complete || !one.naturalWidth).length")
    assert broken == 0 and page.locator("img").count() == 200
    # It is not wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    # Numbers: the largest first, then the smallest; what is not known stays last.
    spikes = [int(text.replace(",", "")) for text in column(page, 4)]
    head = page.get_by_role("button", name="sort by spikes")
    head.click()
    assert [int(text.replace(",", "")) for text in column(page, 4)] == sorted(spikes, reverse=True)
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("spikes")
    head.click()
    assert [int(text.replace(",", "")) for text in column(page, 4)] == sorted(spikes)
    page.get_by_role("button", name="sort by predicted accuracy").click()
    accuracies = column(page, 3)
    assert accuracies[-1] == "–" and accuracies[:-1] == sorted(accuracies[:-1], reverse=True)
    page.get_by_role("button", name="sort by predicted accuracy").click()
    assert column(page, 3)[-1] == "–"
    # Words from A to Z, and back to the order of the units, of which none was lost.
    page.get_by_role("button", name="sort by quality").click()
    words = column(page, 2)
    assert words == sorted(words, key=str.lower)
    page.get_by_role("button", name="sort by unit").click()
    assert column(page, 1) == [str(unit) for unit in range(200)]

    # From a row to its pictures, and back.
    page.get_by_role("link", name="123", exact=True).click()
    top = page.eval_on_selector("#unit-123", "unit => unit.getBoundingClientRect().top")
    assert 0 <= top < 900
    assert page.eval_on_selector("#unit-123", "unit => unit.innerText").startswith("unit 123")
    assert page.screenshot(path=tmp_path / "page.png") and Image.open(tmp_path / "page.png").size == (1280, 900)
    assert troubles == []
    page.close()


def test_in_print(browser: Any, tmp_path: Path) -> None:
    path = make_page(tmp_path, num_units=20, num_groups=2)
    page = browser.new_page()
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    # Its text is the head's own, so that it is repeated on each sheet.
    assert page.locator("th").first.evaluate("head => head.firstChild.nodeValue") == "unit"
    assert page.get_by_role("button").count() == 0
    printed = page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and 2 <= printed.count(b"/Type /Page\n") <= 12
    # What was folded is printed, too.
    assert page.eval_on_selector("details", "part => part.open")
    page.close()
