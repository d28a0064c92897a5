"""The page on which a person labels units: spikeinterface-gui in its web mode, beside a queue of units."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import panel as pn
from spikeinterface_gui import run_mainwindow, utils_panel

from spikeinterface_simsort.curation.annotation_run import AnnotationRun
from spikeinterface_simsort.curation.queue_view import QueueView
from spikeinterface_simsort.curation.shortcuts import Shortcuts

if TYPE_CHECKING:
    from spikeinterface.core import SortingAnalyzer

logger = logging.getLogger(__name__)

# What a person judges a unit by, all visible at once; the rest in tabs. See spikeinterface_gui.layout_presets.
LAYOUT = {
    "zone1": ["waveform", "waveformheatmap", "probe"],
    "zone2": ["unitlist", "merge", "curation"],
    "zone3": ["spikeamplitude", "trace", "spikerate"],
    "zone4": [],
    "zone5": ["correlogram", "isi"],
    "zone6": [],
    "zone7": ["ndscatter", "similarity"],
    "zone8": ["metrics", "mainsettings"],
}
# What these views show, and is not needed for metrics.
VIEW_EXTENSIONS = ("unit_locations", "correlograms", "isi_histograms", "template_similarity")


def annotation_page(analyzer: SortingAnalyzer, run: AnnotationRun) -> Callable[[], Any]:
    """Make the page's content, anew each time that it is opened.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        With ``random_spikes``, ``templates`` and what `LAYOUT` shows; views that lack something are left out.
    run : AnnotationRun
        Where labels come from and go to. Only the page that was opened last gives labels.

    Returns
    -------
    callable
        Gives a Panel object, for `panel.serve`.
    """
    # Its views take the class from there whenever they make a layout.
    utils_panel.KeyboardShortcuts = Shortcuts
    pages: list[object] = []

    def make_page() -> Any:
        page = object()
        pages[:] = [page]
        window = run_mainwindow(
            analyzer,
            mode="web",
            with_traces=analyzer.has_recording() or analyzer.has_temporary_recording(),
            curation=True,
            curation_dict=run.curation,
            layout=LAYOUT,
            start_app=False,
            panel_window_servable=False,
        )
        queue = QueueView(window.controller, run=run, is_current=lambda: pages[0] is page)
        queue.show_first()
        return pn.Row(queue.layout, window.main_layout, sizing_mode="stretch_both")

    return make_page


def serve_annotation(
    analyzer: SortingAnalyzer,
    run: AnnotationRun,
    *,
    address: str = "localhost",
    port: int = 0,
    open_browser: bool = True,
) -> None:
    """Serve the page until the process is interrupted.

    Parameters
    ----------
    analyzer, run
        See `annotation_page`.
    address : str
        That the server listens on: ``localhost`` for this computer alone.
    port : int
        0 for any that is free.
    open_browser : bool
        Whether to open the page in the user's browser.

    Raises
    ------
    OSError
        The port is taken.
    """
    # Its palette compiles itself when it is first imported, for longer than browsers like to wait.
    import_module("glasbey")
    # Declared to be a thread as well, which it is only if asked for.
    server: Any = pn.serve(
        annotation_page(analyzer, run),
        address=address,
        port=port,
        show=False,
        start=False,
        threaded=False,
        title="simsort annotate",
        verbose=False,
    )
    url = f"http://{address}:{server.port}/"
    logger.info("Labels of %d units go to %s. Open %s; Ctrl-C ends.", len(analyzer.unit_ids), run.path, url)
    server.start()
    if open_browser:
        server.io_loop.add_callback(server.show, "/")
    try:
        server.io_loop.start()
    finally:
        server.stop()
