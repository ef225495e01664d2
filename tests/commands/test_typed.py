"""What click hands to a command is what the command is typed to take: click itself looks at no annotation."""

import inspect
from collections.abc import Callable

import click
import pytest

from distillcache.cache.create import Asked
from distillcache.commands import cache, evaluate, train
from distillcache.commands.inspect import estimate, verify
from distillcache.train.config import Hyperparameters


@pytest.mark.parametrize(
    ("command", "function", "rest"),
    [
        (cache.cache_teacher, cache._cache_teacher, Asked),
        (estimate.inspect_estimate, None, Asked),
        (train.train_student, None, Hyperparameters),
        (train.train_teacher, None, None),
        (evaluate.evaluate, None, evaluate._Options),
        (evaluate.compare, None, evaluate._Options),
        (verify.inspect_verify, None, None),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_command_takes_just_what_its_options_are_called(
    command: click.Command, function: Callable[..., None] | None, rest: type | None
) -> None:
    parameters = [p for f in (function, command.callback) if f for p in inspect.signature(f).parameters.values()]
    named = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD} - {
        "claims",
        "crew",
    }
    typed = set(rest.__annotations__) if rest else set()
    given = {option.name for option in command.params if option.expose_value}  # the mirror's go another way
    named -= {"claims", "crew"}  # what is not asked for
    assert not named & typed and named | typed == given
