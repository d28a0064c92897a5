"""A view for spikeinterface-gui in its web mode: the units to be labelled next, labelled by keys."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Hashable
from typing import Any

import pandas as pd
import panel as pn
from spikeinterface_gui.view_base import ViewBase

from spikeinterface_simsort.curation.active import STABLE_LABELS
from spikeinterface_simsort.curation.annotation_run import AnnotationRun
from spikeinterface_simsort.curation.annotations import CATEGORY, GOOD, MUA, NOISE, UNSURE
from spikeinterface_simsort.curation.shortcuts import Shortcuts

logger = logging.getLogger(__name__)

# spikeinterface-gui's own keys for the three that it knows.
LABEL_KEYS = {"g": GOOD, "m": MUA, "n": NOISE, "u": UNSURE}
UNDO_KEY, NEXT_KEY, PREVIOUS_KEY = "Backspace", "ArrowRight", "ArrowLeft"
_WIDTH_PX = 330
_NUM_LABELLED_SHOWN = 5
_BUTTON_TYPES = {GOOD: "success", MUA: "warning", NOISE: "danger", UNSURE: "light"}


class QueueView(ViewBase):
    """The units that are to be labelled next, what was labelled last, and how far the labels have come.

    It does not show what the classifier thinks of a unit: that would be the person's opinion soon.

    Parameters
    ----------
    controller : spikeinterface_gui.controller.Controller
        Of a window in web mode with curation. Its curation data are those of `run`; what other views do to them is
        written too.
    run : AnnotationRun
        Where labels go.
    is_current : callable
        Whether this page is the one that labels come from; one that is not says so, and changes nothing.
    """

    id = "simsort_queue"
    _supported_backend = ["panel"]
    _gui_help_txt = "Units to be labelled next."

    def __init__(self, controller: Any, *, run: AnnotationRun, is_current: Callable[[], bool]) -> None:
        self._run = run
        self._is_current = is_current
        self._units = {str(unit_id): unit_id for unit_id in run.learner.unit_ids}
        # What is shown, and the other units of the queue after it.
        self._shown: Hashable | None = run.queue[0] if run.queue else None
        super().__init__(controller=controller, backend="panel")

    def show_first(self) -> None:
        """Show the first unit of the queue in all views."""
        self._show(self._run.queue[0] if self._run.queue else self._shown)

    def _panel_make_layout(self) -> None:
        keys = [*LABEL_KEYS, UNDO_KEY, NEXT_KEY, PREVIOUS_KEY]
        self._keys = Shortcuts(shortcuts=[{"name": key, "key": key} for key in keys])
        self._keys.on_msg(self._on_key)
        self._message = pn.pane.Alert("", alert_type="warning", visible=False, margin=(0, 5))
        self._title = pn.pane.HTML("", margin=(0, 10))
        self._bar = pn.indicators.Progress(value=0, max=100, width=_WIDTH_PX - 30, margin=(0, 10))
        self._progress = pn.pane.HTML("", margin=(0, 10))
        self._hint = pn.pane.Alert("", alert_type="success", visible=False, margin=(0, 5))
        self._queue_table = self._make_table(["unit", "channel", "spikes"])
        self._labelled_table = self._make_table(["unit", "label"])
        buttons = []
        for key, label in LABEL_KEYS.items():
            button = pn.widgets.Button(name=f"{label} ({key})", button_type=_BUTTON_TYPES[label], width=72, margin=3)
            button.on_click(lambda _, label=label: self._label(self._shown, label))
            buttons.append(button)
        self.layout = pn.Column(
            self._title,
            pn.Row(*buttons, margin=(0, 5)),
            self._message,
            self._bar,
            self._progress,
            self._hint,
            pn.pane.HTML("<b>To label</b>", margin=(5, 10, 0, 10)),
            self._queue_table,
            pn.pane.HTML("<b>Labelled last</b>", margin=(5, 10, 0, 10)),
            self._labelled_table,
            pn.pane.HTML(
                "Keys: g, m, n, u label the unit shown; ← → show the others; Backspace takes the last label back.",
                margin=(5, 10),
                styles={"color": "gray"},
            ),
            self._keys,
            width=_WIDTH_PX,
            scroll=True,
            sizing_mode="stretch_height",
        )

    def _make_table(self, columns: list[str]) -> pn.widgets.Tabulator:
        table = pn.widgets.Tabulator(
            # All text: names of units that look like numbers are none.
            pd.DataFrame(columns=columns, dtype=object),
            layout="fit_columns",
            show_index=False,
            disabled=True,
            sortable=False,
            selectable=1,
            width=_WIDTH_PX - 20,
            margin=(0, 10),
            theme_classes=["table-sm"],
        )
        table.on_click(lambda event: self._show(self._units[table.value["unit"].iloc[event.row]]))
        return table

    def _panel_refresh(self) -> None:
        labels = self._run.labels
        shown = "" if self._shown is None else str(self._shown)
        label = labels.get(self._shown, "not labelled") if self._shown is not None else "is there none"
        self._title.object = (
            f"<h2 id='shown' style='margin:4px 0'>Unit {html.escape(shown)} <small>{label}</small></h2>"
        )
        self._keys.unit = shown
        progress = self._run.learner.progress()
        num_done = len(labels)
        self._bar.value = round(100 * num_done / progress.num_units)
        self._progress.object = (
            f"<span id='progress'>{num_done} of {progress.num_units} units labelled.</span> Of the others, about "
            f"{progress.expected_errors:.0f} would be predicted wrongly; {progress.num_unsettled} are open (less than "
            "90 % sure)."
        )
        self._hint.visible = progress.may_stop
        if progress.changed_share is not None:
            self._hint.object = (
                f"You may stop: the last {STABLE_LABELS} labels changed what is predicted of "
                f"{100 * progress.changed_share:.1f} % of the units."
            )
        else:
            self._hint.object = "All units are labelled."
        queue, controller = self._run.queue, self.controller
        channels = [controller.channel_ids[controller.get_main_channel(unit)] for unit in queue]
        self._fill(self._queue_table, queue, channels, [controller.num_spikes[unit] for unit in queue])
        last = [*reversed(labels)][:_NUM_LABELLED_SHOWN]
        self._fill(self._labelled_table, last, [labels[unit] for unit in last])
        if not self._is_current():
            self._say("The labels were opened in another page since: reload to go on here.")

    def _fill(self, table: pn.widgets.Tabulator, units: list[Hashable], *columns: list[Any]) -> None:
        texts = [[str(value) for value in column] for column in (units, *columns)]
        table.value = pd.DataFrame(dict(zip(table.value.columns, texts, strict=True)), dtype=object)
        table.selection = [units.index(self._shown)] if self._shown in units else []

    def _panel_on_unit_visibility_changed(self) -> None:
        """Follow another view that shows a single unit: keys are then meant for that one."""
        visible = self.controller.get_visible_unit_ids()
        if len(visible) == 1 and visible[0] != self._shown:
            self._shown = visible[0]
        self.refresh()

    def _panel_on_manual_curation_updated(self) -> None:
        """Write what another view did."""
        self._save(lambda: self._run.save(self.controller.construct_final_curation().model_dump(mode="json")))

    def _on_key(self, event: Any) -> None:
        key, unit_id = event.data["name"], self._units.get(event.data["unit"])
        if key == UNDO_KEY:
            labels = self._run.labels
            if labels:
                last = [*labels][-1]
                self._label(last, None)
        elif key in LABEL_KEYS:
            self._label(unit_id, LABEL_KEYS[key])
        elif self._run.queue:
            queue = self._run.queue
            step = 1 if key == NEXT_KEY else -1
            index = (queue.index(self._shown) + step) % len(queue) if self._shown in queue else 0
            self._show(queue[index])

    def _label(self, unit_id: Hashable | None, label: str | None) -> None:
        if unit_id is None:
            return
        if not self._save(lambda: self._run.set_label(unit_id, label)):
            return
        self.controller.set_label_to_unit(unit_id, CATEGORY, label)
        self._tell_unit_list()
        if label is None:
            self._show(unit_id)
        elif unit_id == self._shown:
            self.show_first()
        else:
            self.refresh()

    def _save(self, save: Callable[[], None]) -> bool:
        if not self._is_current():
            self.refresh()
            return False
        try:
            save()
        except OSError as error:
            logger.exception("Labels cannot be written.")
            self._say(f"Not saved: {error}")
            return False
        self._message.visible = False
        self.controller.current_curation_saved = True
        self.refresh()
        return True

    def _tell_unit_list(self) -> None:
        for view in self.controller.views:
            if view.id == "unitlist":
                view.update_manual_labels()

    def _show(self, unit_id: Hashable | None) -> None:
        if unit_id is not None:
            self._shown = unit_id
            self.controller.set_visible_unit_ids([unit_id])
            self.controller.set_channel_visibility(self.controller.get_common_sparse_channels([unit_id]))
            self.notify_channel_visibility_changed()
            self.notify_unit_visibility_changed()
        self.refresh()

    def _say(self, text: str) -> None:
        self._message.object = text
        self._message.visible = True
