"""Paths and names on the command line. Paths are of this machine, until stores and outputs can live elsewhere."""

import os
from pathlib import Path

import click

from ..runtime.errors import InputError

_EMPTY = "an empty one", "is a variable of the shell not set?"


class LocalPath(click.Path):
    """A path of this machine; a URL, of which pathlib would make a folder `s3:`, is refused.

    With `folder` it is that of a folder, which need not be there yet.
    """

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self._folder = folder

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; ValueError for a URL, for no path at all, and for a file instead of a folder."""
        name = _name_of(param)
        if "://" in str(value):
            raise InputError(name, "a path on this machine", value, "name one, and copy between the two")
        if not str(value):
            raise InputError(name, "a path", *_EMPTY)
        if self._folder and Path(value).is_file():
            raise InputError(name, "a folder", f"the file {value}", "name another")
        return super().convert(value, param, ctx)


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


LOCAL_PATH, LOCAL_FOLDER, NAME = LocalPath(), LocalPath(folder=True), Name()
