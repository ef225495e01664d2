"""Teachers of a user's own: any module or function, several as one, and those that a user's own code returns."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from ..runtime.devices import find_device
from ..runtime.errors import InputError, require_whole
from ..runtime.inputs import require_normalisation
from ..runtime.own_code import call_own
from .teachers import Teacher, weights_digest


def as_teacher(
    model: nn.Module | Callable[[torch.Tensor], torch.Tensor],
    *,
    name: str,
    classes: int,
    input_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    amp: bool = False,
    sha256: str = "",
    class_names: Sequence[str] = (),
    crop_pct: float = 0.875,
) -> Teacher:
    """Return any classifier as a teacher.

    A module is put into evaluation and on `device`. What it returns are logits, or has them as `logits`, as what
    Hugging Face's models return.

    Args:
        model: From float32 images (n, 3, `input_size`, `input_size`), normalised, to float logits (n, `classes`).
        name: What the store is to call it.
        classes: How many there are.
        input_size: Height and width at which it sees views, pixels; those of another size are resized to it.
        mean: Of each channel, in units of 0 to 1, that is taken from views before it sees them.
        std: Of each channel, that they are divided by then.
        device: Where it computes: `cpu`, `cuda`, `cuda:1`, `auto`; of several ranks each has its own GPU.
        amp: Whether under bfloat16 autocast.
        sha256: What tells it from other teachers, for a function; by default of a module's weights.
        class_names: Of each class, where they are known.
        crop_pct: Side of the centre crop that it is evaluated on, as a share of the image's shorter side.

    Raises:
        InputError: A ValueError: for a function without `sha256`, or names that are not one a class.
    """
    place, module = find_device(device), model if isinstance(model, nn.Module) else _Function(model)
    if not callable(model):
        raise InputError("`model`", "a module or a function", type(model).__name__)
    if not sha256 and not module.state_dict():
        raise InputError("`sha256`", "what tells this teacher from others", "nothing", "give one of your own")
    require_normalisation(mean, std)
    require_whole("classes", classes, 1)
    require_whole("input_size", input_size, 1)
    if class_names and len(class_names) != classes:
        raise InputError("`class_names`", f"{classes}", len(class_names))
    with contextlib.suppress(NotImplementedError):  # what torch.export made is in evaluation for ever
        module.eval()
    network = module.requires_grad_(False).to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(
        name=name,
        model=network,
        device=place,
        sha256=sha256 or weights_digest(module),
        mean=tuple(mean),
        std=tuple(std),
        input_size=input_size,
        crop_pct=crop_pct,
        dtype="bfloat16" if amp else "float32",
        classes=classes,
        class_names=tuple(class_names),
    )


class _Function(nn.Module):
    """A function as a module without weights."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the function does."""
        return self._function(images)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ensemble(Teacher):
    """Several teachers as one; what it notes of itself is the first's, but for its name and SHA-256."""

    members: tuple[Teacher, ...]

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the mean of the members' probabilities, float32 (n, classes)."""
        each = torch.stack([member.logits(images).log_softmax(1) for member in self.members])
        return each.logsumexp(0) - torch.tensor(len(self.members), device=each.device).log()


def ensemble(teachers: Sequence[Teacher], *, name: str = "") -> Teacher:
    """Return several teachers as one, whose probabilities are the mean of theirs.

    Each sees a view at its own size and in its own normalisation. A store tells ensembles apart by their members'
    weights, normalisation, size and order. Raises InputError if they don't tell the same classes apart.
    """
    if not teachers or not all(isinstance(teacher, Teacher) for teacher in teachers):
        raise InputError("`teachers`", "a list of what as_teacher or load_teacher returns", repr(teachers)[:60])
    first = teachers[0]
    for teacher in teachers:
        if teacher.classes != first.classes:
            found = f"{teacher.classes} of {teacher.name}"
            raise InputError("`teachers`", f"the {first.classes} classes of {first.name}", found)
    told = [(t.sha256, t.mean, t.std, t.input_size, t.dtype) for t in teachers]
    fields = {field: getattr(first, field) for field in first.__dataclass_fields__}
    return _Ensemble(**fields | {
        "name": name or " + ".join(teacher.name for teacher in teachers),
        "sha256": hashlib.sha256(repr(told).encode()).hexdigest(),
        "members": tuple(teachers),
    })  # fmt: skip


def teacher_of_code(name: str) -> Teacher:
    """Return what the function `MODULE:FUNCTION` returns, a teacher.

    The module is imported as Python would, also from the working directory. Raises InputError if there is none, or it
    returns something else.
    """
    made = call_own(f"teacher {name}", name, "a teacher")
    if not isinstance(made, Teacher):
        raise InputError(f"teacher {name}", "what distillcache.as_teacher returns", type(made).__name__)
    return made


def placed(teacher: Teacher, device: torch.device, *, amp: bool, size: int | None, compiled: bool) -> Teacher:
    """Return a teacher on another device, or of another image size; `compiled` passes its model to torch.compile."""
    if isinstance(teacher, _Ensemble):
        members = [placed(member, device, amp=amp, size=size, compiled=compiled) for member in teacher.members]
        return ensemble(members, name=teacher.name)
    model = teacher.model.to(device)
    return replace(
        teacher,
        model=cast(nn.Module, torch.compile(model)) if compiled else model,
        compiled=compiled,
        device=device,
        dtype="bfloat16" if amp else "float32",
        input_size=size or teacher.input_size,
    )
