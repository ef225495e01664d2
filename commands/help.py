"""How `--help` lists commands: in the order of use, under headings, each with a whole sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Sections(click.Group):
    """A group of commands that `--help` lists as they were added, under the headings of `sections`."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[click.Command]] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.sections = sections or {}
        for command in (command for commands in self.sections.values() for command in commands):
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of use."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence of each command's help, however long."""
        for heading, commands in (self.sections or {"Commands": list(self.commands.values())}).items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(command.name or "", command.get_short_help_str(limit=1000)) for command in commands]
                )
