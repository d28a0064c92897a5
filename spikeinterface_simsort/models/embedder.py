"""Spike embedders: a point in a metric space for every waveform."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class RecurrentEmbedder(nn.Module):
    """A GRU over a waveform; its last hidden state is the embedding, projected where asked.

    Parameters
    ----------
    num_channels : int
        Channels of a waveform; absent ones are zero.
    num_samples : int
        Samples of a waveform.
    hidden_size : int
        Of the GRU: 512 in the paper.
    samples_per_step : int
        Samples that the GRU reads at a time: 1 in the paper.
    embedding_dim : int, optional
        Project the last hidden state to this many dimensions; not in the paper.
    compress : bool
        Compress large amplitudes (asinh) before the GRU; not in the paper.
    svd_rank : int, optional
        Denoise waveforms by a projection onto this many temporal components before the GRU: 5 in the
        paper. The components are fixed by training (buffer `svd_basis`), so that an embedding does
        not depend on the other waveforms of its batch.
    """

    svd_basis: torch.Tensor | None

    def __init__(
        self,
        *,
        num_channels: int = 4,
        num_samples: int = 48,
        hidden_size: int = 128,
        samples_per_step: int = 2,
        embedding_dim: int | None = 16,
        compress: bool = True,
        svd_rank: int | None = None,
    ) -> None:
        super().__init__()
        if num_samples % samples_per_step:
            raise ValueError("num_samples must be a multiple of samples_per_step.")
        self.num_channels = num_channels
        self.num_samples = num_samples
        self.samples_per_step = samples_per_step
        self.compress = compress
        self.embedding_dim = embedding_dim or hidden_size
        self.gru = nn.GRU(num_channels * samples_per_step, hidden_size, batch_first=True)
        self.project = nn.Linear(hidden_size, embedding_dim) if embedding_dim else nn.Identity()
        # Filled by training; identity-like until then.
        self.register_buffer("svd_basis", None if svd_rank is None else torch.eye(num_samples)[:svd_rank].clone())

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
        if self.svd_basis is not None:
            waveforms = self.svd_basis.T @ (self.svd_basis @ waveforms)
        if self.compress:
            waveforms = torch.asinh(waveforms / 4.0)
        steps = waveforms.reshape(len(waveforms), -1, self.num_channels * self.samples_per_step)
        _, hidden = self.gru(steps)
        return self.project(hidden[-1])


def build_embedder(*, architecture: str, **kwargs: Any) -> RecurrentEmbedder:
    """Make an embedder with random weights.

    Parameters
    ----------
    architecture : {"gru"}
        The only one so far.
    **kwargs
        Of that class.

    Raises
    ------
    ValueError
        The architecture is not known.
    """
    if architecture != "gru":
        raise ValueError(f"Unknown embedder architecture {architecture!r}: choose 'gru'.")
    return RecurrentEmbedder(**kwargs)
