"""The page of `simsort annotate`, in a browser: a person presses keys, closes it, and goes on."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting

from spikeinterface_simsort.curation.metrics import make_analyzer

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What a page takes on a busy machine, where the views compile themselves when they are first opened.
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    pytest.importorskip("spikeinterface_gui", reason="needs the extra [annotation]")
    pytest.importorskip("panel", reason="needs the extra [annotation]")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def analyzer(trial: tuple[BaseRecording, BaseSorting], tmp_path: Path) -> Path:
    """Folder of the trial's four neurons and six units of spikes at random times."""
    recording, truth = trial
    rng = np.random.default_rng(0)
    times = {f"n{unit}": truth.get_unit_spike_train(unit) for unit in truth.unit_ids}
    last = recording.get_num_samples() - 100
    times |= {f"r{number}": np.sort(rng.choice(np.arange(100, last), 150, replace=False)) for number in range(6)}
    sorting = NumpySorting.from_unit_dict([times], recording.get_sampling_frequency())
    make_analyzer(recording, sorting.save(folder=tmp_path / "sorting"), folder=tmp_path / "analyzer")
    return tmp_path / "analyzer"


class Server:
    """`simsort annotate` in a process of its own."""

    def __init__(self, analyzer: Path, *, labels: Path, log: Path) -> None:
        command = [sys.executable, "-m", "spikeinterface_simsort.cli", "annotate", str(analyzer), "--no-browser"]
        with log.open("w") as file:
            self.process = subprocess.Popen([*command, "--labels", str(labels)], stderr=file, stdout=file)
        self._log = log
        self.url = wait_for(self._find_url)

    def _find_url(self) -> str | None:
        text = self._log.read_text()
        assert self.process.poll() is None, text
        found = re.search(r"Open (http://\S+/)", text)
        return found.group(1) if found else None

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def serve(analyzer: Path, tmp_path: Path) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def start() -> Server:
        number = len(servers)
        servers.append(Server(analyzer, labels=tmp_path / "labels.json", log=tmp_path / f"server_{number}.log"))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()


def wait_for(look: Callable[[], Any], *, seconds: float = PATIENCE_S) -> Any:
    """What `look` gives, once that is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)
    return found


def read_labels(path: Path) -> dict[str, str]:
    entries = json.loads(path.read_text())["manual_labels"] if path.exists() else []
    return {entry["unit_id"]: entry["labels"]["quality"][0] for entry in entries}


class Page:
    """What a person sees and does."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page(viewport={"width": 1680, "height": 950})
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.foreign: list[str] = []
        self.page.route("**/*", self._only_from_here)
        self.page.goto(url)
        self._wait_for_keys()

    def _wait_for_keys(self) -> None:
        """A person sees a unit before she presses a key; the text is there sooner."""
        self.page.wait_for_selector(".listens-to-keys:not([data-unit=''])", state="attached")

    def reload(self) -> None:
        self.page.reload()
        self._wait_for_keys()

    def _only_from_here(self, route: Any) -> None:
        if route.request.url.startswith(("http://localhost:", "data:", "blob:")):
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()

    def shown(self) -> str:
        # The heading is there before its text.
        return wait_for(lambda: self.page.inner_text("#shown").split()[1:2])[0]

    def progress(self) -> str:
        return self.page.inner_text("#progress")


def test_labels_are_given_by_keys_and_survive(
    browser: Any, serve: Callable[[], Server], analyzer: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.json"
    server = serve()
    page = Page(browser, server.url)
    expected: dict[str, str] = {}
    for key, label in (("g", "good"), ("m", "MUA"), ("n", "noise"), ("u", "unsure")):
        unit = page.shown()
        assert unit not in expected
        page.page.keyboard.press(key)
        expected[unit] = label
        wait_for(lambda: read_labels(path) == expected)
        wait_for(lambda unit=unit: page.shown() != unit)
    wait_for(lambda: page.progress().startswith("4 of 10 units labelled"))

    # The last one was a mistake; and a button does what its key does.
    page.page.keyboard.press("Backspace")
    taken_back = [*expected][-1]
    del expected[taken_back]
    wait_for(lambda: read_labels(path) == expected)
    wait_for(lambda: page.shown() == taken_back)
    page.page.click("text=noise (n)")
    expected[taken_back] = "noise"
    wait_for(lambda: read_labels(path) == expected)

    # Arrows show another unit, and keys are for the one that is shown.
    wait_for(lambda: page.shown() != taken_back)
    first = page.shown()
    page.page.keyboard.press("ArrowRight")
    wait_for(lambda: page.shown() != first)
    second = page.shown()
    page.page.keyboard.press("g")
    expected[second] = "good"
    wait_for(lambda: read_labels(path) == expected)

    # What is typed into a field of spikeinterface-gui labels nothing.
    page.page.locator("input[type=text], input[type=search], input:not([type])").first.press("m")
    time.sleep(1.0)
    assert read_labels(path) == expected

    # All views are there, and nothing comes from the internet.
    for view in ("waveform", "correlogram", "unitlist", "spikeamplitude", "ndscatter", "trace"):
        assert page.page.get_by_text(view, exact=True).count() > 0, view
    assert page.foreign == []
    wait_for(lambda: page.progress().startswith("5 of 10 units labelled"))
    page.page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000

    page.reload()
    wait_for(lambda: page.progress().startswith("5 of 10 units labelled"))
    after_reload = page.shown()
    assert after_reload not in expected

    # A crash: no time to tidy up.
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    page.page.close()
    assert read_labels(path) == expected
    server = serve()
    page = Page(browser, server.url)
    wait_for(lambda: page.progress().startswith("5 of 10 units labelled"))
    assert page.shown() == after_reload

    # Of two pages only the one that was opened last labels.
    other = Page(browser, server.url)
    wait_for(lambda: other.progress().startswith("5 of 10 units labelled"))
    page.page.keyboard.press("g")
    page.page.wait_for_selector("text=opened in another page")
    assert read_labels(path) == expected
    other.page.keyboard.press("n")
    expected[after_reload] = "noise"
    wait_for(lambda: read_labels(path) == expected)

    # While it is open, nobody else writes the same file.
    second_run = subprocess.run(
        [sys.executable, "-m", "spikeinterface_simsort.cli", "annotate", str(analyzer), "--labels", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert second_run.returncode == 1
    assert "is being annotated by another process" in second_run.stderr
    # Ctrl-C is how it is meant to end.
    assert server.stop(signal.SIGINT) == 0
