"""What a trial looks like, as one flat table that is stored with the trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from spikeinterface_simsort.simulation.drift import KINDS
from spikeinterface_simsort.simulation.electrodes import LAYOUTS, TETRODE_RADIUS_UM


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """What a trial looks like.

    Attributes
    ----------
    duration_s : float
        Length in s.
    sampling_frequency : float
        In Hz.
    num_units : int
        Neurons that are labelled.
    num_far : int
        Unlabelled neurons far away: their spikes are the hash.
    cube_um : float
        Edge of the cube, centred on the electrode, that holds the somata of the units.
    far_distance_um : tuple of float
        Range of the far neurons' distances from the electrode's middle.
    min_distance_um : float
        No soma is closer to a contact.
    min_amplitude_uv, max_amplitude_uv : float
        A unit's largest deflection over contacts lies in between.
    firing_rate_hz : tuple of float
        Lowest and highest rate of a unit.
    far_rate_hz : tuple of float
        Lowest and highest rate of a far neuron.
    firing_rate_spread : float
        Rates are log-normal about the geometric mean of the lowest and the highest, cut there: standard deviation of
        their natural logarithm.
    burst_fraction : float
        Share of units that burst.
    spike_speed : tuple of float
        Each neuron's spikes run faster by a factor drawn log-uniformly from this range: cells of young animals have
        broader spikes than those that are usually recorded (`benchmarks.spike_shapes`).
    synchrony : float
        Share of each unit's spikes that fall next to a spike of another unit.
    synchrony_window_ms : float
        How near.
    noise_uv : float
        Standard deviation of the noise between 300 and 6000 Hz.
    noise_exponent, noise_corner_hz, noise_correlation, noise_length_um : float
        Shape of the noise, see `noise.coloured_noise`. Exponent 0 is thermal noise.
    hum_uv, hum_hz : float
        Amplitude and frequency of the hum of the mains; 0 uV for none.
    motion_rate_hz, motion_uv : float
        Artefacts of movement: how often, and their standard deviation.
    gain_spread : float
        Standard deviation of the electrodes' gains about 1.
    num_dead_channels : int
        Channels, drawn at random, that show noise and no neuron.
    saturation_uv : float or None
        Traces are cut off at this value, either sign; None for never.
    drift_kind : {"none", "linear", "sinusoid", "steps", "random_walk"}
        How the tissue moves, see `drift.drift_course`.
    drift_um : float
        Amplitude of the displacement of all somata, along one direction drawn at random; 0 for none.
    drift_period_s : float
        Period of the sine, time scale of the random walk.
    drift_nonrigidity : float
        Standard deviation over units of their share in the movement, about 1.
    contact_spacing_um : float
        Distance between neighbouring contacts.
    contact_radius_um : float
        Of each contact, over which the potential is averaged.
    layout : {"square", "diamond", "stereotrode", "single", "linear"}
        Of the electrode.
    num_channels : int
        Of a linear probe; other layouts have their own number.

    Raises
    ------
    ValueError
        A value makes no sense; the message names it.
    """

    duration_s: float = 60.0
    sampling_frequency: float = 30000.0
    num_units: int = 5
    num_far: int = 20
    cube_um: float = 100.0
    far_distance_um: tuple[float, float] = (120.0, 250.0)
    min_distance_um: float = 15.0
    min_amplitude_uv: float = 30.0
    max_amplitude_uv: float = 500.0
    firing_rate_hz: tuple[float, float] = (1.0, 15.0)
    far_rate_hz: tuple[float, float] = (0.5, 10.0)
    firing_rate_spread: float = 0.8
    burst_fraction: float = 0.3
    spike_speed: tuple[float, float] = (1.0, 1.0)
    synchrony: float = 0.0
    synchrony_window_ms: float = 1.0
    noise_uv: float = 5.0
    noise_exponent: float = 1.0
    noise_corner_hz: float = 500.0
    noise_correlation: float = 0.3
    noise_length_um: float = 50.0
    hum_uv: float = 0.0
    hum_hz: float = 50.0
    motion_rate_hz: float = 0.0
    motion_uv: float = 100.0
    gain_spread: float = 0.05
    num_dead_channels: int = 0
    saturation_uv: float | None = None
    drift_kind: str = "sinusoid"
    drift_um: float = 0.0
    drift_period_s: float = 60.0
    drift_nonrigidity: float = 0.0
    contact_spacing_um: float = 20.0
    contact_radius_um: float = TETRODE_RADIUS_UM
    layout: str = "square"
    num_channels: int = 16

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            _require(math.isfinite(getattr(self, name)) and getattr(self, name) > 0, self, name, "larger than 0")
        for name in _NATURAL:
            _require(math.isfinite(getattr(self, name)) and getattr(self, name) >= 0, self, name, "0 or more")
        for name in _SHARES:
            _require(0 <= getattr(self, name) <= 1, self, name, "between 0 and 1")
        for name in ("firing_rate_hz", "far_rate_hz", "far_distance_um", "spike_speed"):
            low, high = getattr(self, name)
            _require(0 < low <= high < math.inf, self, name, "two numbers, 0 < low <= high")
        _require(self.min_amplitude_uv < self.max_amplitude_uv, self, "max_amplitude_uv", "above min_amplitude_uv")
        _require(self.layout in LAYOUTS, self, "layout", f"one of {', '.join(LAYOUTS)}")
        _require(self.drift_kind in KINDS, self, "drift_kind", f"one of {', '.join(KINDS)}")
        _require(self.saturation_uv is None or self.saturation_uv > 0, self, "saturation_uv", "larger than 0, or none")

    def to_dict(self) -> dict[str, Any]:
        """All fields as numbers, texts and lists: what YAML and JSON hold."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Make a configuration of what `to_dict` gave, or of some of it.

        Parameters
        ----------
        values : mapping
            Fields; those left out keep their defaults.

        Returns
        -------
        TrialConfig

        Raises
        ------
        ValueError
            There is no such field, or a value makes no sense.
        """
        known = {field.name: field.type for field in fields(cls)}
        unknown = sorted(map(str, set(values) - set(known)))
        if unknown:
            raise ValueError(f"A trial has no {', '.join(unknown)}. It has {', '.join(known)}.")
        for name, value in values.items():
            _check_type(name, value, kind=str(known[name]))
        given: dict[str, Any] = {name: _fit(value, kind=str(known[name])) for name, value in values.items()}
        return cls(**given)


_POSITIVE = (
    "duration_s", "sampling_frequency", "cube_um", "max_amplitude_uv", "synchrony_window_ms",
    "noise_corner_hz", "noise_length_um", "hum_hz", "drift_period_s", "contact_spacing_um", "num_channels",
)  # fmt: skip
_NATURAL = (
    "num_units", "num_far", "min_distance_um", "min_amplitude_uv", "firing_rate_spread", "noise_uv", "noise_exponent",
    "hum_uv", "motion_rate_hz", "motion_uv", "gain_spread", "num_dead_channels", "drift_um", "drift_nonrigidity",
    "contact_radius_um",
)  # fmt: skip
_SHARES = ("burst_fraction", "synchrony", "noise_correlation")


def _plain(value: Any) -> Any:
    """What YAML can hold: numbers of numpy it cannot."""
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _require(holds: bool, config: TrialConfig, name: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}, not {getattr(config, name)!r}.")


def _fit(value: Any, *, kind: str) -> Any:
    """Give what passed `_check_type` the field's own type: a list is a pair, 5.0 may count."""
    if isinstance(value, list):
        return tuple(value)
    return int(value) if kind == "int" else value


def _check_type(name: str, value: Any, *, kind: str) -> None:
    """Refuse what YAML holds of another type: a text for a number, a fraction for a count."""
    if kind.startswith("tuple"):
        fits = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))
    elif kind == "int":
        fits = _is_number(value) and math.isfinite(value) and value == int(value)
    elif kind == "str":
        fits = isinstance(value, str)
    else:
        fits = _is_number(value) or (value is None and "None" in kind)
    if not fits:
        raise ValueError(f"{name} must be {'two numbers' if kind.startswith('tuple') else kind}, not {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
