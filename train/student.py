"""What training, evaluation and comparison ask of a student; who builds one is no matter of theirs."""

from typing import Any, Protocol

import torch
from torch import nn


class Student(Protocol):
    """A model of one head or two that takes uint8 views; a module of torch, but for what is named here."""

    heads: tuple[str, ...]
    """`class`, and `distill` where a second set of logits is trained."""
    model: nn.Module
    """What is trained and saved."""
    training: bool

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits (n, classes) for each of `heads`, from uint8 images (n, height, width, RGB)."""

    def train(self, mode: bool = True) -> Any:
        """Train or evaluate."""

    def eval(self) -> Any:
        """Evaluate."""

    def token_similarity(self, images: torch.Tensor) -> torch.Tensor:
        """Return the cosine similarity of class and distillation token, float32 (n, 1 + depth)."""
