"""Checkpoints: written whole or not at all, read without unpickling anything but tensors and plain values."""

import argparse
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from timm.models import clean_state_dict
from torch import nn

from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath, here

FORMAT = 4
"""Of a checkpoint: 1 had no losses of the heads, 2 no names of what gets no weight decay: there timm decided, and the
epochs of 3 had some groups of each shard, also with a window of shards."""
WEIGHTS_FORMAT = 1
_METADATA = "distillcache"


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run is: `step` batches of `epoch` are done, with that sum of losses; history has a row an epoch."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    class_loss_sum: float = 0.0
    distill_loss_sum: float = 0.0
    """Of the two heads; NaN where nothing is known of the first of them."""
    history: list[dict[str, float]] = field(default_factory=list)


def save(
    path: AnyPath,
    config: dict[str, Any],
    progress: Progress,
    undecayed: Collection[str],
    *,
    by_group: bool,
    **states: dict[str, Any],
) -> None:
    """Write everything that a resumed run needs to `path`: `model`, `optimizer`, and `ema` where there is one.

    `undecayed` names the weights that are spared in the optimizer's groups, beside vectors and biases; `by_group` is
    that of the run's `Order`.
    """
    noted = {name: getattr(progress, name) for name in Progress.__slots__}
    how = {"undecayed": sorted(undecayed), "by_group": by_group}
    state = {"format": FORMAT, "config": config, "progress": noted, **how, **states}
    atomic.write(path, lambda file: torch.save(state, file))


def load(path: AnyPath) -> dict[str, Any]:
    """Return what `save` wrote, or an older version of it; ValueError if it can't be read or is newer.

    `undecayed` is None where that was timm's to decide.
    """
    with here(path) as file:
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            found = state["format"]
        except Exception as error:  # torch raises whatever the file's bytes lead it to, and advises to unpickle it
            raise InputError(
                path,
                "a checkpoint",
                f"a damaged file ({type(error).__name__})",
                "remove it to start over, or name another `out`",
            ) from error
    _require_readable(path, found, FORMAT)
    if found < 4:
        state["by_group"] = True
    if found < 3:
        state["undecayed"] = None
    if found < 2 and state["progress"]["step"]:
        state["progress"] |= {"class_loss_sum": float("nan"), "distill_loss_sum": float("nan")}
    return state


def save_weights(path: AnyPath, model: nn.Module, config: dict[str, Any]) -> None:
    """Write a model's weights as safetensors, which plain `timm.create_model(..., checkpoint_path=...)` loads.

    Its metadata holds the run's configuration, so that the file says what it is.
    """
    weights = {  # copies, as some models have one weight by several names, which safetensors refuses
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    metadata = {_METADATA: json.dumps({"format": WEIGHTS_FORMAT, "config": config})}
    atomic.write(path, lambda file: file.write(to_safetensors(weights, metadata)))


def read_weights(path: AnyPath) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Return a model's weights by name, and the configuration of the run that wrote them if it was ours.

    `path` is a run's folder (its student.safetensors), a .safetensors file, or a PyTorch checkpoint, ours, DeiT's or
    timm's, with the weights alone or under `model` or `state_dict`. Raises ValueError if it holds no weights.
    """
    path = path / "student.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise InputError(path, "a checkpoint or the folder of a finished run", "no such file")
    with here(path) as file:
        weights, noted = _read(file, path)
    if noted:
        _require_readable(path, noted["format"], WEIGHTS_FORMAT if path.suffix == ".safetensors" else FORMAT)
    return weights, noted and noted["config"]


def _read(file: Path, named: AnyPath) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    try:
        state, noted = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
        weights = clean_state_dict(state)
        if not all(isinstance(value, torch.Tensor) for value in weights.values()) or not weights:
            raise TypeError("no weights by name")
    except Exception as error:  # whatever the file's bytes lead torch and safetensors to
        raise InputError(
            named,
            "weights (.safetensors, or tensors that torch saved)",
            "a file that holds none or is damaged",
            "name what train-student left, such as student.safetensors",
        ) from error
    return weights, noted


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return weights, json.loads(metadata[_METADATA]) if _METADATA in metadata else None


def _read_torch(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    with torch.serialization.safe_globals([argparse.Namespace]):  # DeiT's main.py keeps its options beside the weights
        state = torch.load(path, map_location="cpu", weights_only=True)
    ours = {"format", "config", "model"} <= state.keys()
    return state.get("model", state.get("state_dict", state)), state if ours else None


def _require_readable(path: AnyPath, found: int, known: int) -> None:
    if found > known:
        raise InputError(path, f"checkpoint format {known} or older", found, "upgrade distillcache")
