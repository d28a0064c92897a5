"""Losses of the embedder."""

from __future__ import annotations

import torch
from torch.nn import functional


def _class_sums(embedding: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    classes, inverse, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = embedding.new_zeros(len(classes), embedding.shape[1]).index_add(0, inverse, embedding)
    return sums, inverse, counts


def prototype_loss(embedding: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Classify each spike of a trial by its distance to the mean of every unit.

    The logits are minus half the squared Euclidean distances, so that a unit becomes a Gaussian of
    unit variance: distances between embeddings are in standard deviations, on every recording.
    A spike is left out of its own unit's mean.

    Parameters
    ----------
    embedding : torch.Tensor, [num_spikes, embedding_dim]
        Of one trial.
    labels : torch.Tensor, int [num_spikes]
        Units; each has two spikes or more.

    Returns
    -------
    torch.Tensor
        Mean cross-entropy.

    References
    ----------
    Snell et al. 2017, Prototypical networks for few-shot learning (arXiv 1703.05175).
    """
    sums, inverse, counts = _class_sums(embedding, labels)
    means = sums / counts[:, None]
    distance = torch.cdist(embedding, means, compute_mode="donot_use_mm_for_euclid_dist").square()
    own_mean = (sums[inverse] - embedding) / (counts[inverse] - 1)[:, None]
    own = functional.one_hot(inverse, len(counts)).bool()
    own_distance = (embedding - own_mean).square().sum(dim=1, keepdim=True)
    return functional.cross_entropy(-0.5 * torch.where(own, own_distance, distance), inverse)


def triplet_loss(embedding: torch.Tensor, labels: torch.Tensor, *, margin: float = 1.0) -> torch.Tensor:
    """Triplet loss over random triplets of one trial: the paper's.

    Every spike is an anchor once; its positive and its negative are drawn at random.

    Parameters
    ----------
    embedding : torch.Tensor, [num_spikes, embedding_dim]
        Of one trial.
    labels : torch.Tensor, int [num_spikes]
        Units; there are two or more, with two spikes or more.
    margin : float
        1 in the paper.

    Returns
    -------
    torch.Tensor
        Mean loss.
    """
    same = labels[:, None] == labels[None]
    others = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = torch.multinomial(others.float(), 1).squeeze(1)
    negative = torch.multinomial((~same).float(), 1).squeeze(1)
    return functional.triplet_margin_loss(embedding, embedding[positive], embedding[negative], margin=margin)
