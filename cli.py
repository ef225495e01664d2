"""The command line. What a command needs is imported when it runs, which keeps `--help` fast."""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, cast

import click

from . import __version__
from .commands.cache import cache_teacher
from .commands.config import MODULES
from .commands.evaluate import compare, evaluate
from .commands.export import export_student
from .commands.inspect import inspect
from .commands.mirror import mirror
from .commands.options import Commands
from .commands.pack import pack, unpack
from .commands.publish import publish
from .commands.shards import make_shards
from .commands.train import train_student, train_teacher
from .commands.upgrade import upgrade
from .runtime.own_code import import_own
from .runtime.signals import SIGNALS, end_within

_SECONDS_TO_END = 3.0

SECTIONS = {
    "Shards and teacher, where you have none": (make_shards, train_teacher),
    "The two stages": (cache_teacher, train_student),
    "Afterwards": (evaluate, compare, export_student, inspect),
    "Shards and stores from far away": (mirror, pack, unpack, publish),
    "Stores of older versions": (upgrade,),
}


@click.group(
    cls=Commands, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__)
@click.option(
    "--import", "modules", multiple=True, metavar="MODULE", help="First import a module of yours. Repeatable."
)
@click.pass_context
def main(context: click.Context, modules: tuple[str, ...]) -> None:
    """Run the teacher once; train any number of students from what it said."""
    # Threads that wait for one another must not spin: where other work keeps the cores busy, that took four times as
    # long. libgomp reads this when torch is loaded, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for module in modules:
        import_own(module)
    context.meta[MODULES] = modules


def run() -> NoReturn:
    """Run the command line as a process, which ends when it has said its last line, whatever its threads still do."""
    # From a checkout, `python -m` would have our `datasets/` stand for the library of that name.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    for signum in SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # heard while a command runs; afterwards nothing is to stop
            signal.signal(signum, lambda *_: None)
    try:
        cast(Any, main)()
    except SystemExit as end:
        end_within(_SECONDS_TO_END, end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    raise AssertionError


if __name__ == "__main__":
    run()
