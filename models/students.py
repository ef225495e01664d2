"""Students: DeiT's distilled vision transformers from timm (and any other timm model, with its one head)."""

import ast
from collections.abc import Iterable
from typing import Any, cast

import timm
import torch
from torch import nn

from .inputs import normalize


class Student(nn.Module):
    """A timm model that takes uint8 views and returns the logits of each of its heads."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        config = cast(dict[str, Any], model.pretrained_cfg)
        self.model = model
        self.heads: tuple[str, ...] = ("class", "distill") if hasattr(model, "set_distilled_training") else ("class",)
        self.register_buffer("mean", torch.tensor(config["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]), persistent=False)
        if self.heads == ("class", "distill"):
            cast(Any, model).set_distilled_training(True)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits (n, classes) for each of `heads`, from uint8 images (n, height, width, RGB)."""
        batch = normalize(images, self.mean, self.std)
        if self.heads == ("class",):
            return (self.model(batch),)
        if self.training:
            return cast(tuple[torch.Tensor, ...], self.model(batch))
        model = cast(Any, self.model)  # in evaluation timm returns the heads' average only
        tokens = model.forward_features(batch)
        return model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])

    def require_size(self, size: int) -> None:
        """Raise ValueError if the model takes images of another size than `size` pixels."""
        expected = getattr(getattr(self.model, "patch_embed", None), "img_size", None)
        if expected and expected[0] != size:
            raise ValueError(
                f"model: views are {size} pixels, the model takes {expected[0]}; add --model-kwargs img_size={size}"
            )


def parse_kwargs(texts: Iterable[str]) -> dict[str, Any]:
    """Return timm's `KEY=VALUE KEY=VALUE` model arguments, values read as Python literals where they are such."""
    kwargs: dict[str, Any] = {}
    for text in " ".join(texts).split():
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"model-kwargs: expected KEY=VALUE, found {text!r}")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def build_student(name: str, *, classes: int, seed: int, drop_path: float = 0.1, **kwargs: Any) -> Student:
    """Return a student initialised from `seed`: timm model `name` with `classes` classes.

    `kwargs` reach the timm model (`img_size`, `patch_size`, `embed_dim`, ...). Raises ValueError if timm has no such
    model or it takes no such arguments.
    """
    torch.manual_seed(seed)
    try:
        return Student(timm.create_model(name, num_classes=classes, drop_path_rate=drop_path, **kwargs))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"model {name}: expected a timm model and arguments that it takes, {kwargs}; {reason}"
        ) from error
