"""Spike embedders: a point in a metric space for every waveform."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class _Embedder(nn.Module):
    """What every embedder has: the shape of its waveforms, and their denoising before anything else.

    The temporal components that waveforms are projected onto are fixed by training (buffer `svd_basis`), so that an
    embedding does not depend on the other waveforms of its batch.
    """

    svd_basis: torch.Tensor | None

    def __init__(self, *, num_channels: int, num_samples: int, embedding_dim: int, svd_rank: int | None) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.num_samples = num_samples
        self.embedding_dim = embedding_dim
        # Filled by training; identity-like until then.
        self.register_buffer("svd_basis", None if svd_rank is None else torch.eye(num_samples)[:svd_rank].clone())

    def denoise(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Keep what lies in the span of the temporal components, where there are any."""
        return waveforms if self.svd_basis is None else self.svd_basis.T @ (self.svd_basis @ waveforms)


class RecurrentEmbedder(_Embedder):
    """A GRU over a waveform; its last hidden state is the embedding: the paper's, preset ``paper``.

    Parameters
    ----------
    num_channels : int
        Channels of a waveform; absent ones are zero.
    num_samples : int
        Samples of a waveform.
    hidden_size : int
        Of the GRU: 512 in the paper.
    svd_rank : int, optional
        Denoise waveforms by a projection onto this many temporal components: 5 in the paper.
    """

    def __init__(
        self,
        *,
        num_channels: int = 4,
        num_samples: int = 60,
        hidden_size: int = 512,
        svd_rank: int | None = None,
    ) -> None:
        super().__init__(
            num_channels=num_channels, num_samples=num_samples, embedding_dim=hidden_size, svd_rank=svd_rank
        )
        self.gru = nn.GRU(num_channels, hidden_size, batch_first=True)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Embed waveforms.

        Parameters
        ----------
        waveforms : torch.Tensor, [batch, num_samples, num_channels]
            In units of each channel's noise.

        Returns
        -------
        torch.Tensor, [batch, embedding_dim]
        """
        _, hidden = self.gru(self.denoise(waveforms))
        return hidden[-1]


class PerceptronEmbedder(_Embedder):
    """A perceptron over a whole waveform, beside a linear map of it: the default embedder.

    The linear map does what principal components do, learned once for all recordings; the
    perceptron adds what no projection can tell. On the same trials it reaches half the loss of a
    GRU at a tenth of its cost (docs/clustering.md).

    Parameters
    ----------
    num_channels : int
        Channels of a waveform; absent ones are zero.
    num_samples : int
        Samples of a waveform.
    hidden_size : int
        Width of the hidden layers.
    num_layers : int
        Hidden layers.
    embedding_dim : int
        Dimensions of the embedding.
    svd_rank : int, optional
        Denoise waveforms by a projection onto this many temporal components.
    """

    def __init__(
        self,
        *,
        num_channels: int = 4,
        num_samples: int = 48,
        hidden_size: int = 512,
        num_layers: int = 3,
        embedding_dim: int = 24,
        svd_rank: int | None = None,
    ) -> None:
        super().__init__(
            num_channels=num_channels, num_samples=num_samples, embedding_dim=embedding_dim, svd_rank=svd_rank
        )
        width = num_channels * num_samples
        self.linear = nn.Linear(width, embedding_dim)
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            layers += [nn.Linear(width, hidden_size), nn.GELU()]
            width = hidden_size
        self.perceptron = nn.Sequential(*layers, nn.Linear(width, embedding_dim))

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Embed waveforms, with the shapes of `RecurrentEmbedder.forward`."""
        # A spike varies in proportion to its size: compressed, large and small units vary alike.
        flat = torch.asinh(self.denoise(waveforms) / 4.0).flatten(1)
        return self.linear(flat) + self.perceptron(flat)


_ARCHITECTURES = {"gru": RecurrentEmbedder, "perceptron": PerceptronEmbedder}


def build_embedder(*, architecture: str, **kwargs: Any) -> PerceptronEmbedder | RecurrentEmbedder:
    """Make an embedder with random weights.

    Parameters
    ----------
    architecture : {"perceptron", "gru"}
        The default's or the paper's.
    **kwargs
        Of that class.

    Raises
    ------
    ValueError
        The architecture is not known.
    """
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"Unknown embedder architecture {architecture!r}: choose one of {sorted(_ARCHITECTURES)}.")
    return _ARCHITECTURES[architecture](**kwargs)
