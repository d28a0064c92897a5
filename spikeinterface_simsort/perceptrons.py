"""The default networks in NumPy: the same numbers as their torch modules, without the seconds that torch takes to load.

On a CPU, a perceptron is a few matrix products, in which NumPy is as fast; nothing here can be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Rows that a processor's own memory holds.
_ROWS_PER_BLOCK = 1024
# The complementary error function by formula 7.1.26 of Abramowitz & Stegun 1964, to 1.5e-7.
_ERFC_SCALE = np.float32(0.3275911 / np.sqrt(2.0))
_ERFC = np.array([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], dtype="float32")
# Logit of a spike where none is looked for.
_NO_SPIKE = np.float32(-12.0)
_COMPRESSION = np.float32(4.0)


class PeakPerceptron:
    """`models.PeakPerceptronDetector` for inference.

    Parameters
    ----------
    tensors : mapping of str to np.ndarray
        State of the torch module.
    num_before, num_samples, hidden_size, num_layers, least_energy, window_samples, num_channels
        As for the torch module.

    Raises
    ------
    ValueError
        A tensor is missing or of another shape.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        *,
        num_before: int,
        num_samples: int,
        hidden_size: int,
        num_layers: int,
        least_energy: float,
        window_samples: int,
        num_channels: int = 4,
    ) -> None:
        self.num_channels, self.num_before, self.num_samples = num_channels, num_before, num_samples
        self.least_energy, self.window_samples = least_energy, window_samples
        widths = [num_samples * num_channels, *[hidden_size] * num_layers, 1]
        self._layers = _layers(tensors, widths=widths)
        _check_all_used(tensors, 2 * len(self._layers))

    def __call__(self, traces: np.ndarray) -> np.ndarray:
        """Logits of spikes, float32 [num_windows, window_samples].

        Parameters
        ----------
        traces : np.ndarray, float32 [num_windows, window_samples, num_channels]
            In units of each channel's noise.
        """
        energy = np.einsum("wsc,wsc->ws", traces, traces)
        around = np.pad(energy, ((0, 0), (1, 1)))
        is_peak = (energy >= around[:, :-2]) & (energy > around[:, 2:]) & (energy >= self.least_energy)
        logits = np.full(energy.shape, _NO_SPIKE)
        window, sample = np.nonzero(is_peak)
        padded = np.pad(traces, ((0, 0), (self.num_before, self.num_samples - self.num_before), (0, 0)))
        # All channels of all samples around one lie one after the other.
        seen = sliding_window_view(padded.reshape(len(padded), -1), self.num_samples * self.num_channels, axis=1)
        for start in range(0, len(window), _ROWS_PER_BLOCK):
            rows, columns = window[start : start + _ROWS_PER_BLOCK], sample[start : start + _ROWS_PER_BLOCK]
            values = _compressed(seen[rows, columns * self.num_channels])
            logits[rows, columns] = _perceptron(values, self._layers)[:, 0]
        return logits


class WaveformPerceptron:
    """`models.PerceptronEmbedder` for inference.

    Parameters
    ----------
    tensors : mapping of str to np.ndarray
        State of the torch module.
    num_samples, hidden_size, num_layers, embedding_dim, num_channels
        As for the torch module, which has no temporal components here.

    Raises
    ------
    ValueError
        A tensor is missing or of another shape.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        *,
        num_samples: int,
        hidden_size: int,
        num_layers: int,
        embedding_dim: int,
        num_channels: int = 4,
    ) -> None:
        self.num_channels, self.num_samples, self.embedding_dim = num_channels, num_samples, embedding_dim
        width = num_samples * num_channels
        self._layers = _layers(tensors, widths=[width, *[hidden_size] * num_layers, embedding_dim])
        self._linear = _layer(tensors, "linear", shape=(embedding_dim, width))
        _check_all_used(tensors, 2 * len(self._layers) + 2)

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        """Embeddings, float32 [num_spikes, embedding_dim].

        Parameters
        ----------
        waveforms : np.ndarray, float32 [num_spikes, num_samples, num_channels]
            In units of each channel's noise.
        """
        embedding = np.empty((len(waveforms), self.embedding_dim), dtype="float32")
        weight, bias = self._linear
        for start in range(0, len(waveforms), _ROWS_PER_BLOCK):
            block = waveforms[start : start + _ROWS_PER_BLOCK]
            values = _compressed(block.reshape(len(block), -1))
            embedding[start : start + _ROWS_PER_BLOCK] = values @ weight + bias + _perceptron(values, self._layers)
        return embedding


_ARCHITECTURES = {("detector", "peak_perceptron"): PeakPerceptron, ("embedder", "perceptron"): WaveformPerceptron}


def build_perceptron(
    role: str, *, architecture: str, kwargs: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> PeakPerceptron | WaveformPerceptron | None:
    """Make a network that needs no torch, if it is one of these.

    Parameters
    ----------
    role : {"detector", "embedder"}
        Of the network.
    architecture : str
        Of its torch module.
    kwargs : mapping
        Of the torch module.
    tensors : mapping of str to np.ndarray
        State of the torch module.

    Returns
    -------
    PeakPerceptron, WaveformPerceptron or None
        None where it is another network, or what is given does not fit it: torch will tell.
    """
    build = _ARCHITECTURES.get((role, architecture))
    if build is None:
        return None
    try:
        return build(tensors, **kwargs)
    except (TypeError, ValueError):
        return None


def _layers(tensors: Mapping[str, np.ndarray], *, widths: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a perceptron, in which every second module is an activation."""
    return [
        _layer(tensors, f"perceptron.{2 * index}", shape=(after, before))
        for index, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
    ]


def _layer(tensors: Mapping[str, np.ndarray], name: str, *, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or weight.shape != shape or bias.shape != shape[:1]:
        raise ValueError(f"{name} is not a layer of shape {shape}")
    return np.ascontiguousarray(weight.T, dtype="float32"), bias.astype("float32")


def _check_all_used(tensors: Mapping[str, np.ndarray], num_used: int) -> None:
    if len(tensors) != num_used:
        raise ValueError("there are more tensors than the network has")


def _compressed(values: np.ndarray) -> np.ndarray:
    """Large spikes say no more than that they are there: compressed, they do not swamp the small ones."""
    return np.arcsinh(values / _COMPRESSION)


def _perceptron(values: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Linear layers with the activation between them."""
    for weight, bias in layers[:-1]:
        values = values @ weight
        values += bias
        values = gelu(values)
    weight, bias = layers[-1]
    return values @ weight + bias


def gelu(values: np.ndarray) -> np.ndarray:
    """Gaussian error linear unit (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    Parameters
    ----------
    values : np.ndarray, float32
        Of any shape.

    Returns
    -------
    np.ndarray, float32
        Exact to a few 1e-7.
    """
    size = np.abs(values)
    # x * Phi(x) is max(x, 0) - |x| erfc(|x| / sqrt 2) / 2.
    step = 1 / (1 + _ERFC_SCALE * size)
    tail = np.full_like(step, _ERFC[0])
    for coefficient in _ERFC[1:]:
        tail *= step
        tail += coefficient
    tail *= step
    np.square(values, out=step)
    step *= np.float32(-0.5)
    tail *= np.exp(step, out=step)
    tail *= size
    tail *= np.float32(0.5)
    return np.subtract(np.maximum(values, 0), tail, out=tail)
