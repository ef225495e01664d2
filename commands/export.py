"""`distillcache export-student`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.paths import AnyPath
from .options import say, with_options
from .paths import LOCAL_FOLDER, NAME, PATH

if TYPE_CHECKING:
    from ..train.export import Form


@click.command("export-student")
@with_options(click.argument("run", type=PATH))
@click.option("--to", type=click.Choice(("timm", "transformers", "onnx")), required=True, help="Who is to load it.")
@click.option("--out", type=LOCAL_FOLDER, required=True, help="A folder that is not there yet.")
@click.option("--push", type=NAME, metavar="hf://USER/NAME", help="Also put it to the Hugging Face Hub.")
@click.option("--license", type=NAME, default="unknown", show_default=True, help="As the Hub has it.")
def export_student(run: AnyPath, to: "Form", out: Path, push: str | None, license: str) -> None:
    """Write a trained student, RUN, as timm, transformers or ONNX load it, and its model card.

    timm loads any model of its own, with its two heads; transformers DeiT's with a distillation token.

    \b
    Example: distillcache export-student runs/tiny --to timm --out tiny-timm --push hf://me/tiny
    """
    from ..train import export
    from .opening import require_checkpoint

    require_checkpoint(run)
    export.export_student(run, out, to=to, push=push, license=license)
    say(f"{push or out}: {', '.join(sorted(file.name for file in out.iterdir()))}")
