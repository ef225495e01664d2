"""Paths on the command line: of this machine, until stores and outputs can live elsewhere."""

import os
from pathlib import Path

import click

from ..runtime.errors import InputError


class LocalPath(click.Path):
    """A path of this machine; a URL, of which pathlib would make a folder `s3:`, is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; ValueError for a URL."""
        if "://" in str(value):
            name = (param.opts[0] if param else self.name).lstrip("-")
            raise InputError(name, "a path on this machine", value, "name one, and copy between the two")
        return super().convert(value, param, ctx)


LOCAL_PATH = LocalPath()
