"""Students: DeiT's distilled vision transformers, timm's other models with two heads, and any other with its one."""

import ast
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..runtime.errors import InputError
from ..runtime.inputs import normalize
from ..runtime.own_code import is_own
from ..runtime.spelling import did_you_mean
from .heads import distillation_head, dry_run, keep_both_heads

_TIMMS_START = 1e-4
"""Above what timm's new class tokens hold (standard deviation 1e-6), and far below any trained one."""


class Student(nn.Module):
    """A timm model that takes uint8 views and returns the logits of each of its heads."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, image_size: int | None = None) -> None:
        """Take `model`, built for images of `image_size` pixels or of the size that timm notes; see `heads`."""
        super().__init__()
        config = cast(dict[str, Any], model.pretrained_cfg)
        if not model.num_classes:
            raise InputError("", "a classifier", "an encoder without classes", "name another `model`")
        self.model = model
        self.image_size = _only_size(model) or image_size or int(config["input_size"][-1])
        """Height and width of the images that the model was made for."""
        self._distillation_head = distillation_head(model, self.image_size)
        self.distilled = bool(self._distillation_head)
        self.heads: tuple[str, ...] = ("class", "distill") if self.distilled else ("class",)
        self.register_buffer("mean", torch.tensor(config["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]), persistent=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits (n, classes) for each of `heads`, from uint8 images (n, height, width, RGB)."""
        if images.shape[-1] != 3:
            expected = "uint8 images (n, height, width, 3)"
            raise InputError("`images`", expected, f"a tensor {tuple(images.shape)}", "`layout=channels_last`")
        logits = self.model(normalize(images, self.mean, self.std))
        return cast(tuple[torch.Tensor, ...], logits[: len(self.heads)]) if self.distilled else (logits,)

    def train(self, mode: bool = True) -> Self:
        """Train or evaluate as any module; both heads answer either way."""
        super().train(mode)
        keep_both_heads(self.model)
        return self

    def silence_distillation_head(self) -> None:
        """Zero and freeze a distillation head that nothing trains.

        timm's average of the two heads is then half of the class head's logits: the same prediction.
        """
        for name in self._distillation_head:
            nn.init.zeros_(self.model.get_parameter(name).requires_grad_(False))
        self.heads = ("class",)

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return cast(int, self.model.num_classes)

    @property
    def has_distillation_token(self) -> bool:
        """Whether two heads answer, each from a token of its own."""
        return len(self.heads) == 2 and isinstance(self.model, VisionTransformerDistilled)

    def require_size(self, size: int, *, resizable: bool = True) -> None:
        """Raise ValueError if the model takes images of another size than `size` pixels.

        `resizable`: whether arguments of the model can be given, such as its image size.
        """
        try:
            if takes_it := _only_size(self.model) in (None, size):
                dry_run(self.model, size)
        except InputError:
            takes_it = False
        if not takes_it:
            other = f"name another `model`, or `image_size={self.image_size}`"
            resizable = resizable and _has_argument(self.model, "img_size")
            remedy = f"add `model_kwargs=img_size={size}`" if resizable else other
            raise InputError("`model`", f"one for views of {size} pixels", f"one for {self.image_size}", remedy)

    def initialize(self, weights: dict[str, torch.Tensor], source: str) -> list[str]:
        """Start from the weights of `source`; return the names of the heads that start afresh instead.

        Position embeddings of another image size are resized as DeiT's main.py does, bicubically and without
        antialiasing; those of the class and distillation tokens stay. Heads for another number of classes start
        afresh. Raises ValueError if anything else differs.
        """
        own, weights = self.model.state_dict(), dict(weights)
        if self.distilled != any("dist" in name for name in weights):  # as timm names these heads in all families
            ours, theirs = ("a", "none") if self.distilled else ("no", "one")
            raise InputError(source, f"weights with {ours} distillation head", theirs, "theirs is another `model`")
        if isinstance(self.model, VisionTransformer) and "pos_embed" in weights:
            weights["pos_embed"] = _resized(weights["pos_embed"], self.model)
        afresh = [head for head in self._classifiers() if _shape(own, head) != _shape(weights, head)]
        kept, wanted = (
            {name: value for name, value in state.items() if name.rpartition(".")[0] not in afresh}
            for state in (weights, own)
        )
        for name in sorted(kept.keys() | wanted.keys()):
            have, expected = (state[name].shape if name in state else None for state in (kept, wanted))
            if have != expected:
                raise InputError(
                    source,
                    f"{name} {_text(expected)}",
                    _text(have),
                    "name the `model` (and `model_kwargs`) that these weights belong to",
                )
        self.model.load_state_dict({**own, **kept})
        silent = not any(self.model.get_parameter(name).any() for name in self._distillation_head)
        if self.distilled and not afresh and silent:
            self.silence_distillation_head()
        return afresh

    def _classifiers(self) -> tuple[str, ...]:
        names = cast(dict[str, Any], self.model.pretrained_cfg).get("classifier") or ()
        noted = names if isinstance(names, tuple) else (names,)
        found = (name.rpartition(".")[0] for name in self._distillation_head)  # timm's notes lack some
        return tuple(dict.fromkeys((*noted, *found)))

    @torch.inference_mode()
    def token_similarity(self, images: torch.Tensor) -> torch.Tensor:
        """Return the cosine similarity of class and distillation token, float32 (n, 1 + depth).

        Of the learned tokens first, then of what each block makes of them (Touvron et al. 2021, section 5.2). Only for
        a model that `has_distillation_token`.
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


def _has_argument(model: nn.Module, name: str) -> bool:
    """Return whether a model's class, or one that it passes its arguments on to, takes an argument."""
    return any(name in inspect.signature(kind).parameters for kind in type(model).__mro__)


def _only_size(model: nn.Module) -> int | None:
    """Return the height and width of a vision transformer's images; others don't say what they take."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return int(size[0]) if size else None


def _resized(pos_embed: torch.Tensor, model: VisionTransformer) -> torch.Tensor:
    if pos_embed.shape == model.pos_embed.shape:
        return pos_embed
    tokens = 0 if model.no_embed_class else model.num_prefix_tokens
    resized: torch.Tensor = resample_abs_pos_embed(
        pos_embed, model.patch_embed.grid_size, num_prefix_tokens=tokens, antialias=False
    )
    return resized


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
        raise InputError(folder, "a model in timm's local-dir form", f"an error: {reason}") from error


def trained_student(
    name: str, weights: dict[str, torch.Tensor], source: str, *, classes: int | None = None, **kwargs: Any
) -> Student:
    """Return model `name` with the weights of `source`; ValueError if they are not its weights.

    `kwargs` are those of `build_student`. How many `classes` there are, weights of a timm model say themselves.
    """
    if is_own(name):
        if classes is None:
            raise InputError(source, "a student that train-student wrote", f"other weights of {name}")
        student = build_student(name, classes=classes, seed=0, **kwargs)
        student.initialize(weights, source)
        return student
    if not (config := timm.get_pretrained_cfg(name)):
        similar = did_you_mean(name, timm.list_models())
        raise InputError(f"model {name}", "a timm model", f"none of that name{similar}")
    head = config.classifier
    shape = _shape(weights, head[0] if isinstance(head, tuple) else head or "")
    if shape is None:
        raise InputError(source, f"the weights of model {name}", f"none of its head {head}")
    student = build_student(name, classes=shape[0], seed=0, drop_path=0.0, **kwargs)
    student.initialize(weights, source)
    return student


def parse_kwargs(given: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """Return a model's arguments by name: as they are, or of timm's texts `KEY=VALUE KEY=VALUE`.

    Their values are read as Python literals where they are such.
    """
    if isinstance(given, Mapping):
        return dict(given)
    kwargs: dict[str, Any] = {}
    for text in " ".join([given] if isinstance(given, str) else given).split():
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError("`model_kwargs`", "KEY=VALUE", repr(text), "is a pattern of shards not quoted?")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def build_student(name: str, *, classes: int, seed: int, drop_path: float = 0.1, **kwargs: Any) -> Student:
    """Return a student initialised from `seed`: timm model `name` with `classes` classes.

    It takes uint8 images (n, height, width, 3), normalises them itself, and returns a tuple of the logits of each of
    its `heads`, in training and in evaluation; `model` is timm's own.

    `kwargs` reach the timm model (`img_size`, `patch_size`, `embed_dim`, ...). A name `MODULE:FUNCTION` is that of a
    function of one's own, which takes `classes` and `kwargs` and returns what `as_student` does. Raises ValueError if
    there is no such model or it takes no such arguments.
    """
    if is_own(name):
        from .own_students import student_of_code  # which builds on what is here

        return student_of_code(name, classes=classes, seed=seed, **kwargs)
    if ":" not in name and not timm.is_model(name):
        similar = did_you_mean(name, timm.list_models())
        raise InputError(f"model {name}", "a timm model", f"none of that name{similar}")
    try:
        model = _seeded(seed, name, num_classes=classes, drop_path_rate=drop_path, **kwargs)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        if "'drop_path_rate'" not in reason:
            given = " ".join(f"{key}={value}" for key, value in kwargs.items()) or "none"
            raise InputError(f"model {name}", "arguments that it takes", given, reason) from error
        if drop_path:
            raise InputError(
                "`drop_path`", f"0 for model {name}, which has no stochastic depth", drop_path, "add `drop_path=0`"
            ) from error
        model = _seeded(seed, name, num_classes=classes, **kwargs)
    size = kwargs.get("img_size")
    try:
        return Student(model, size if isinstance(size, int) else None)
    except InputError as error:
        raise error.within(f"model {name}") from error


def _seeded(seed: int, name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = cast(nn.Module, timm.create_model(name, **arguments))
    token = getattr(model, "cls_token", None)
    if name.startswith("deit") and token is not None and bool((token.abs() < _TIMMS_START).all()):
        nn.init.trunc_normal_(token, std=0.02)  # as published, and as the distillation token starts
    return model
