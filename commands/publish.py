"""`distillcache publish`."""

import tempfile
from pathlib import Path

import click

from ..runtime.paths import AnyPath
from .mirror import mirror_options
from .options import say, store_argument, with_options
from .paths import FOLDER, NAME
from .progress import bar

_USE = """\
```sh
# with distillcache installed
distillcache inspect verify PLACE --shards MY_IMAGES --fraction 0.001
distillcache train-student --cache PLACE --shards MY_IMAGES --out runs/tiny
```

`MY_IMAGES` are tars, Parquet files or a folder. The first command says how many of the images are there, and whether
the views that are made of them on this machine are those that the teacher saw."""


@click.command("publish")
@with_options(store_argument, click.argument("destination", type=FOLDER))
@click.option(
    "--license", "license_", type=NAME, default="unknown", show_default=True, help="Of the labels, as the Hub has it."
)
@with_options(*mirror_options)
def publish(cache: AnyPath, destination: AnyPath, license_: str) -> None:
    """Write a finished store, without any pixel, and its data card to DESTINATION, for whoever has the same images.

    DESTINATION is a folder, a URL, or hf://datasets/USER/NAME. --cache takes it as it is.

    \b
    Example: distillcache publish regnety.zarr hf://datasets/me/regnety-deit-300
             distillcache train-student --cache hf://datasets/me/regnety-deit-300 --shards imagenet/train ...
    """
    from ..cache import publish as publishing
    from ..cache.storage import PUBLISHED
    from ..inspection import card
    from ..inspection.charts import plot
    from ..inspection.stats import stats
    from ..models.teachers import license_of
    from ..runtime import atomic
    from .opening import open_store

    store = open_store(cache)
    publishing.require_free(destination)
    with tempfile.TemporaryDirectory(prefix="distillcache-") as name:
        folder = Path(name)
        with bar("publish", None, "B") as shown:
            sha256 = publishing.write_published(store, folder, reporter=shown)
        store = open_store(folder)
        with bar("statistics", len(store.counts), "shards") as shown:
            found = stats(store, reporter=shown)
        teacher = store.manifest.teacher.name
        plot(found, folder / card.PLOT, f"{Path(teacher).name}: {store.views} views")
        place = "THIS_FOLDER" if isinstance(destination, Path) else str(destination)
        text = card.card(
            store,
            found,
            sha256,
            use=_USE.replace("PLACE", place),
            license=license_,
            teacher_license=license_of(teacher),
        )
        atomic.write_text(folder / "README.md", text)
        publishing.put(folder, destination)
    say(f"{destination}: {', '.join((PUBLISHED, 'README.md', card.PLOT))}, without any pixel")
