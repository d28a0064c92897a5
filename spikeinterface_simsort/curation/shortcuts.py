"""Keys on a page that is served by Panel, without anything from the internet."""

from __future__ import annotations

import param
from panel.custom import JSComponent


class Shortcuts(JSComponent):
    """Tells which keys are pressed anywhere on the page, but for those that are typed into a field.

    It takes the place of spikeinterface-gui's component (`spikeinterface_gui.utils_panel.KeyboardShortcuts`), which
    loads React from the internet; where there is none, the whole page would stay empty. Messages, for ``on_msg``, are
    the shortcut's ``name``, or, where `unit` is not empty, a dictionary of ``name`` and ``unit``: a key that is pressed
    before the page follows is meant for the unit that was seen.
    """

    shortcuts = param.List(
        default=[],
        item_type=dict,
        doc="Of name, key (JavaScript's KeyboardEvent.key), and ctrlKey, shiftKey, altKey where they are held.",
    )
    unit = param.String(default="", doc="Unit that the page shows.")

    _esm = """
    const MODIFIERS = ["ctrlKey", "shiftKey", "altKey"];

    function isTyped(event) {
      return event.composedPath().some(
        (node) => ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName) || node.isContentEditable
      );
    }

    function matches(event, shortcut) {
      // The command key stands in for control.
      const held = { ctrlKey: event.ctrlKey || event.metaKey, shiftKey: event.shiftKey, altKey: event.altKey };
      return event.key === shortcut.key && MODIFIERS.every((name) => held[name] === Boolean(shortcut[name]));
    }

    export function render({ model }) {
      const onKeyDown = (event) => {
        const shortcut = model.shortcuts.find((candidate) => matches(event, candidate));
        if (shortcut === undefined || isTyped(event)) return;
        event.preventDefault();
        // A key that is held down is meant once, but for going through a list.
        if (event.repeat && !event.key.startsWith("Arrow")) return;
        model.send_msg(model.unit === "" ? shortcut.name : { name: shortcut.name, unit: model.unit });
      };
      document.addEventListener("keydown", onKeyDown);
      model.on("remove", () => document.removeEventListener("keydown", onKeyDown));
      const mark = document.createElement("span");
      mark.className = "listens-to-keys";
      mark.dataset.unit = model.unit;
      model.on("unit", () => { mark.dataset.unit = model.unit; });
      return mark;
    }
    """
