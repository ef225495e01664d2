"""Cache a teacher's labels once, then train distilled students from them without the teacher.

What is named here is public, and all that is: it changes with a new version only, and CHANGELOG.md says so. Each name
is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache.fill import UnfinishedError as UnfinishedError
    from .cache.opening import open_store as open_store
    from .cache.stage1 import cache_teacher as cache_teacher
    from .cache.store import Store as Store
    from .datasets.augment.own import register_op as register_op
    from .datasets.augment.recipes import register_recipe as register_recipe
    from .datasets.shards.mirror import Mirror as Mirror
    from .models.loading import load_teacher as load_teacher
    from .models.own_students import as_student as as_student
    from .models.own_teachers import as_teacher as as_teacher
    from .models.own_teachers import ensemble as ensemble
    from .models.students import Student as Student
    from .models.students import build_student as build_student
    from .models.teachers import Teacher as Teacher
    from .replay.batches import ReplayError as ReplayError
    from .replay.dataset import ViewBatch as ViewBatch
    from .replay.dataset import ViewDataset as ViewDataset
    from .replay.targets import mixed_target as mixed_target
    from .runtime.errors import InputError as InputError
    from .runtime.ranks import PeerError as PeerError
    from .runtime.reporting import Reporter as Reporter
    from .runtime.signals import StopRequested as StopRequested
    from .train.compare import compare_students as compare_students
    from .train.export import export_student as export_student
    from .train.loss import distillation_loss as distillation_loss
    from .train.stage2 import train_student as train_student
    from .train.stopping import NonFiniteLossError as NonFiniteLossError
    from .train.stopping import RunInterruptedError as RunInterruptedError
    from .train.teaching import train_teacher as train_teacher
    from .train.tracking import Tracker as Tracker
    from .train.trained import evaluate_student as evaluate_student

__version__ = "0.1.0"

_HOME = {
    "InputError": "runtime.errors",
    "Mirror": "datasets.shards.mirror",
    "NonFiniteLossError": "train.stopping",
    "PeerError": "runtime.ranks",
    "ReplayError": "replay.batches",
    "Reporter": "runtime.reporting",
    "RunInterruptedError": "train.stopping",
    "StopRequested": "runtime.signals",
    "Store": "cache.store",
    "Student": "models.students",
    "Teacher": "models.teachers",
    "Tracker": "train.tracking",
    "UnfinishedError": "cache.fill",
    "ViewBatch": "replay.dataset",
    "ViewDataset": "replay.dataset",
    "as_student": "models.own_students",
    "as_teacher": "models.own_teachers",
    "build_student": "models.students",
    "cache_teacher": "cache.stage1",
    "compare_students": "train.compare",
    "distillation_loss": "train.loss",
    "ensemble": "models.own_teachers",
    "evaluate_student": "train.trained",
    "export_student": "train.export",
    "load_teacher": "models.loading",
    "mixed_target": "replay.targets",
    "open_store": "cache.opening",
    "register_op": "datasets.augment.own",
    "register_recipe": "datasets.augment.recipes",
    "train_student": "train.stage2",
    "train_teacher": "train.teaching",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
