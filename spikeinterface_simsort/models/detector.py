"""Spike detectors: a logit for every sample of a window of traces."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

# Logit of a spike where none is looked for.
_NO_SPIKE = -12.0


def sinusoidal_positions(num_positions: int, width: int) -> torch.Tensor:
    """Sinusoidal position code of Vaswani et al. 2017 (arXiv 1706.03762), [num_positions, width]."""
    position = torch.arange(num_positions, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    code = torch.zeros(num_positions, width)
    code[:, 0::2] = torch.sin(position * frequency)
    code[:, 1::2] = torch.cos(position * frequency)
    return code


def _encoder(*, width: int, num_layers: int, num_heads: int, dropout: float, norm_first: bool) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        d_model=width,
        nhead=num_heads,
        dim_feedforward=4 * width,
        dropout=dropout,
        activation="gelu" if norm_first else "relu",
        batch_first=True,
        norm_first=norm_first,
    )
    return nn.TransformerEncoder(
        layer,
        num_layers=num_layers,
        norm=nn.LayerNorm(width) if norm_first else None,
        enable_nested_tensor=False,
    )


class PatchTransformerDetector(nn.Module):
    """Transformer over patches of traces.

    A convolutional stem turns each patch of samples into one token; a linear head gives a logit
    for every sample of the patch. With 16 samples a token this is about a hundredth of the work
    of one token a sample.

    Parameters
    ----------
    num_channels : int
        Channels of the input; absent ones are zero.
    width : int
        Width of the tokens.
    num_layers, num_heads : int
        Of the Transformer encoder.
    patch_samples : int
        Samples a token.
    stem_channels : int
        Channels of the first convolution.
    window_samples : int
        Length of the windows that the network is made for, a multiple of `patch_samples`.
    dropout : float
        Within the encoder, while training.
    """

    positions: torch.Tensor

    def __init__(
        self,
        *,
        num_channels: int = 4,
        width: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        patch_samples: int = 16,
        stem_channels: int = 32,
        window_samples: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if window_samples % patch_samples:
            raise ValueError("window_samples must be a multiple of patch_samples.")
        self.num_channels = num_channels
        self.window_samples = window_samples
        self.stem = nn.Sequential(
            nn.Conv1d(num_channels, stem_channels, kernel_size=9, padding=4),
            nn.GELU(),
            # Each token sees half a patch on either side of its own.
            nn.Conv1d(
                stem_channels, width, kernel_size=2 * patch_samples, stride=patch_samples, padding=patch_samples // 2
            ),
        )
        self.register_buffer(
            "positions", sinusoidal_positions(window_samples // patch_samples, width), persistent=False
        )
        self.encoder = _encoder(
            width=width, num_layers=num_layers, num_heads=num_heads, dropout=dropout, norm_first=True
        )
        self.head = nn.Linear(width, patch_samples)

    def forward(self, traces: torch.Tensor) -> torch.Tensor:
        """Logits of spikes.

        Parameters
        ----------
        traces : torch.Tensor, [batch, window_samples, num_channels]
            In units of each channel's noise.

        Returns
        -------
        torch.Tensor, [batch, window_samples]
        """
        # Large spikes say no more than that they are there: compressed, they do not swamp the small ones.
        compressed = torch.asinh(traces / 4.0)
        tokens = self.stem(compressed.transpose(1, 2)).transpose(1, 2)
        tokens = self.encoder(tokens + self.positions[: tokens.shape[1]])
        return self.head(tokens).flatten(1)


class PeakPerceptronDetector(nn.Module):
    """Perceptron that looks only where the traces rise out of the noise: the default detector.

    A sample is looked at if the energy of its channels, the sum of their squares, is a local maximum and large enough:
    one or two in a hundred. Elsewhere the logit is that of no spike. So nearly all of the work of a network that looks
    at every sample is saved.

    Parameters
    ----------
    num_channels : int
        Channels of the input; absent ones are zero.
    num_before, num_samples : int
        Samples that are seen before the one in question, and altogether.
    hidden_size, num_layers : int
        Of the perceptron: units of a hidden layer, and linear layers but for the last.
    least_energy : float
        Least energy of a sample that is looked at, in units of noise.
    window_samples : int
        Length of the windows that the detector is applied to.
    """

    def __init__(
        self,
        *,
        num_channels: int = 4,
        num_before: int = 28,
        num_samples: int = 72,
        hidden_size: int = 256,
        num_layers: int = 3,
        least_energy: float = 10.0,
        window_samples: int = 2048,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.num_before = num_before
        self.num_samples = num_samples
        self.least_energy = least_energy
        self.window_samples = window_samples
        widths = [num_samples * num_channels, *[hidden_size] * num_layers]
        layers = [
            module
            for before, after in zip(widths[:-1], widths[1:], strict=True)
            for module in (nn.Linear(before, after), nn.GELU())
        ]
        self.perceptron = nn.Sequential(*layers, nn.Linear(hidden_size, 1))

    def forward(self, traces: torch.Tensor) -> torch.Tensor:
        """Logits of spikes, with the shapes of `PatchTransformerDetector.forward`."""
        energy = traces.square().sum(dim=2)
        around = nn.functional.pad(energy, (1, 1))
        is_peak = (energy >= around[:, :-2]) & (energy > around[:, 2:]) & (energy >= self.least_energy)
        window, sample = is_peak.nonzero(as_tuple=True)
        # Large spikes say no more than that they are there: compressed, they do not swamp the small ones.
        compressed = torch.asinh(traces / 4.0)
        padded = nn.functional.pad(compressed, (0, 0, self.num_before, self.num_samples - self.num_before))
        seen = padded.flatten(1).unfold(1, self.num_samples * self.num_channels, self.num_channels)
        logits = torch.full_like(energy, _NO_SPIKE)
        logits[window, sample] = self.perceptron(seen[window, sample]).squeeze(1).to(logits.dtype)
        return logits


class SampleTransformerDetector(nn.Module):
    """The detector of the paper (arXiv 2502.03198): one token a sample, preset ``paper``.

    Parameters
    ----------
    num_channels : int
        Channels of the input.
    width, num_layers, num_heads, dropout
        Of the Transformer encoder: 256, 4, 4 and 0.2 in the paper.
    window_samples : int
        Length of the windows: 2000 in the paper.
    """

    positions: torch.Tensor

    def __init__(
        self,
        *,
        num_channels: int = 4,
        width: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        window_samples: int = 2000,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.window_samples = window_samples
        self.embed = nn.Linear(num_channels, width)
        self.register_buffer("positions", sinusoidal_positions(window_samples, width), persistent=False)
        self.encoder = _encoder(
            width=width, num_layers=num_layers, num_heads=num_heads, dropout=dropout, norm_first=False
        )
        self.head = nn.Linear(width, 1)

    def forward(self, traces: torch.Tensor) -> torch.Tensor:
        """Logits of spikes, with the shapes of `PatchTransformerDetector.forward`."""
        tokens = self.embed(traces) + self.positions[: traces.shape[1]]
        return self.head(self.encoder(tokens)).squeeze(-1)


_ARCHITECTURES = {
    "patch_transformer": PatchTransformerDetector,
    "peak_perceptron": PeakPerceptronDetector,
    "sample_transformer": SampleTransformerDetector,
}


def build_detector(
    *, architecture: str, **kwargs: Any
) -> PeakPerceptronDetector | PatchTransformerDetector | SampleTransformerDetector:
    """Make a detector with random weights.

    Parameters
    ----------
    architecture : {"peak_perceptron", "patch_transformer", "sample_transformer"}
        The default's, one that looks at every sample, or the paper's.
    **kwargs
        Of that class.

    Raises
    ------
    ValueError
        The architecture is not known.
    """
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"Unknown detector architecture {architecture!r}: choose one of {sorted(_ARCHITECTURES)}.")
    return _ARCHITECTURES[architecture](**kwargs)
