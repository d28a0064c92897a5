"""Lightning modules: what is optimised and what is logged."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch

from spikeinterface_simsort.models import build_detector, build_embedder
from spikeinterface_simsort.training.losses import (
    detection_loss,
    hard_triplet_loss,
    nt_xent_loss,
    prototype_loss,
    supervised_contrastive_loss,
    triplet_loss,
)

LOSSES = {
    "prototype": prototype_loss,
    "triplet": triplet_loss,
    "hard_triplet": hard_triplet_loss,
    "nt_xent": nt_xent_loss,
    "supervised_contrastive": supervised_contrastive_loss,
}


class _Module(lightning.LightningModule):
    """AdamW with a warm-up and a cosine decay over the whole run."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters({"config": config})
        self.config = config

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule, for Lightning."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config["learning_rate"], weight_decay=self.config["weight_decay"]
        )
        # Fewer than the configuration has where several devices share the trials.
        steps = int(self.trainer.estimated_stepping_batches)
        warm_up = max(steps // 20, 1)

        def rate(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.5 * (1.0 + math.cos(math.pi * min((step - warm_up) / max(steps - warm_up, 1), 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class DetectorModule(_Module):
    """Weighted binary cross-entropy of every sample.

    Parameters
    ----------
    config : dict
        The section ``detector`` of a training configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.network = build_detector(architecture=config["architecture"], **config["kwargs"])

    def _loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        traces, target, weight = (tensor.flatten(0, 1) for tensor in batch)
        return detection_loss(self.network(traces), target, weight, positive_weight=self.config["positive_weight"])

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Loss of one batch."""
        loss = self._loss(batch)
        self.log(
            "train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch[0])
        )
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """Log the loss on cells that are not trained on."""
        self.log("val_loss", self._loss(batch), prog_bar=True, sync_dist=True, batch_size=len(batch[0]))


class EmbedderModule(_Module):
    """Loss of the embedding, trial by trial.

    Parameters
    ----------
    config : dict
        The section ``embedder`` of a training configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.network = build_embedder(architecture=config["architecture"], **config["kwargs"])
        self.loss = LOSSES[config["loss"]]

    def _losses(self, batch: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        # A trial with one unit separates nothing.
        trials = [trial for trial in batch if len(torch.unique(trial[1])) > 1]
        if not trials:
            # Nothing to learn from, and a step must still have a gradient.
            return torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum() * 0.0
        embedding = self.network(torch.cat([waveforms for waveforms, _ in trials]))
        parts = torch.split(embedding, [len(labels) for _, labels in trials])
        return torch.stack([self.loss(part, labels) for part, (_, labels) in zip(parts, trials, strict=True)]).mean()

    def training_step(self, batch: list[tuple[torch.Tensor, torch.Tensor]], _: int) -> torch.Tensor:
        """Loss of one batch."""
        loss = self._losses(batch)
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: list[tuple[torch.Tensor, torch.Tensor]], _: int) -> None:
        """Log the loss on cells that are not trained on."""
        self.log("val_loss", self._losses(batch), prog_bar=True, sync_dist=True, batch_size=len(batch))
