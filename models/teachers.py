"""Teachers: any timm classifier, by name or from a folder, as a function from views to logits."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from torch import nn

from ..runtime import atomic
from ..runtime.compiling import compiling
from ..runtime.errors import InputError
from ..runtime.inputs import normalize
from ..runtime.quiet import quiet
from ..runtime.spelling import did_you_mean
from ..runtime.transfers import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A pretrained classifier in evaluation mode, and what the store records of it."""

    name: str
    model: nn.Module
    device: torch.device
    sha256: str
    """SHA-256 over the names, shapes, dtypes and bytes of all weights."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    """Height and width at which it sees views; those of another size are resized to it, on the device."""
    crop_pct: float
    """Side of the centre crop that the model is evaluated on, as a share of the image's shorter side."""
    dtype: str
    """`float32`, or `bfloat16` under autocast."""
    classes: int
    class_names: tuple[str, ...]
    compiled: bool = False
    """Whether `model` is what torch.compile made of it."""

    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (n, classes) for uint8 views (n, height, width, RGB), on the teacher's device."""
        [images] = to_device(self.device, images)
        batch = normalize(images, _on_device(self.mean, self.device), _on_device(self.std, self.device))
        if batch.shape[-1] != self.input_size:
            size = (self.input_size, self.input_size)
            batch = F.interpolate(batch, size, mode="bicubic", antialias=True)
        amp = torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")
        batch = batch.contiguous(memory_format=torch.channels_last)
        try:
            with amp, compiling(self.compiled):
                output = self.model(batch)
        except (RuntimeError, TypeError, IndexError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise
            reason = f"an error: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            expected = f"a model of images {tuple(batch.shape)}, {batch.dtype}"
            raise InputError(f"teacher {self.name}", expected, reason) from error
        logits = getattr(output, "logits", output)
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else ()
        if shape != (len(images), self.classes):
            found = f"a tensor {shape}" if shape else type(logits).__name__
            raise InputError(f"teacher {self.name}", f"logits ({len(images)}, {self.classes})", found)
        return cast(torch.Tensor, logits).float()


def timm_teacher(
    name: str, *, device: torch.device, amp: bool, size: int | None = None, compiled: bool = False
) -> Teacher:
    """Return the pretrained teacher `name`: a timm name, `local-dir:FOLDER`, or a folder that train-teacher wrote.

    It sees views at `size` pixels, or at the size it was made for; `compiled` passes it to torch.compile. Raises
    ValueError if there is no such model, its weights can't be had, or it takes one size only and that is another.
    """
    source = f"local-dir:{name}" if name and Path(name).is_dir() else name
    if not name or (":" not in source and not timm.is_model(source)):
        expected = "a timm name, such as timm.list_pretrained('regnety*') gives, or a folder that train-teacher wrote"
        found = "a file" if name and Path(name).is_file() else f"neither{did_you_mean(name, timm.list_pretrained())}"
        raise InputError(f"teacher {name or repr(name)}", expected, found)
    try:
        with quiet("huggingface_hub"):  # which logs each of its retries
            model = timm.create_model(source, pretrained=True).eval().requires_grad_(False)
    except Exception as error:  # timm and the hub raise whatever a name, a file or the network makes them
        found, remedy = f"an error: {type(error).__name__}: {str(error).partition(chr(10))[0]}", ""
        if type(error).__name__ == "LocalEntryNotFoundError":  # the hub's, which timm imports
            found = "no answer from the Hugging Face hub and no copy in its cache"
            remedy = "name a folder that holds it, or load it once where the hub is in reach and set HF_HUB_OFFLINE=1"
        raise InputError(f"teacher {name}", "a timm model with pretrained weights", found, remedy) from error
    config: dict[str, Any] = model.pretrained_cfg
    own = config["input_size"][-1]
    if size not in (None, own) and hasattr(getattr(model, "patch_embed", None), "img_size"):
        raise InputError("`teacher_size`", f"{own}, the only size that {name} takes", size)
    sha256, placed = weights_digest(model), model.to(device=device, memory_format=torch.channels_last)
    return Teacher(
        name=name,
        sha256=sha256,
        model=cast(nn.Module, torch.compile(placed)) if compiled else placed,
        compiled=compiled,
        device=device,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        input_size=size or own,
        crop_pct=config.get("crop_pct") or 0.875,
        dtype="bfloat16" if amp else "float32",
        classes=model.num_classes,
        class_names=_class_names(config, model.num_classes),
    )


def license_of(name: str) -> str:
    """Return the licence that timm notes for the weights `name`, or `unknown`."""
    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no name of timm's, or weights that it does not know
        known = None
    return (known and known.license) or "unknown"


def save_teacher(
    model: nn.Module,
    folder: Path,
    *,
    name: str,
    size: int,
    class_names: Sequence[str],
    crop_pct: float = 1.0,
    model_args: dict[str, Any] | None = None,
) -> None:
    """Write a trained model in timm's local-dir form: model.safetensors and then config.json.

    `model_args` are what timm's model `name` was made with, such as `img_size`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    kept = {key: config[key] for key in ("mean", "std", "interpolation", "first_conv", "classifier") if key in config}
    pretrained = {**kept, "input_size": [3, size, size], "crop_pct": crop_pct, "label_names": list(class_names) or None}
    copied = {  # as some models have one weight by several names, which safetensors refuses
        key: value.clone(memory_format=torch.contiguous_format) for key, value in model.state_dict().items()
    }
    weights = to_safetensors(copied)
    atomic.write(folder / "model.safetensors", lambda file: file.write(weights))
    description = {"architecture": name, "num_classes": model.num_classes, "pretrained_cfg": pretrained}
    description |= {"model_args": model_args} if model_args else {}
    atomic.write_text(folder / "config.json", json.dumps(description, indent=2) + "\n")


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256, hex, over the names, shapes, dtypes and bytes of a model's weights and buffers."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@functools.cache
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)


def _class_names(config: dict[str, Any], classes: int) -> tuple[str, ...]:
    names = config.get("label_names") or ()
    if not names and classes == 1000:
        from timm.data import ImageNetInfo

        imagenet = ImageNetInfo("imagenet-1k")
        names = [imagenet.index_to_description(index) for index in range(classes)]
    return tuple(names) if len(names) == classes else ()
