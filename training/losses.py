"""Losses of the detector and of the embedder."""

from __future__ import annotations

import torch
from torch.nn import functional


def detection_loss(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, *, positive_weight: float
) -> torch.Tensor:
    """Binary cross-entropy of every sample, in which spikes weigh more.

    Parameters
    ----------
    logits, target, weight : torch.Tensor, [num_windows, window_samples]
        See `targets.detection_targets`.
    positive_weight : float
        Of a spike.

    Returns
    -------
    torch.Tensor
        Weighted mean.
    """
    loss = functional.binary_cross_entropy_with_logits(
        logits, target, pos_weight=torch.tensor(positive_weight, device=logits.device), reduction="none"
    )
    return (loss * weight).sum() / weight.sum()


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


def hard_triplet_loss(embedding: torch.Tensor, labels: torch.Tensor, *, margin: float = 1.0) -> torch.Tensor:
    """Triplet loss over the farthest spike of the own unit and the nearest of another.

    Parameters
    ----------
    embedding, labels, margin
        See `triplet_loss`.

    Returns
    -------
    torch.Tensor
        Mean loss.

    References
    ----------
    Hermans et al. 2017, In defense of the triplet loss (arXiv 1703.07737): "batch hard".
    """
    same = labels[:, None] == labels[None]
    distance = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
    farthest = torch.where(same, distance, 0.0).amax(dim=1)
    nearest = torch.where(same, torch.inf, distance).amin(dim=1)
    return functional.relu(farthest - nearest + margin).mean()


def _cosine_logits(embedding: torch.Tensor, temperature: float) -> torch.Tensor:
    unit_length = functional.normalize(embedding, dim=1)
    return unit_length @ unit_length.T / temperature


def nt_xent_loss(embedding: torch.Tensor, labels: torch.Tensor, *, temperature: float = 0.1) -> torch.Tensor:
    """Normalised, temperature-scaled cross-entropy: find the partner of a spike among all of other units.

    Every spike is an anchor once; its partner is drawn at random from its unit.

    Parameters
    ----------
    embedding, labels
        See `triplet_loss`.
    temperature : float
        Of the cosine similarities.

    Returns
    -------
    torch.Tensor
        Mean loss.

    References
    ----------
    Chen et al. 2020, A simple framework for contrastive learning (arXiv 2002.05709).
    """
    same = labels[:, None] == labels[None]
    others = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    partner = functional.one_hot(torch.multinomial(others.float(), 1).squeeze(1), len(labels)).bool()
    logits = _cosine_logits(embedding, temperature)
    return functional.cross_entropy(logits.masked_fill(same & ~partner, -torch.inf), partner.float().argmax(dim=1))


def supervised_contrastive_loss(
    embedding: torch.Tensor, labels: torch.Tensor, *, temperature: float = 0.1
) -> torch.Tensor:
    """As `nt_xent_loss`, but every other spike of the unit is a partner.

    Parameters
    ----------
    embedding, labels, temperature
        See `nt_xent_loss`.

    Returns
    -------
    torch.Tensor
        Mean loss.

    References
    ----------
    Khosla et al. 2020, Supervised contrastive learning (arXiv 2004.11362), equation 2.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    partners = (labels[:, None] == labels[None]) & ~itself
    log_share = functional.log_softmax(_cosine_logits(embedding, temperature).masked_fill(itself, -torch.inf), dim=1)
    return -(log_share.masked_fill(~partners, 0.0).sum(dim=1) / partners.sum(dim=1)).mean()
