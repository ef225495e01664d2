"""What a store says of itself: the root attributes, their versions, and what two runs must agree on."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..datasets.augment.libraries import library_versions
from ..datasets.augment.recipes import Recipe
from ..datasets.shards.files import base_name, is_local, size_of
from ..datasets.shards.index import RESTORE, Shard, Skipped
from ..runtime.errors import InputError
from ..runtime.typed import require_types

FORMAT = 4
"""1: the first; 2: its recipe may be of version 2, or crop `padded`; 3: it may have groups of more than two images, and
keep all logits, quantised: it has the attribute `logits`; 4: it has the array `digest`, by which images are found
in any copy of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRecord:
    """What is kept of a teacher; two teachers are the same if all but their names agree."""

    name: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    dtype: str
    classes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The root attributes of a store."""

    recipe: Recipe
    teacher: TeacherRecord
    seed: int
    topk: int
    shards: tuple[Shard, ...]
    class_names: tuple[str, ...]
    versions: dict[str, str]
    created: str
    teacher_top1: float | None = None
    """Top-1 of the teacher on held-out shards, percent, where it was measured."""
    extended: tuple[int, ...] = ()
    """How many views there were each time more were asked for."""
    skipped: tuple[Skipped, ...] = ()
    """Samples of the shards that are not in the store: excluded by a user, or of images that can't be used."""
    format: int = FORMAT
    """As it was written; what is written from now on is `FORMAT`."""
    logits: int = 0
    """Bits in which every class's logit is kept; 0: they are not, as in all stores of formats 1 and 2."""

    @property
    def block(self) -> int:
        """Views in a chunk: as many whole cycles as fit into 12 views, at least one."""
        return self.recipe.repeats * max(1, 12 // self.recipe.repeats)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON would hold them."""
        fields = dataclasses.asdict(self) | {"recipe": self.recipe.to_dict()}
        return {"recipe_fingerprint": self.recipe.fingerprint, **fields, "format": FORMAT}

    @classmethod
    def from_dict(cls, attributes: dict[str, Any]) -> "Manifest":
        """Return the manifest in a store's attributes; ValueError says why there is none that can be read."""
        written = attributes.get("format")
        if not isinstance(written, int):
            raise InputError("", "a store that cache-teacher wrote", "another program's Zarr group")
        if written > FORMAT:
            raise InputError("", f"format {FORMAT} or older", written, "install a newer distillcache")
        fields = {k: v for k, v in attributes.items() if k not in ("format", "recipe_fingerprint")}
        try:
            teacher: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["teacher"].items()}
            structured = {
                "recipe": Recipe.from_dict(fields["recipe"]),
                "teacher": TeacherRecord(**teacher),
                "shards": tuple(Shard(**shard) for shard in fields["shards"]),
                "class_names": tuple(fields["class_names"]),
                "extended": tuple(fields["extended"]),
                "skipped": tuple(Skipped(**sample) for sample in fields.get("skipped", ())),
            }
            manifest = cls(**(fields | structured), format=written)
            for record in (manifest, manifest.teacher, *manifest.shards, *manifest.skipped):
                require_types(record)
            return manifest
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            expected = f"the attributes of a format {written} store in zarr.json"
            raise InputError("", expected, f"them damaged: {error}", RESTORE) from error

    @property
    def fingerprint(self) -> str:
        """Return what decides every view and label, in 8 hex digits each: recipe, seed, shards, teacher."""
        teacher = {k: v for k, v in dataclasses.asdict(self.teacher).items() if k != "name"} | {"topk": self.topk}
        if self.logits:  # without, runs go on that began when there was no such attribute
            teacher["logits"] = self.logits
        digest = hashlib.sha256(json.dumps(teacher, sort_keys=True).encode()).hexdigest()
        return f"{fingerprint(self.recipe, self.seed, self.shards, self.skipped)}, teacher {digest[:8]}"

    @property
    def shard_names(self) -> list[str]:
        """The shards' names, in the store's order."""
        return [shard.name for shard in self.shards]

    def locate(self, urls: Sequence[str]) -> list[str]:
        """Return where each of the store's shards is, in its order; ValueError if `urls` are not those shards."""
        found = {base_name(url): url for url in urls}
        for shard in self.shards:
            if shard.name not in found:
                expected = f"the {len(self.shards)} that the store was made from"
                raise InputError("`shards`", expected, f"no {shard.name}", "name them all: `shards=A` `shards=B`")
            url = found[shard.name]
            if is_local(url) and (size := size_of(url)) != shard.nbytes:  # others are compared as they come
                expected = f"the {shard.nbytes} bytes that the store was made from"
                raise InputError(f"shard {shard.name}", expected, size, "it is another shard, or was changed")
        if extra := sorted(set(found) - {shard.name for shard in self.shards}):
            raise InputError("`shards`", "only those that the store was made from", extra[0], "leave it out")
        return [found[shard.name] for shard in self.shards]

    def require_same(self, asked: "Manifest") -> None:
        """Raise ValueError naming the first thing that `asked` wants otherwise than this store has it."""
        ours, theirs = self.identity(), asked.identity()
        for name, have in ours.items():
            if have != theirs.get(name):
                remedy = "run with what the store has, or name another `cache`"
                raise InputError(name, f"the store's {have}", theirs.get(name), remedy)

    def identity(self) -> dict[str, Any]:
        """Return by name what must be the same for two runs to make the same views and labels."""
        recipe = {f"recipe field {k}": v for k, v in self.recipe.to_dict().items() if k != "name"}
        teacher = {f"teacher {k}": v for k, v in dataclasses.asdict(self.teacher).items() if k != "name"}
        shards = {f"shard {s.name}": f"{s.nbytes} bytes, SHA-256 {s.sha256[:16]}" for s in self.shards}
        return {"seed": self.seed, "topk": self.topk, "logits": self.logits, **recipe, **teacher, **shards}

    def drifted(self) -> list[str]:
        """Return the pixel libraries whose versions differ from the store's, as lines of text."""
        here = library_versions()
        return [f"{name} {was}, here {here.get(name)}" for name, was in self.versions.items() if here.get(name) != was]


def fingerprint(recipe: Recipe, seed: int, shards: Iterable[Shard], skipped: Iterable[Skipped] = ()) -> str:
    """Return what decides every view, in 8 hex digits each: recipe, seed, shards."""
    names = [[shard.name, shard.sha256] for shard in shards] + [[sample.shard, sample.key] for sample in skipped]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return f"recipe {recipe.fingerprint[:8]}, seed {seed}, shards {digest[:8]}"
