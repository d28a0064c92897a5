"""Spike detectors: a logit for every sample of a window of traces."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


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
    """Transformer over patches of traces: the default detector.

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
    "sample_transformer": SampleTransformerDetector,
}


def build_detector(*, architecture: str, **kwargs: Any) -> PatchTransformerDetector | SampleTransformerDetector:
    """Make a detector with random weights.

    Parameters
    ----------
    architecture : {"patch_transformer", "sample_transformer"}
        The default's or the paper's.
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
