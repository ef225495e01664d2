"""What a training run is told, in one frozen place."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import torch

from ..replay.training_set import TrainingSet
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from ..runtime.processes import ALONE, Processes
from ..runtime.reporting import SILENT, Reporter
from ..runtime.spelling import did_you_mean
from ..runtime.typed import require_types
from .tracking import Tracker

Distill = Literal["hard", "soft", "none"]
_MAY_CHANGE = ("grad_accum_steps", "compile", "reuse_views", "allow_drift")  # in a run that is resumed


class Hyperparameters(TypedDict, total=False):
    """What a user says of a run; what is None or absent depends on what is trained on. `Config` says what each is."""

    model: str
    init: AnyPath | None
    distill: Distill | None
    alpha: float | None
    tau: float
    epochs: int | None
    batch_size: int
    grad_accum_steps: int
    opt: str
    lr: float
    min_lr: float
    warmup_lr: float
    warmup_epochs: int
    weight_decay: float
    clip_grad: float
    smoothing: float
    drop_path: float
    ema_decay: float
    seed: int
    window: int | None
    reuse_views: bool
    allow_drift: bool
    crop_pct: float
    amp: bool | None
    compile: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A run's hyperparameters; defaults are DeiT's (Touvron et al. 2021, table 9)."""

    model: str
    model_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    classes: int
    size: int
    """Height and width of the images, pixels."""
    data: str
    """What is trained on: fingerprints of recipe, seed, shards and teacher."""
    init: str = ""
    """Checkpoint whose weights the student starts from."""
    distill: Distill = "hard"
    alpha: float = 0.5
    """Weight of the distillation in the loss, the paper's lambda; 0.1 for `soft`."""
    tau: float = 3.0
    """Temperature of `soft`."""
    epochs: int = 300
    batch_size: int = 1024
    """Images a step over all processes."""
    grad_accum_steps: int = 1
    """Parts in which a step is done, one after the other, to save memory."""
    opt: str = "adamw"
    """timm's name of the optimizer."""
    lr: float = 5e-4
    """Learning rate at batch size 512; the run's is in proportion to its batch size."""
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    warmup_epochs: int = 5
    weight_decay: float = 0.05
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0: any."""
    smoothing: float = 0.1
    drop_path: float = 0.1
    ema_decay: float = 0.0
    """Decay of the moving average of the weights (DeiT: 0.99996); 0: none is kept."""
    seed: int = 0
    window: int = 0
    """Shards within which an epoch is shuffled; 0: all."""
    reuse_views: bool = False
    """Whether epochs beyond the cached views start over with them."""
    allow_drift: bool = False
    """Whether views that are not the teacher's, byte for byte, are trained on all the same."""
    crop_pct: float = 0.875
    """Side of the centre crop that is evaluated, as a share of the image's shorter side."""
    amp: bool = False
    """bfloat16 autocast."""
    compile: bool = False
    """torch.compile."""

    @classmethod
    def resolve(
        cls, data: TrainingSet, device: str, model_kwargs: dict[str, Any], **asked: Unpack[Hyperparameters]
    ) -> "Config":
        """Return a run's hyperparameters, with what is None taken from what is trained on, or else from DeiT.

        Raises ValueError for a value out of its range.
        """
        distill = asked.get("distill") or ("hard" if data.store else "none")
        defaults = {
            "alpha": 0.1 if distill == "soft" else 0.5,
            "epochs": data.store.views if data.store else 300,
            "amp": device == "cuda",
            "model": "deit_tiny_distilled_patch16_224",
        }
        fields: dict[str, Any] = defaults | {name: value for name, value in asked.items() if value is not None}
        fields |= {"window": data.order.window}
        if not isinstance(fields["model"], str):
            found = f"a {type(fields['model']).__name__}"
            raise InputError("`model`", "a timm name or MODULE:FUNCTION, which resumes and evaluates it", found)
        known = [*Hyperparameters.__annotations__]
        if unknown := next((name for name in asked if name not in known), None):
            raise InputError("train_student", "arguments that it has", f"{unknown}{did_you_mean(unknown, known)}")
        try:
            json.dumps(model_kwargs)
        except TypeError as error:
            kept = "numbers, texts and lists of them, which a run's files keep"
            raise InputError("`model_kwargs`", kept, str(error)) from error
        fields |= {"distill": distill, "init": str(asked.get("init") or ""), "model_kwargs": model_kwargs}
        return cls(classes=data.classes, size=data.order.recipe.size, data=data.fingerprint, **fields)

    def __post_init__(self) -> None:
        """Raise ValueError for the first field that is of another type or out of its range."""
        require_types(self)
        ranges: dict[str, tuple[float, float]] = {
            "alpha": (0, 1),
            "tau": (0.01, 1e3),
            "epochs": (1, 1e6),
            "batch_size": (2, 1e6),
            "grad_accum_steps": (1, self.batch_size),
            "lr": (0, 1e3),
            "min_lr": (0, 1e3),
            "warmup_lr": (0, 1e3),
            "warmup_epochs": (0, 1e6),
            "weight_decay": (0, 1e3),
            "clip_grad": (0, 1e6),
            "smoothing": (0, 0.99),
            "drop_path": (0, 0.99),
            "ema_decay": (0, 0.9999999),
            "window": (0, 1e6),
            "seed": (0, 2**63 - 1),
            "crop_pct": (0.05, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise InputError(f"`{name}`", f"{low:g} to {high:.9g}", value)

    @property
    def scaled_lr(self) -> float:
        """Peak learning rate of this run."""
        return self.lr * self.batch_size / 512

    def require_same(self, other: dict[str, Any], where: str) -> None:
        """Raise ValueError naming the first field in which a saved run differs from this one."""
        for name, value in dataclasses.asdict(self).items():
            if other.get(name) != value and name not in _MAY_CHANGE:
                field = "shards or cache" if name == "data" else f"`{name}`"
                expected = f"the {other.get(name)} of the run in {where}"
                raise InputError(field, expected, value, "run with the same, or name another `out`")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run computes, where it leaves its files and whom it tells; nothing here changes its result."""

    device: torch.device
    workers: int
    out: AnyPath
    take_over: bool = False
    """Whether to take over `out`, far away, from a job that shows no sign of life."""
    command: Sequence[str] = ()
    """The command line of the run, kept in its config.json."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The command's options, kept in its config.yaml."""
    log_every: int = 0
    """Steps between two rows of steps.csv; 0: there are none."""
    projects: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Of `wandb` and `trackio`, where the figures of steps and epochs go, too: what the project is called there."""
    trackers: Sequence[Tracker] = ()
    """Others who are to have them."""
    processes: Processes = ALONE
    reporter: Reporter = SILENT
    """Counts the images that are trained on, and has a line an epoch to log."""
