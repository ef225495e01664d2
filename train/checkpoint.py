"""Checkpoints: written whole or not at all, read without unpickling anything but tensors and plain values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from ..datasets import atomic

FORMAT = 1


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run is: `step` batches of `epoch` are done, with that sum of losses; history has a row an epoch."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, config: dict[str, Any]
) -> None:
    """Write everything that a resumed run needs to `path`."""
    state = {
        "format": FORMAT,
        "config": config,
        "progress": {name: getattr(progress, name) for name in Progress.__slots__},
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    atomic.write(path, lambda file: torch.save(state, file))


def load(path: Path) -> dict[str, Any]:
    """Return what `save` wrote, tensors on the CPU; ValueError if it can't be read or is newer."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["format"]
    except Exception as error:  # torch raises whatever the file's bytes lead it to, and advises to unpickle it
        raise ValueError(
            f"{path}: expected a checkpoint, found a damaged file ({type(error).__name__}); "
            "remove it to start over, or name another --out"
        ) from error
    if found > FORMAT:
        raise ValueError(f"{path}: expected checkpoint format {FORMAT} or older, found {found}; upgrade distillcache")
    return state


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's weights as safetensors, which plain `timm.create_model(..., checkpoint_path=...)` loads."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    atomic.write(path, lambda file: file.write(to_safetensors(weights)))
