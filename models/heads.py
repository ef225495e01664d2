"""Models with a distillation head, which each of timm's families keeps in its own way: so the model itself is asked."""

import copy
from typing import Any, cast

import torch
from torch import nn

from ..runtime.errors import InputError


def distillation_head(model: nn.Module, size: int) -> tuple[str, ...]:
    """Return the names of the parameters that only the second of a model's two sets of logits depends on.

    The model is told to train distilled, as timm has it (`set_distilled_training`), and given images of `size` pixels
    without values ("meta"), so nothing is computed. Nothing is returned for a model without distilled training, or with
    one head alone, as timm's families with two have them, too. Raises ValueError if a model with weights for the
    distillation does not return two sets of logits.
    """
    if not hasattr(model, "set_distilled_training"):
        return ()
    cast(Any, model).set_distilled_training(True)
    logits, weights = dry_run(model, size)
    if isinstance(logits, torch.Tensor) and not any("dist" in name for name in weights):
        cast(Any, model).set_distilled_training(False)
        return ()
    if not isinstance(logits, tuple) or len(logits) != 2 or not _gates(model):
        raise InputError(
            "",
            "two sets of logits in distilled training",
            "one",
            "name a model that has a distillation head, or one that is not made for distilled training",
        )
    return of_second_head(weights, logits)


def of_second_head(parameters: dict[str, torch.Tensor], logits: tuple[torch.Tensor, ...]) -> tuple[str, ...]:
    """Return the names of the `parameters` that only the second of two sets of logits depends on."""
    parameters = {name: weight for name, weight in parameters.items() if weight.requires_grad}
    of_class, of_distillation = (
        torch.autograd.grad(head.sum(), [*parameters.values()], allow_unused=True, retain_graph=True) for head in logits
    )
    return tuple(
        name
        for name, one, other in zip(parameters, of_class, of_distillation, strict=True)
        if one is None and other is not None
    )


def dry_run(model: nn.Module, size: int) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return what a model in training makes of images of `size` pixels, and its parameters, all without values.

    A copy is asked, as some models keep what they compute in a forward pass. Raises ValueError if it does not take such
    images.
    """
    memo = {id(weight): _meta(weight) for weight in (*model.parameters(), *model.buffers())}
    asked = copy.deepcopy(model, cast(dict[int, Any], memo)).train()
    try:
        logits = asked(torch.empty(2, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError("", f"a model that takes {size} x {size} pixels", f"an error: {reason}") from error
    return logits, dict(asked.named_parameters())


def keep_both_heads(model: nn.Module) -> None:
    """Make a model return both sets of logits in evaluation, too, where timm's own would return their average.

    The module that decides that takes itself to be in training; the modules inside it stay in evaluation.
    """
    for gate in _gates(model):
        gate.training = True


def _gates(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if getattr(module, "distilled_training", False)]


def _meta(weight: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(weight, device="meta")
    return nn.Parameter(empty) if isinstance(weight, nn.Parameter) else empty
