"""Students of a user's own: any module with one head or two, and those that a user's own code returns."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from ..runtime.errors import InputError
from ..runtime.inputs import normalize, require_normalisation
from ..runtime.own_code import call_own
from .heads import of_second_head
from .students import Student


def as_student(
    model: nn.Module, *, classes: int, image_size: int, mean: Sequence[float], std: Sequence[float], heads: int = 1
) -> Student:
    """Return any classifier as a student.

    One of two heads returns a tuple of both, the class head's first, in training and in evaluation.

    Args:
        model: From float32 images (n, 3, height, width), normalised, to logits (n, `classes`).
        classes: How many there are.
        image_size: Height and width of its images, pixels.
        mean: Of each channel, in units of 0 to 1, that is taken from images before it sees them.
        std: Of each channel, that they are divided by then.
        heads: 1 or 2.

    Raises:
        InputError: A ValueError, one line of text: for a model that does not return that.
    """
    if not isinstance(model, nn.Module):
        raise InputError("`model`", "a module", type(model).__name__)
    if heads not in (1, 2):
        raise InputError("`heads`", "1 or 2", heads)
    require_normalisation(mean, std)
    return _OwnStudent(model, classes=classes, image_size=image_size, mean=mean, std=std, heads=heads)


class _OwnStudent(Student):
    """A module of a user's own, which is asked itself what it answers."""

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        heads: int,
    ) -> None:
        nn.Module.__init__(self)
        self.model, self.image_size, self._classes = model, image_size, classes
        self.distilled = heads == 2
        self.heads = ("class", "distill")[:heads]
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self._distillation_head = ()
        logits = self._answers(image_size)
        if self.distilled:
            self._distillation_head = of_second_head(dict(model.named_parameters()), logits)

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return self._classes

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits (n, classes) for each of `heads`, from uint8 images (n, height, width, RGB)."""
        logits = self.model(normalize(images, self.mean, self.std))
        return cast(tuple[torch.Tensor, ...], logits[: len(self.heads)] if self.distilled else (logits,))

    def require_size(self, size: int, *, resizable: bool = True) -> None:
        """Raise ValueError if the model does not take images of `size` pixels."""
        self._answers(size)

    def initialize(self, weights: dict[str, torch.Tensor], source: str) -> list[str]:
        """Start from the weights of `source`, which must be this model's; no head starts afresh."""
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(source, "the weights of this model", reason) from error
        return []

    def _answers(self, size: int) -> tuple[torch.Tensor, ...]:
        """Return what the model says of two black images of `size` pixels; ValueError if that is no logits."""
        expected = f"{len(self.heads)} of logits (2, {self._classes}), for images of {size} pixels"
        training, device = self.model.training, self.mean.device
        try:
            logits = self.model.eval()(torch.zeros(2, 3, size, size, device=device))
        except Exception as error:  # whatever a user's code raises
            reason = f"an error: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise InputError("model", expected, reason) from error
        finally:
            self.model.train(training)
        each = logits if isinstance(logits, tuple) else (logits,)
        shapes = [tuple(getattr(one, "shape", ())) for one in each]
        if shapes != [(2, self._classes)] * len(self.heads):
            found = " and ".join(
                str(shape) if shape else type(one).__name__ for one, shape in zip(each, shapes, strict=True)
            )
            raise InputError("model", expected, found)
        return each


def student_of_code(name: str, *, classes: int, seed: int, **kwargs: object) -> Student:
    """Return the student that the function `MODULE:FUNCTION` returns, given `classes` and `kwargs`.

    The module is imported as Python would, also from the working directory. What the function draws is torch's, from
    `seed`. Raises InputError if there is no such function, or it returns something else.
    """
    torch.manual_seed(seed)
    student = call_own(f"model {name}", name, "a student", classes=classes, **kwargs)
    if not isinstance(student, Student):
        raise InputError(f"model {name}", "what distillcache.as_student returns", type(student).__name__)
    return student
