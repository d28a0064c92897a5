"""The page of a report: what stands where. Everything is in the page itself, and it asks for nothing."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

# How words that people call units by are coloured; others stay grey.
_TONES = {
    "good": "good",
    "sua": "good",
    "single-unit": "good",
    "single_unit": "good",
    "mua": "middling",
    "multi-unit": "middling",
    "multi_unit": "middling",
    "non_soma": "middling",
    "noise": "bad",
    "bad": "bad",
}
# The browser, too, is told that nothing is to be fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table of units.

    Attributes
    ----------
    title : str
        Of the column.
    values : list
        By unit: numbers or text; None where it is not known.
    form : str
        Format of numbers; empty for text and for what is shown as it is.
    is_label : bool
        Whether the values say of what kind a unit is.
    """

    title: str
    values: list[Any]
    form: str = ""
    is_label: bool = False


@dataclass(frozen=True, kw_only=True)
class UnitCard:
    """What is shown of a unit beside the table.

    Attributes
    ----------
    unit_id : int or str
        Of the unit.
    facts : list of str
        A few words each.
    labels : list of str
        Of what kind it is.
    colour, marker : str
        In the pictures.
    picture : bytes
        PNG; empty where there is nothing to be seen.
    """

    unit_id: Any
    facts: list[str]
    labels: list[str]
    colour: str
    marker: str
    picture: bytes


@dataclass(frozen=True, kw_only=True)
class GroupSection:
    """What is shown of a group.

    Attributes
    ----------
    name : str or None
        Of the group; None where there are no groups.
    channel_ids : list
        Of the group.
    overview : bytes
        PNG of how far units are apart; empty where there is none.
    cards : list of UnitCard
        Of its units.
    """

    name: str | None
    channel_ids: list[Any]
    overview: bytes
    cards: list[UnitCard]


def render_page(
    *,
    title: str,
    headline: str,
    facts: Mapping[str, str],
    parameters: Mapping[str, Any],
    warnings: Sequence[str],
    unit_ids: Sequence[Any],
    columns: Sequence[Column],
    sections: Sequence[GroupSection],
    note: str,
) -> str:
    """Put a page together.

    Parameters
    ----------
    title : str
        What was sorted.
    headline : str
        What was found, in a line.
    facts : mapping of str
        Of the recording and of the sort.
    parameters : mapping
        Of the sorter.
    warnings : sequence of str
        What a reader must know.
    unit_ids : sequence
        Of the units.
    columns : sequence of Column
        Of their table.
    sections : sequence of GroupSection
        With pictures.
    note : str
        What the pictures show.

    Returns
    -------
    str
        HTML.
    """
    assets = files("spikeinterface_simsort") / "assets" / "report"
    style = (assets / "style.css").read_text(encoding="utf-8")
    script = (assets / "sort.js").read_text(encoding="utf-8")
    anchors = {unit_id: f"unit-{index}" for index, unit_id in enumerate(unit_ids)}
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="headline">{escape(headline)}</p>',
        _warnings(warnings),
        _definitions(facts),
        _parameters(parameters),
        '<h2 id="units">Units</h2>',
        _labels_counted(columns),
        _navigation(sections),
        _table(unit_ids, columns, anchors=anchors) if unit_ids else "<p>No units were found.</p>",
    ]
    if unit_ids:
        body.append(f'<p class="note">{escape(note)}</p>')
    body += [_section(section, index, anchors=anchors) for index, section in enumerate(sections)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Browsers ask for an icon where a page has none.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in warnings)
    return f'<div class="warnings"><strong>Warnings</strong><ul>{lines}</ul></div>'


def _definitions(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in facts.items())}</dl>"


def _parameters(parameters: Mapping[str, Any]) -> str:
    if not parameters:
        return ""
    shown = {name: str(value) for name, value in parameters.items()}
    return f"<details><summary>Parameters of the sorter</summary>{_definitions(shown)}</details>"


def _labels_counted(columns: Sequence[Column]) -> str:
    lines = []
    for column in columns:
        if column.is_label:
            counts = Counter(value for value in column.values if value)
            counted = " ".join(f"{_label(value)}&nbsp;{number}" for value, number in counts.most_common())
            lines.append(f"<p>{escape(column.title)}: {counted or 'none given'}</p>")
    return "".join(lines)


def _navigation(sections: Sequence[GroupSection]) -> str:
    if len(sections) < 2:
        return ""
    links = "".join(
        f'<a href="#group-{index}">{escape(str(section.name))}&nbsp;({len(section.cards)})</a>'
        for index, section in enumerate(sections)
    )
    return f"<nav>Groups, and their units: {links}</nav>"


def _table(unit_ids: Sequence[Any], columns: Sequence[Column], *, anchors: Mapping[Any, str]) -> str:
    identities = Column(title="unit", values=list(unit_ids))
    heads = "".join(
        f'<th scope="col"{_text_class(column)}>{escape(column.title)}'
        f'<button type="button" aria-label="sort by {escape(column.title)}"></button></th>'
        for column in [identities, *columns]
    )
    rows = []
    for index, unit_id in enumerate(unit_ids):
        link = f'<a href="#{anchors[unit_id]}">{escape(str(unit_id))}</a>'
        first = f'<td{_text_class(identities)} data-value="{escape(str(unit_id))}">{link}</td>'
        rows.append(f"<tr>{first}{''.join(_cell(column, index) for column in columns)}</tr>")
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _text_class(column: Column) -> str:
    numbers = all(value is None or isinstance(value, int | float | np.number) for value in column.values)
    return "" if numbers and not column.is_label else ' class="text"'


def _cell(column: Column, index: int) -> str:
    value = column.values[index]
    if value is None or value == "" or (isinstance(value, float) and not np.isfinite(value)):
        return f"<td{_text_class(column)}>–</td>"
    text = _label(value) if column.is_label else escape(format(value, column.form) if column.form else str(value))
    return f'<td{_text_class(column)} data-value="{escape(str(value))}">{text}</td>'


def _label(value: Any) -> str:
    tone = _TONES.get(str(value).lower(), "")
    return f'<span class="label {tone}">{escape(str(value))}</span>'


def _section(section: GroupSection, index: int, *, anchors: Mapping[Any, str]) -> str:
    counted = f"{len(section.cards)} unit{'' if len(section.cards) == 1 else 's'}"
    channels = _shorten([str(channel_id) for channel_id in section.channel_ids])
    name = "Pictures" if section.name is None else f"Group {section.name}"
    parts = [
        f'<section id="group-{index}"><h2>{escape(name)}</h2>',
        f'<p class="facts">{counted}, channels {escape(channels)} <a class="up" href="#units">↑ table</a></p>',
    ]
    if section.overview:
        parts.append(f'<div class="overview">{_image(section.overview, alt=f"{name}: how far units are apart")}</div>')
    parts += [_card(card, anchor=anchors[card.unit_id]) for card in section.cards]
    return "\n".join([*parts, "</section>"])


def _shorten(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 16 else f"{', '.join(names[:8])}, … {names[-1]} ({len(names)})"


def _card(card: UnitCard, *, anchor: str) -> str:
    shape = " triangle" if card.marker == "^" else ""
    head = [
        f'<span class="swatch{shape}" style="background:{card.colour}"></span>',
        f"<h3>unit {escape(str(card.unit_id))}</h3>",
        *map(_label, card.labels),
        f'<span class="facts">{escape(" · ".join(card.facts))}</span>',
    ]
    alt = f"unit {card.unit_id}: waveforms, autocorrelogram, amplitudes over time"
    shown = _image(card.picture, alt=alt) if card.picture else '<p class="note">No spikes to be shown.</p>'
    return f'<article class="unit" id="{anchor}"><header>{"".join(head)}</header>{shown}</article>'


def _image(png: bytes, *, alt: str) -> str:
    # Browsers lay a page out sooner where they know the size, which a PNG tells at this place.
    width, height = (int.from_bytes(png[place : place + 4], "big") for place in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return f'<img width="{width}" height="{height}" decoding="async" alt="{escape(alt)}" src="{source}">'
