"""The data card of a published store: a README.md as the Hugging Face Hub shows it."""

from typing import Any

from ..cache.storage import PUBLISHED
from ..cache.store import Store
from ..runtime.markdown import front_matter, table
from .info import info
from .stats import Stats

PLOT = "agreement.png"
_ABOUT = """\
What a teacher says of every augmented view of a training, by which students are distilled without running it. There
are no images in here, nor parts of any: bring your own copy, in whatever packing. Every image is known by its bytes,
and every view that is made of one is compared with a check before a student sees it."""
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def card(store: Store, found: Stats, sha256: str, *, use: str, license: str, teacher_license: str) -> str:
    """Return the card of a store: what it is of, what it says, how to use it and how to verify it.

    `found` are its statistics, `sha256` the digest of the packed file, `use` how commands use it. `license` is that
    of the labels, an identifier as the Hub knows them.
    """
    facts = info(store)
    head = {
        "license": license,
        "pretty_name": f"Labels of {facts['teacher']['name']}",
        "tags": ["knowledge-distillation", "deit", "distillcache", "zarr"],
        "task_categories": ["image-classification"],
        "size_categories": [next((name for most, name in _SIZES if facts["samples"] < most), "10M<n<100M")],
    }
    teacher, recipe = facts["teacher"], facts["recipe"]
    measured = "not measured" if facts["teacher_top1"] is None else f"{facts['teacher_top1']:.2f}% on held-out images"
    kept = "the argmax" + _logits(facts)
    facts_of_it = [
        ("teacher", f"{teacher['name']}, {teacher['dtype']}, at {teacher['input_size']} pixels"),
        ("its weights", f"SHA-256 {teacher['sha256']}"),
        ("its licence", teacher_license),
        ("licence of the labels", license),
        ("its top-1", measured),
        ("recipe", f"{recipe['name']} at {recipe['size']} pixels, fingerprint {facts['recipe_fingerprint']}"),
        ("classes", f"{teacher['classes']:,}"),
        ("images", f"{facts['samples']:,} in {facts['shards']:,} shards"),
        ("views", f"{facts['views']:,} of each image, {facts['labels']:,} labels"),
        ("of each view", f"{kept}, and a check of its bytes"),
        ("bytes", f"{facts['bytes']:,} in all, labels, checks and logits {facts['bytes_per_view']} a view"),
        ("agreement", f"{found.agreement:.2%} of the labels are the target, {found.partner:.2%} the mixed-in image's"),
        ("made by", ", ".join(" ".join(one) for one in facts["versions"].items())),
        (PUBLISHED, f"SHA-256 {sha256}"),
    ]
    fields = [(name, f"`{value}`") for name, value in recipe.items() if name != "name"]
    parts = [
        front_matter(head),
        f"# {head['pretty_name']}, view by view",
        _ABOUT,
        table(("", ""), facts_of_it),
        "## Use it",
        use,
        "## What the teacher said",
        f"![Agreement of labels and targets]({PLOT})",
        "## The recipe",
        table(("field", "value"), fields),
    ]
    return "\n\n".join(parts) + "\n"


def _logits(facts: dict[str, Any]) -> str:
    if facts["logits"]:
        return f", and every class's logit in {facts['logits']} bits"
    return f", and the {facts['topk']} largest logits" if facts["topk"] else ""
