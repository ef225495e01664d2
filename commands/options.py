"""What all commands share: errors as one line with an exit code, and the options that several of them take."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from ..datasets.augment.recipes import NAMES
from ..runtime.errors import InputError
from ..runtime.signals import StopRequested, StopSignals
from .errors import fitted, line_of
from .help import Sections
from .paths import PATH


class Commands(Sections):
    """A group whose errors are one line: exit code 2 for bad input, 1 for a failed check, 128 + N after signal N."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and leave the process with its exit code. Commands find the arguments as `obj`."""
        kwargs["standalone_mode"] = False
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            with StopSignals():
                sys.exit(super().main(arguments, *more, obj=arguments, **kwargs) or 0)
        except click.UsageError as error:
            if "\n" in error.format_message():  # a group named without a command: its whole help
                say(error.format_message(), err=True)
                sys.exit(2)
            command = error.ctx.command_path if error.ctx else "distillcache"
            _fail(f"{error.format_message()} See {command} --help.", 2)
        except click.ClickException as error:
            _fail(error.format_message(), 2)
        except (Exception, StopRequested) as error:
            expected = line_of(error)
            if expected is None or (os.environ.get("DISTILLCACHE_TRACEBACK") and isinstance(error, Exception)):
                raise
            _fail(*expected)


def say(text: str, *, err: bool = False) -> None:
    """Print a text in which keys or class names may stand: what could move a terminal's cursor is escaped."""
    click.echo(printable(text), err=err)


def printable(text: str, keep: str = "\n") -> str:
    """Return a text with what does not print, but for the characters `keep`, escaped."""
    if text.translate(dict.fromkeys(map(ord, keep))).isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _fail(message: str, code: int) -> NoReturn:
    if "://" in message:
        from ..runtime.remote import without_secrets

        message = without_secrets(message)
    if message:  # a process whose error another has said already says nothing
        say(f"distillcache: {fitted(message)}", err=True)
    sys.exit(code)


SEED = click.IntRange(0, 2**63 - 1)
shards_option = click.option(
    "--shards", multiple=True, required=True, help="Paths, globs, braces or URLs of WebDataset tars."
)
copy_option = click.option(
    "--shards",
    multiple=True,
    required=True,
    help="Any copy of the store's images: paths, globs, braces or URLs of tars and Parquet files, or folders.",
)
val_shards_option = click.option("--val-shards", multiple=True, help="Held-out shards, to measure top-1 on.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    help="Processes that render views.  [default: one for each core; without a GPU 0: threads of this process]",
)
device_option = click.option(
    "--device", "device_name", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto: a GPU if any."
)
as_json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
recipe_options = (
    click.option("--recipe", help=f"{', '.join(NAMES)}.  [default: the store's, or deit; for a teacher crop]"),
    click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe."),
    click.option("--image-size", type=int, help="Height and width of a view.  [default: 224, or the store's]"),
)
model_kwargs_options = (
    click.option("--model-kwargs", multiple=True, metavar="KEY=VALUE ...", help="Arguments of the model: depth=6 ..."),
    click.argument("more_model_kwargs", nargs=-1, metavar=""),
)
filter_options = (
    click.option("--key", "keys", multiple=True, help="A key, or a pattern such as 'n0144*'."),
    click.option("--class", "classes", multiple=True, help="A class's number, or a part of its name."),
    click.option("--shard", "shards", multiple=True, help="A shard's name, or a pattern of names."),
)
logits_option = click.option(
    "--logits",
    type=int,
    help="Keep every class's logit in so many bits, 8 or 4.  [default: 0, none of them, or the store's]",
)
exclude_option = click.option(
    "--exclude",
    type=PATH,
    help="A file of samples to leave out: a CSV file with the header shard,key, or a key a line.",
)
missing_option = click.option(
    "--missing",
    type=click.Choice(["stop", "drop"]),
    default="stop",
    show_default=True,
    help="Images that are not there: end, or leave out their views and those mixed with them.",
)
take_over_option = click.option(
    "--take-over",
    is_flag=True,
    help="Go on where a job was killed that wrote to this URL, once it shows no sign of life.",
)
store_argument = click.argument("cache", type=PATH)


def cache_option(*, required: bool, what: str = "The Zarr store, a path or URL.") -> Callable[[Any], Any]:
    """Return the option that names a store."""
    return click.option("--cache", type=PATH, required=required, help=what)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds `options` to a command, in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def was_given(parameter: str) -> bool:
    """Return whether a parameter of the command at work is the user's, and not a default."""
    return click.get_current_context().get_parameter_source(parameter) is not ParameterSource.DEFAULT


def views_named(text: str | None, views: int) -> range:
    """Return the views that FIRST:END names; ValueError if it names none that the store has."""
    if text is None:
        return range(views)
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end) <= views):
        raise InputError("`views`", f"FIRST:END with 0 <= FIRST < END <= {views}", repr(text))
    return range(int(first), int(end))
