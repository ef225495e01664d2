"""What click hands to a command is what the command is typed to take: click itself looks at no annotation."""

import inspect
from collections.abc import Callable
from typing import Any

import click
import pytest

import distillcache as dc
from distillcache.cache.create import Asked
from distillcache.commands import cache, evaluate, export, train
from distillcache.commands.inspect import estimate, verify
from distillcache.train.config import Hyperparameters


def parameters(function: Callable[..., Any] | None) -> set[str]:
    taken = inspect.signature(function).parameters.values() if function else ()
    return {parameter.name for parameter in taken if parameter.kind is not parameter.VAR_KEYWORD}


OF_A_STUDENT = parameters(dc.train_student) | {*Hyperparameters.__annotations__}


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        (cache.cache_teacher, parameters(dc.cache_teacher)),
        (estimate.inspect_estimate, {*Asked.__annotations__}),
        (train.train_student, OF_A_STUDENT),
        (train.train_teacher, parameters(dc.train_teacher)),
        (evaluate.evaluate, parameters(dc.evaluate_student)),
        (evaluate.compare, parameters(dc.compare_students)),
        (export.export_student, set()),
        (verify.inspect_verify, set()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_command_takes_just_what_its_options_are_called(command: click.Command, rest: set[str]) -> None:
    named = parameters(command.callback)
    given = {option.name for option in command.params if option.expose_value}  # the mirror's go another way
    assert named <= given <= named | rest


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (cache.cache_teacher, parameters(dc.cache_teacher)),
        (train.train_student, OF_A_STUDENT),
        (train.train_teacher, parameters(dc.train_teacher)),
        (evaluate.evaluate, parameters(dc.evaluate_student)),
        (evaluate.compare, parameters(dc.compare_students)),
        (export.export_student, parameters(dc.export_student)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_command_of_a_function_has_all_that_its_function_takes(command: click.Command, taken: set[str]) -> None:
    """Under the function's own names, but for some; what a program alone can give has no option."""
    other_names = {
        "path": "cache", "store": "cache", "device": "device_name", "top1": "val_shards",
        "skip_bad_images": "on_bad_image",
    }  # fmt: skip
    for_programs = {"mirror", "reporter", "command", "options", "trackers"}
    given = {option.name for option in command.params}
    assert {other_names.get(name, name) for name in taken} - for_programs <= given
