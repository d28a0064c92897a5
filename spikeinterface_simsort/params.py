"""All parameters of the sorter: defaults, bounds, descriptions and presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np


class ParameterError(ValueError):
    """A parameter is not what it has to be."""


def _parameter(default: Any, description: str, **bounds: Any) -> Any:
    metadata = {"description": description, **bounds}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class SimSortParams:
    """Parameters of the sorter; nobody needs to change one.

    What is None is taken from the preset. `describe` gives a sentence for each parameter.
    """

    preset: str = _parameter(
        "default",
        "'default', or 'paper' for the pipeline of arXiv 2502.03198 (250-10000 Hz, whitening, UMAP and MeanShift; "
        "needs the extra [paper]; the threshold of 0.97 and the SVD come with weights of the paper's networks)",
        choices=("default", "paper"),
    )
    weights: str = _parameter(
        "bundled", "Networks: 'bundled', a folder, or 'hf://owner/name@revision' on the HuggingFace hub"
    )
    device: str = _parameter("auto", "'auto' (CUDA, then MPS, then CPU), 'cpu', 'cuda', 'cuda:1', 'mps'")
    seed: int = _parameter(0, "Seed of everything random", minimum=0, maximum=2**32 - 1)
    freq_min: float | None = _parameter(None, "Lower edge of the band in Hz (None: from the preset)", minimum=100.0)
    freq_max: float | None = _parameter(None, "Upper edge of the band in Hz (None: from the preset)", minimum=100.0)
    whiten: bool | None = _parameter(None, "Whiten over channels (None: from the preset)")
    detect_threshold: float | None = _parameter(
        None,
        "Probability over which a sample is a spike (None: what the weights were made for)",
        minimum=0.01,
        maximum=0.999,
    )
    exclude_ms: float = _parameter(
        0.4, "Of two detections closer than this, the likelier is kept", minimum=0.05, maximum=5.0
    )
    clustering: str | None = _parameter(
        None, "'mixture' or 'meanshift' (None: from the preset)", choices=("mixture", "meanshift")
    )
    max_spikes_fit: int = _parameter(
        20000, "Clusters are fitted on at most so many spikes; the others are assigned", minimum=100
    )
    bandwidth_quantile: float = _parameter(
        0.05, "MeanShift: quantile for the estimate of the bandwidth", minimum=0.001, maximum=1.0
    )
    match_templates: bool | None = _parameter(
        None, "Find the units' templates in the recording, overlapping spikes too (None: from the preset)"
    )
    min_spikes: int = _parameter(20, "Units with fewer spikes are dropped", minimum=1)
    min_snr: float = _parameter(
        2.5, "Units whose mean waveform is smaller than this, in units of noise, are dropped", minimum=0.0
    )
    duplicate_ms: float = _parameter(0.4, "Spikes of one unit closer than this are one spike", minimum=0.0, maximum=5.0)
    job_kwargs: dict[str, Any] = _parameter({}, "SpikeInterface job arguments: n_jobs, chunk_duration, progress_bar")

    def __post_init__(self) -> None:
        for parameter in fields(self):
            value = getattr(self, parameter.name)
            if isinstance(value, np.generic):
                # Parameters go through JSON, which knows no numbers of numpy.
                object.__setattr__(self, parameter.name, value.item())
            _check(parameter.name, getattr(self, parameter.name), parameter.metadata, annotation=str(parameter.type))
        low = self.freq_min or 0.0
        if self.freq_max is not None and self.freq_max <= low:
            raise ParameterError(f"freq_max ({self.freq_max}) must be larger than freq_min ({self.freq_min}).")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SimSortParams:
        """Make parameters from a dictionary, and name what is not known.

        Parameters
        ----------
        values : dict
            Parameters by name.

        Raises
        ------
        ParameterError
            A name is not known, or a value is out of its bounds.
        """
        names = [parameter.name for parameter in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ParameterError(f"Unknown parameters {unknown}; known are {names}.")
        return cls(**values)

    def resolve(self) -> SimSortParams:
        """Fill in what is None from the preset."""
        preset = _PRESETS[self.preset]
        return replace(self, **{name: value for name, value in preset.items() if getattr(self, name) is None})

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Describe every parameter in a sentence, with its bounds."""
        return {parameter.name: _description(parameter.metadata) for parameter in fields(cls)}


_PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "freq_min": 300.0,
        "freq_max": 6000.0,
        "whiten": False,
        "clustering": "mixture",
        "match_templates": True,
    },
    "paper": {
        "freq_min": 250.0,
        "freq_max": 10000.0,
        "whiten": True,
        "clustering": "meanshift",
        "match_templates": False,
    },
}


def _description(metadata: Any) -> str:
    text = metadata["description"]
    low, high = metadata.get("minimum"), metadata.get("maximum")
    if low is not None and high is not None:
        return f"{text}. From {low} to {high}."
    return f"{text}. At least {low}." if low is not None else f"{text}."


def _check(name: str, value: Any, metadata: Any, *, annotation: str) -> None:
    if value is None and "None" in annotation:
        return
    kind = annotation.split(" | ")[0]
    types: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}
    expected = types.get(kind, dict)
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise ParameterError(f"{name} must be of type {annotation}, not {type(value).__name__} ({value!r}).")
    if "choices" in metadata and value not in metadata["choices"]:
        raise ParameterError(f"{name} must be one of {list(metadata['choices'])}, not {value!r}.")
    low, high = metadata.get("minimum"), metadata.get("maximum")
    # Written so that a NaN fails too.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"from {low} to {high}" if low is not None and high is not None else f"at least {low}"
        raise ParameterError(f"{name} must be {bounds}, not {value!r}.")
