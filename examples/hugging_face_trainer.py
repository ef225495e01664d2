"""Hugging Face's Trainer: `python examples/hugging_face_trainer.py STORE SHARDS [CHECKPOINT]`.

`DeiTForImageClassificationWithTeacher` returns the logits of both heads, so it can be trained, too: its documentation
says "inference-only" because transformers has no loss for it.
"""

import sys
import tempfile
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, Trainer, TrainingArguments

import distillcache as dc

EPOCHS, BATCH_SIZE, LR, WORKERS = 3, 8, 1e-4, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Views(DataLoader):
    """The dataset's batches, of an epoch that the Trainer sets."""

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        self.dataset.set_epoch(epoch)


class DistillationTrainer(Trainer):
    """A Trainer whose loss is that of both heads; the loss of each step is in `losses`."""

    losses: list[float]

    def get_train_dataloader(self) -> DataLoader:
        """Return batches as the dataset has them: which rank gets which part it knows by itself."""
        return Views(self.train_dataset, batch_size=None, num_workers=WORKERS)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return what decays: as in DeiT's published code neither class token nor position embeddings."""
        spared = ("cls_token", "position_embeddings")
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith(spared)]

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Return the loss of both heads."""
        output = model(pixel_values=inputs["image"])
        logits = output.cls_logits, output.distillation_logits
        loss = dc.distillation_loss(logits, inputs["soft_target"], inputs["teacher_label"], distill="hard").total
        self.losses.append(loss.item())
        return loss


def main(cache: str, shards: str, checkpoint: str | None = None) -> list[float]:
    """Train for a few epochs, from the weights of `checkpoint` or new ones; return the loss of each step."""
    torch.manual_seed(0)
    dataset = dc.ViewDataset(dc.open_store(cache), shards, batch_size=BATCH_SIZE, mean=MEAN, std=STD)
    if checkpoint:
        model = DeiTForImageClassificationWithTeacher.from_pretrained(checkpoint)
    else:
        model = DeiTForImageClassificationWithTeacher(DeiTConfig(num_labels=dataset.classes))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=EPOCHS, learning_rate=LR, weight_decay=0.05, max_grad_norm=0,
            lr_scheduler_type="constant", save_strategy="no", report_to="none", remove_unused_columns=False,
            disable_tqdm=True,
        )  # fmt: skip
        trainer = DistillationTrainer(model, arguments, train_dataset=dataset)
        trainer.losses = []
        trainer.train()
    print(f"{len(trainer.losses)} steps: loss {trainer.losses[-1]:.4f}")
    return trainer.losses


if __name__ == "__main__":
    main(*sys.argv[1:])
