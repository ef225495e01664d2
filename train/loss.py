"""The losses of DeiT's distillation (Touvron et al. 2021, section 4)."""

import torch
import torch.nn.functional as F

from .config import Distill


def mixed_target(
    target: torch.Tensor, partner: torch.Tensor, lam: torch.Tensor, classes: int, smoothing: float
) -> torch.Tensor:
    """Return smoothed targets (n, classes), float32, of mixed views: timm's `mixup_target`, lambda by lambda.

    `target` and `partner` are int64 (n,), `lam` float32 (n,) is the share of `target`.
    """
    off = smoothing / classes
    one_hot = torch.full((2, len(target), classes), off, device=target.device)
    one_hot.scatter_(2, torch.stack([target, partner]).unsqueeze(2), 1 - smoothing + off)
    return one_hot[0] * lam[:, None] + one_hot[1] * (1 - lam[:, None])


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits (n, classes) with a distribution (n, classes), in float32."""
    return -(target * F.log_softmax(logits.float(), dim=-1)).sum(-1).mean()


def distillation_loss(
    logits: tuple[torch.Tensor, ...], target: torch.Tensor, label: torch.Tensor | None, distill: Distill
) -> torch.Tensor:
    """Return DeiT's loss of (class logits, distillation logits), each (n, classes).

    `hard`: half the cross-entropy of the class head with `target` (n, classes) and half that of the distillation head
    with the teacher's `label`, int64 (n,) (equation 3). `none`: the cross-entropy of each head with `target`, averaged.
    """
    if distill == "none" or label is None:
        return torch.stack([soft_cross_entropy(head, target) for head in logits]).mean()
    return 0.5 * soft_cross_entropy(logits[0], target) + 0.5 * F.cross_entropy(logits[1].float(), label)
