"""The table of sorted units: what is counted of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, BaseSorting

# No neuron fires again so soon.
REFRACTORY_MS = 1.5


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """What the table says of a unit; None where the sorting does not know.

    Attributes
    ----------
    unit_id : int or str
        Of the sorting.
    group : int or str or None
        Channel group.
    main_channel : int or str or None
        Channel of the largest deflection.
    num_spikes : int
        In all segments.
    rate_hz : float
        Mean firing rate.
    snr : float or None
        Largest deflection of the mean waveform, in units of noise.
    probability : float or None
        Mean probability of its spikes.
    violations : float
        Share of the intervals between successive spikes that are shorter than `REFRACTORY_MS`.
    predicted_accuracy : float or None
        What its accuracy is expected to be, between 0 and 1, see `confidence`.
    """

    unit_id: Any
    group: Any
    main_channel: Any
    num_spikes: int
    rate_hz: float
    snr: float | None
    probability: float | None
    violations: float
    predicted_accuracy: float | None


def describe_units(recording: BaseRecording, sorting: BaseSorting) -> list[UnitRow]:
    """Describe every unit in a row of a table.

    Parameters
    ----------
    recording : BaseRecording
        What was sorted; only its duration is used.
    sorting : BaseSorting
        Its units, with the properties ``group``, ``main_channel_id``, ``snr``, ``probability`` and
        ``predicted_accuracy`` where they are known.

    Returns
    -------
    list of UnitRow
        In the order of the sorting's units.
    """
    duration = recording.get_total_duration()
    columns = {
        field: _property(sorting, name)
        for field, name in (
            ("group", "group"),
            ("main_channel", "main_channel_id"),
            ("snr", "snr"),
            ("probability", "probability"),
            ("predicted_accuracy", "predicted_accuracy"),
        )
    }
    rows = []
    for index, unit_id in enumerate(sorting.unit_ids.tolist()):
        trains = [
            sorting.get_unit_spike_train(unit_id, segment_index=segment)
            for segment in range(sorting.get_num_segments())
        ]
        num_spikes = sum(map(len, trains))
        rows.append(
            UnitRow(
                unit_id=unit_id,
                num_spikes=num_spikes,
                rate_hz=num_spikes / duration,
                violations=violation_share(trains, sampling_frequency=sorting.sampling_frequency),
                **{field: values[index] for field, values in columns.items()},
            )
        )
    return rows


def violation_share(trains: Sequence[np.ndarray], *, sampling_frequency: float) -> float:
    """Share of the intervals between spikes that are shorter than a neuron's refractory period.

    Parameters
    ----------
    trains : sequence of np.ndarray, int [num_spikes]
        Increasing sample indices, one train a segment.
    sampling_frequency : float
        In Hz.

    Returns
    -------
    float
        0 where there is no interval.
    """
    intervals = np.concatenate([np.diff(train) for train in trains])
    return float(np.mean(intervals < REFRACTORY_MS * sampling_frequency / 1000.0)) if len(intervals) else 0.0


def _property(sorting: BaseSorting, name: str) -> list[Any]:
    values = sorting.get_property(name)
    return [None] * sorting.get_num_units() if values is None else values.tolist()
