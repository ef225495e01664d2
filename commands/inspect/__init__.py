"""`distillcache inspect`: looking into stores. A file a command; what is listed here is what there is."""

import click

from ..help import Sections
from .diff import inspect_diff
from .estimate import inspect_estimate
from .export import inspect_export
from .info import inspect_info
from .keys import inspect_keys
from .label import inspect_label
from .merge import inspect_merge
from .report import inspect_report
from .show import inspect_show
from .stats import inspect_stats
from .verify import inspect_verify


@click.group(cls=Sections)
def inspect() -> None:
    """Look into a store."""


for command in (
    inspect_info,
    inspect_keys,
    inspect_label,
    inspect_show,
    inspect_verify,
    inspect_stats,
    inspect_diff,
    inspect_merge,
    inspect_export,
    inspect_report,
    inspect_estimate,
):
    inspect.add_command(command)
