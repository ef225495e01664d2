"""The ground truth of mixed views."""

import torch


def mixed_target(
    target: torch.Tensor, partner: torch.Tensor, lam: torch.Tensor, classes: int, smoothing: float = 0.1
) -> torch.Tensor:
    """Return smoothed targets (n, classes), float32, of mixed views: timm's `mixup_target`, lambda by lambda.

    `target` and `partner` are int64 (n,), `lam` float32 (n,) is the share of `target`. Each row sums to 1.
    """
    off = smoothing / classes
    one_hot = torch.full((2, len(target), classes), off, device=target.device)
    one_hot.scatter_(2, torch.stack([target, partner]).unsqueeze(2), 1 - smoothing + off)
    return one_hot[0] * lam[:, None] + one_hot[1] * (1 - lam[:, None])
