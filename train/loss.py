"""The losses of DeiT's distillation (Touvron et al. 2021, section 4), as its published losses.py has them."""

from typing import NamedTuple, get_args

import torch
import torch.nn.functional as F

from ..runtime.errors import InputError
from .config import Distill


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits (n, classes) with a distribution (n, classes), in float32."""
    return -(target * F.log_softmax(logits.float(), dim=-1)).sum(-1).mean()


class Losses(NamedTuple):
    """What is minimised, and what of it the ground truth and the teacher ask for, each a scalar."""

    total: torch.Tensor
    target: torch.Tensor
    teacher: torch.Tensor | None


def distillation_loss(
    logits: tuple[torch.Tensor, ...],
    target: torch.Tensor,
    teacher: torch.Tensor | None,
    *,
    distill: Distill,
    alpha: float = 0.5,
    tau: float = 3.0,
) -> Losses:
    """Return DeiT's loss: (1 - alpha) of the class head's cross-entropy with `target`, alpha of the distillation's.

    `logits` are those of the class head and of the distillation head, each (n, classes); a student without a
    distillation token has only the first, which then learns from both. `target` is (n, classes).

    `hard`: cross-entropy with the teacher's labels, `teacher` int64 (n,) (equation 3; alpha is 0.5).
    `soft`: tau**2 times the Kullback-Leibler divergence, both sides at temperature tau, from the teacher's logits or
    log-probabilities, `teacher` (n, classes) (equation 2; the paper's lambda is alpha = 0.1, its tau is 3). The
    published code divides it by the number of elements, n * classes, not by n as the equation would, and so do we.
    `none`: the class head's cross-entropy alone, whatever other logits there are.
    """
    _require_fitting(logits, target, teacher, distill, alpha, tau)
    base = soft_cross_entropy(logits[0], target)
    if distill == "none" or teacher is None:
        return Losses(base, base, None)
    student = logits[-1].float()
    if distill == "hard":
        distillation = F.cross_entropy(student, teacher)
    else:
        ours, theirs = F.log_softmax(student / tau, dim=1), F.log_softmax(teacher.float() / tau, dim=1)
        distillation = F.kl_div(ours, theirs, reduction="sum", log_target=True) * (tau * tau / student.numel())
    return Losses(base * (1 - alpha) + distillation * alpha, base, distillation)


def _require_fitting(
    logits: tuple[torch.Tensor, ...],
    target: torch.Tensor,
    teacher: torch.Tensor | None,
    distill: str,
    alpha: float,
    tau: float,
) -> None:
    """Raise InputError for arguments of another form than the loss takes; of tensors' values nothing is asked."""
    if distill not in get_args(Distill):
        raise InputError("`distill`", " or ".join(get_args(Distill)), repr(distill))
    if isinstance(logits, torch.Tensor):
        raise InputError("`logits`", "a tuple of each head's, as a student returns", "one tensor", "pass (logits,)")
    if target.shape != logits[0].shape:
        raise InputError("`target`", f"a distribution {tuple(logits[0].shape)}", f"a tensor {tuple(target.shape)}")
    if distill == "none":
        return
    if not 0 <= alpha <= 1:
        raise InputError("`alpha`", "0 to 1", alpha)
    if not tau > 0:
        raise InputError("`tau`", "a temperature above 0", tau)
    wanted, classes = (
        (1, "labels, int64 (n,)") if distill == "hard" else (2, "logits or log-probabilities (n, classes)")
    )
    if teacher is None or teacher.dim() != wanted:
        found = "None" if teacher is None else f"a tensor {tuple(teacher.shape)}"
        raise InputError("`teacher`", f"{classes}, for `distill={distill}`", found)
