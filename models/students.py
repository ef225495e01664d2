"""Students: DeiT's distilled vision transformers from timm (and any other timm model, with its one head)."""

import ast
from collections.abc import Iterable
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
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
        self.distilled = hasattr(model, "head_dist")
        self.heads: tuple[str, ...] = ("class", "distill") if self.distilled else ("class",)
        self.register_buffer("mean", torch.tensor(config["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]), persistent=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits (n, classes) for each of `heads`, from uint8 images (n, height, width, RGB)."""
        batch = normalize(images, self.mean, self.std)
        if not self.distilled:
            return (self.model(batch),)
        model = cast(Any, self.model)  # whose own forward returns the heads' average, and both only in training
        tokens = model.head_drop(model.forward_features(batch)[:, :2])
        logits = (model.head(tokens[:, 0]), model.head_dist(tokens[:, 1]))
        return logits[: len(self.heads)]

    def silence_distillation_head(self) -> None:
        """Zero and freeze a distillation head that nothing trains.

        timm's average of the two heads is then half of the class head's logits: the same prediction.
        """
        head = cast(nn.Linear, self.model.head_dist)
        for parameter in head.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))
        self.heads = ("class",)

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return cast(int, self.model.num_classes)

    @property
    def image_size(self) -> int:
        """Height and width of the images that the model was made for."""
        fixed = getattr(getattr(self.model, "patch_embed", None), "img_size", None)
        return int(fixed[0] if fixed else cast(dict[str, Any], self.model.pretrained_cfg)["input_size"][-1])

    def require_size(self, size: int) -> None:
        """Raise ValueError if the model takes images of another size than `size` pixels."""
        expected = getattr(getattr(self.model, "patch_embed", None), "img_size", None)
        if expected and expected[0] != size:
            raise ValueError(
                f"model: views are {size} pixels, the model takes {expected[0]}; add --model-kwargs img_size={size}"
            )

    def initialize(self, weights: dict[str, torch.Tensor], source: str) -> list[str]:
        """Start from the weights of `source`; return the names of the heads that start afresh instead.

        Position embeddings of another image size are resized as DeiT's main.py does, bicubically and without
        antialiasing; those of the class and distillation tokens stay. Heads for another number of classes start
        afresh. Raises ValueError if anything else differs.
        """
        model, own = cast(Any, self.model), self.model.state_dict()
        if self.distilled != ("dist_token" in weights):
            has, found = ("a", "none") if self.distilled else ("no", "one")
            raise ValueError(
                f"{source}: expected weights with {has} distillation token, found {found}; theirs is another --model"
            )
        weights = dict(weights)
        if "pos_embed" in own and "pos_embed" in weights and own["pos_embed"].shape != weights["pos_embed"].shape:
            tokens = 0 if model.no_embed_class else model.num_prefix_tokens
            weights["pos_embed"] = resample_abs_pos_embed(
                weights["pos_embed"], model.patch_embed.grid_size, num_prefix_tokens=tokens, antialias=False
            )
        afresh = [head for head in self._classifiers() if _shape(own, head) != _shape(weights, head)]
        kept, wanted = (
            {name: value for name, value in state.items() if name.rpartition(".")[0] not in afresh}
            for state in (weights, own)
        )
        for name in sorted(kept.keys() | wanted.keys()):
            have, expected = (state[name].shape if name in state else None for state in (kept, wanted))
            if have != expected:
                raise ValueError(
                    f"{source}: expected {name} {_text(expected)}, found {_text(have)}; "
                    "name the --model (and --model-kwargs) that these weights belong to"
                )
        self.model.load_state_dict({**own, **kept})
        if self.distilled and not afresh and not model.head_dist.weight.any():
            self.silence_distillation_head()
        return afresh

    def _classifiers(self) -> tuple[str, ...]:
        names = cast(dict[str, Any], self.model.pretrained_cfg).get("classifier") or ()
        return names if isinstance(names, tuple) else (names,)

    @torch.inference_mode()
    def token_similarity(self, images: torch.Tensor) -> torch.Tensor:
        """Return the cosine similarity of class and distillation token, float32 (n, 1 + depth).

        Of the learned tokens first, then of what each block makes of them (Touvron et al. 2021, section 5.2).
        """
        model = cast(Any, self.model)
        learned = F.cosine_similarity(model.cls_token[0], model.dist_token[0])
        blocks = model.forward_intermediates(
            normalize(images, self.mean, self.std),
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        each = [F.cosine_similarity(tokens[:, 0].float(), tokens[:, 1].float()) for _, tokens in blocks]
        return torch.stack([learned.expand(len(images)), *each], dim=1)


def _shape(state: dict[str, torch.Tensor], layer: str) -> torch.Size | None:
    weight = state.get(f"{layer}.weight")
    return None if weight is None else weight.shape


def _text(shape: torch.Size | None) -> str:
    return "none" if shape is None else "x".join(str(n) for n in shape) or "a number"


def open_folder(folder: str) -> Student:
    """Return a classifier in timm's local-dir form, such as a teacher; ValueError if its files are none."""
    try:
        return Student(timm.create_model(f"local-dir:{folder}", pretrained=True))
    except Exception as error:  # timm raises whatever a damaged file makes it
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(f"{folder}: expected a model in timm's local-dir form; {reason}") from error


def classes_of(name: str, weights: dict[str, torch.Tensor], source: str) -> int:
    """Return how many classes the weights of timm model `name` tell apart; ValueError if they are not its weights."""
    if not (config := timm.get_pretrained_cfg(name)):
        raise ValueError(f"model {name}: expected a timm model")
    head = config.classifier
    shape = _shape(weights, head[0] if isinstance(head, tuple) else head or "")
    if shape is None:
        raise ValueError(f"{source}: expected the weights of model {name}, found none of its head {head}")
    return shape[0]


def parse_kwargs(texts: Iterable[str]) -> dict[str, Any]:
    """Return timm's `KEY=VALUE KEY=VALUE` model arguments, values read as Python literals where they are such."""
    kwargs: dict[str, Any] = {}
    for text in " ".join(texts).split():
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"model-kwargs: expected KEY=VALUE, found {text!r}; is a pattern of shards not quoted?")
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
