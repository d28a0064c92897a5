"""Recipes: how the trials of a data set are drawn, as YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml

from spikeinterface_simsort.simulation.trial_config import TrialConfig

DRAWS = ("uniform", "log_uniform", "integers", "choice")


@dataclass(frozen=True)
class Recipe:
    """What each field of a trial is, or how it is drawn.

    Attributes
    ----------
    values : mapping
        Fields of `TrialConfig`: a value, or a mapping with one of the keys ``uniform: [low, high]``,
        ``log_uniform: [low, high]``, ``integers: [low, high]`` (both may come) and ``choice: [values]``. Fields left
        out keep their defaults.

    Raises
    ------
    ValueError
        A field does not exist, or what it says cannot be drawn.
    """

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        known = {field.name for field in fields(TrialConfig)}
        unknown = sorted(map(str, set(self.values) - known))
        if unknown:
            raise ValueError(f"A recipe has no {', '.join(unknown)}. It has {', '.join(sorted(known))}.")
        for name, value in self.values.items():
            if isinstance(value, Mapping):
                _check_draw(name, value)
        # What holds for one trial is wrong before many are made.
        self.draw(0)

    def draw(self, seed: int) -> TrialConfig:
        """Draw what one trial looks like.

        Parameters
        ----------
        seed : int
            The same seed gives the same trial; a field's draw depends on no other field.

        Returns
        -------
        TrialConfig

        Raises
        ------
        ValueError
            A value makes no sense.
        """
        drawn = {}
        for name, value in self.values.items():
            rng = np.random.default_rng([seed, crc32(name.encode("utf-8"))])
            drawn[name] = _draw(value, rng) if isinstance(value, Mapping) else value
        return TrialConfig.from_dict(drawn)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as YAML holds it."""
        return dict(self.values)


def _check_draw(name: str, value: Mapping[str, Any]) -> None:
    how = next(iter(value), None)
    if len(value) != 1 or how not in DRAWS:
        raise ValueError(f"{name}: a draw has one of the keys {', '.join(DRAWS)}, not {sorted(map(str, value))}.")
    what = value[how]
    if not isinstance(what, list) or not what:
        raise ValueError(f"{name}: {how} needs a list, not {what!r}.")
    if how != "choice":
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in what)
        if not (numbers and len(what) == 2 and what[0] <= what[1] and (how != "log_uniform" or what[0] > 0)):
            raise ValueError(f"{name}: {how} needs [low, high], not {what!r}.")
        if how == "integers" and any(v != int(v) for v in what):
            raise ValueError(f"{name}: integers needs whole numbers, not {what!r}.")


def _draw(value: Mapping[str, Any], rng: np.random.Generator) -> Any:
    ((how, what),) = value.items()
    if how == "choice":
        return what[int(rng.integers(len(what)))]
    low, high = what
    if how == "integers":
        return int(rng.integers(int(low), int(high) + 1))
    if how == "log_uniform":
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


def bundled_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = files("spikeinterface_simsort.simulation") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a bundled recipe (`bundled_recipes`), or a YAML file.

    Returns
    -------
    Recipe

    Raises
    ------
    FileNotFoundError
        There is no such recipe.
    ValueError
        The file is not a recipe.
    """
    if str(name_or_path) in bundled_recipes():
        text = (files("spikeinterface_simsort.simulation") / "recipes" / f"{name_or_path}.yaml").read_text("utf-8")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no recipe {path}: name a YAML file, or {', '.join(bundled_recipes())}.")
        text = path.read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name_or_path} is not YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ValueError(f"{name_or_path} is not a recipe: it needs lines like 'num_units: 5'.")
    return Recipe(values)
