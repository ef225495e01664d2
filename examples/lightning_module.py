"""Lightning: `python examples/lightning_module.py STORE SHARDS [CHECKPOINT]`.

The dataset is the dataloader. Lightning keeps its state in each checkpoint, so a run goes on in the middle of an epoch.
"""

import sys

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.optim import create_optimizer_v2

import distillcache as dc

EPOCHS, BATCH_SIZE, LR, SAVE_EVERY = 3, 8, 1e-4, 2
MODEL = "deit_tiny_distilled_patch16_224"


class Distilled(lightning.LightningModule):
    """A student with two heads, and the loss of each step in `losses`."""

    def __init__(self, dataset: dc.ViewDataset, **model_kwargs: int) -> None:
        super().__init__()
        self.dataset = dataset
        self.student = dc.build_student(MODEL, classes=dataset.classes, seed=0, drop_path=0.0, **model_kwargs)
        self.losses: list[float] = []

    def train_dataloader(self) -> dc.ViewDataset:
        """Return the dataset, which is asked for anew in each epoch."""
        self.dataset.set_epoch(self.trainer.current_epoch)
        return self.dataset

    def training_step(self, batch: dc.ViewBatch, number: int) -> torch.Tensor:
        """Return the loss of both heads."""
        logits = self.student(batch["image"])
        loss = dc.distillation_loss(logits, batch["soft_target"], batch["teacher_label"], distill="hard").total
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return timm's AdamW, without decay of biases, norms and tokens."""
        return create_optimizer_v2(self.student.model, opt="adamw", lr=LR, weight_decay=0.05)


def main(
    cache: str, shards: str, checkpoint: str | None = None, max_steps: int = -1, **model_kwargs: int
) -> list[float]:
    """Train for a few epochs, or to a number of steps; return the loss of each step."""
    dataset = dc.ViewDataset(dc.open_store(cache), shards, batch_size=BATCH_SIZE, layout="channels_last")
    module = Distilled(dataset, **model_kwargs)
    keep = ModelCheckpoint("runs", save_last=True, every_n_train_steps=SAVE_EVERY)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, max_steps=max_steps, accelerator="auto", devices=1, use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1, callbacks=[keep], logger=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=checkpoint)
    print(f"{trainer.global_step} steps: loss {module.losses[-1]:.4f}; to go on, name runs/last.ckpt")
    return module.losses


if __name__ == "__main__":
    main(*sys.argv[1:])
