"""Paths and names on the command line."""

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath, path_of

_EMPTY = "an empty one", "is a variable of the shell not set?"


class PathOrURL(click.ParamType[AnyPath]):
    """A path of this machine, or where it may be far away, any URL that fsspec knows.

    With `folder` it is that of a folder, which need not be there yet.
    """

    name = "path"

    def __init__(self, *, folder: bool = False, local: bool = False) -> None:
        self._folder, self._local = folder, local

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> AnyPath:
        """Return the path; ValueError for a URL that can't be, no path at all, and a file instead of a folder."""
        name = _name_of(param)
        if not str(value):
            raise InputError(name, "a path", *_EMPTY)
        path = path_of(value)
        if self._local and not isinstance(path, Path):
            raise InputError(name, "a path on this machine", value, "name one, and copy between the two")
        if self._folder and isinstance(path, Path) and path.is_file():
            raise InputError(name, "a folder", f"the file {value}", "name another")
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Have the shell complete files, or folders, as `click.Path` does."""
        return [CompletionItem(incomplete, type="dir" if self._folder else "file")]


class Name(click.ParamType[str]):
    """A name that is not empty, as one is where a shell's variable was never set."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; ValueError for none."""
        if not value:
            raise InputError(_name_of(param), "a name", *_EMPTY)
        return value


def _name_of(param: click.Parameter | None) -> str:
    return param.opts[0].lstrip("-") if param else "path"


PATH, FOLDER, LOCAL_FOLDER, NAME = PathOrURL(), PathOrURL(folder=True), PathOrURL(folder=True, local=True), Name()
