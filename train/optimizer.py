"""The optimizer and its learning rates, as DeiT's main.py has them."""

from collections.abc import Callable, Collection
from functools import partial
from typing import cast

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from ..runtime.errors import InputError
from ..runtime.quiet import quiet
from ..runtime.spelling import did_you_mean
from .config import Config


def undecayed(model: nn.Module) -> frozenset[str]:
    """Return which of a model's weights get no decay, beside all vectors and biases.

    Of a vision transformer the class token and the position embeddings. timm also spares DeiT's distillation token,
    which the published code, with timm 0.3.2, does not.
    """
    return undecayed_by_timm(model) - {"dist_token"}


def undecayed_by_timm(model: nn.Module) -> frozenset[str]:
    """Return which of a model's weights timm spares, as runs did whose checkpoints are older than format 3."""
    names = getattr(model, "no_weight_decay", frozenset)
    return frozenset(cast(Callable[[], Collection[str]], names)())


def optimizer_and_schedule(
    model: nn.Module, config: Config, spared: Collection[str] | None = None
) -> tuple[torch.optim.Optimizer, Callable[[int], None]]:
    """Return timm's optimizer, and a function that gives it the learning rate of an epoch, as DeiT's main.py does.

    Beside vectors and biases, `spared` get no weight decay; by default those of `undecayed`. DeiT steps timm's
    scheduler after each epoch with that epoch's own number, so an epoch has the rate that the schedule gives the one
    before it: the first two have the warm-up's first. Raises ValueError for an unknown `opt`.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    fused = {"fused": True} if on_gpu and config.opt == "adamw" else {}
    groups = partial(
        param_groups_weight_decay,
        weight_decay=config.weight_decay,
        no_weight_decay_list=undecayed(model) if spared is None else spared,
    )
    try:
        optimizer = create_optimizer_v2(model, opt=config.opt, lr=config.scaled_lr, param_group_fn=groups, **fused)
    except (AssertionError, ValueError, KeyError) as error:
        like = did_you_mean(config.opt, list_optimizers())
        raise InputError(
            "`opt`", "an optimizer that timm knows", f"{config.opt!r}{like}", "try adamw or sgd"
        ) from error
    with quiet("timm.scheduler"):  # of a run of one epoch it says that the rate stays as it is
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=config.epochs,
            lr_min=config.min_lr,
            warmup_t=config.warmup_epochs,
            warmup_lr_init=config.warmup_lr,
        )
    return optimizer, lambda epoch: scheduler.step(max(epoch - 1, 0))
