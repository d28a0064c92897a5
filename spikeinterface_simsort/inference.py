"""Networks as functions of arrays, whatever they are made of and wherever they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from spikeinterface_simsort.perceptrons import PeakPerceptron, WaveformPerceptron

if TYPE_CHECKING:
    from torch import nn


class TorchFunction:
    """A torch module as a function of arrays.

    Parameters
    ----------
    network : torch.nn.Module
        Set to evaluation.
    device : str
        Where it runs.
    batch_size : int
        Of the first dimension.
    """

    def __init__(self, network: nn.Module, *, device: str, batch_size: int) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self.batch_size = batch_size

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """What the network makes of an array, float32, of one length or more."""
        import torch

        with torch.inference_mode():
            batches = torch.from_numpy(inputs).to(self.device).split(self.batch_size)
            return torch.cat([self.network(batch) for batch in batches]).float().cpu().numpy()


def as_function(
    network: nn.Module | PeakPerceptron | WaveformPerceptron, *, device: str, batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function of arrays of a network.

    Parameters
    ----------
    network : torch.nn.Module, PeakPerceptron or WaveformPerceptron
        The latter two are such functions already.
    device : str
        Where a torch module runs.
    batch_size : int
        Windows or waveforms that it is given at a time.

    Returns
    -------
    callable
    """
    if isinstance(network, PeakPerceptron | WaveformPerceptron):
        return network
    return TorchFunction(network, device=device, batch_size=batch_size)
