"""Samples that a user leaves out, named in a file: what the report page's selection becomes."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...runtime.errors import InputError
from ...runtime.paths import AnyPath
from .index import ShardIndex, Skipped, only

REASON = "excluded"
"""Why such samples are skipped."""
_HEADER = "shard,key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Excluded:
    """The samples that a file names: (shard, key), the shard empty where any shard is meant."""

    path: AnyPath
    samples: frozenset[tuple[str, str]]

    @classmethod
    def read(cls, path: AnyPath) -> "Excluded":
        """Read a CSV file with the header `shard,key`, or a list of keys, one a line; ValueError if it names none."""
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError("`exclude`", "UTF-8", f"other bytes in {path}", "save it as UTF-8") from error
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        samples = _from_csv(text, path) if lines[0] == _HEADER else {("", key) for key in lines if key}
        if not samples:
            raise InputError("`exclude`", "keys", f"none in {path}", "select some, or leave `exclude` out")
        return cls(path=path, samples=frozenset(samples))

    def of_any_shard(self) -> "Excluded":
        """Return the same keys, whatever shard they are said to be in: for shards that are packed anew."""
        return replace(self, samples=frozenset(("", key) for _, key in self.samples))

    @property
    def sha256(self) -> str:
        """Return what tells two such files apart: the SHA-256 of what they name, hex."""
        return hashlib.sha256(json.dumps(sorted(self.samples)).encode()).hexdigest()

    def names(self, shard: str, key: str) -> bool:
        """Return whether a sample is to be left out."""
        return (shard, key) in self.samples or ("", key) in self.samples

    def without(self, index: ShardIndex) -> ShardIndex:
        """Return a shard without the samples that are named, which become skipped ones; ValueError if none is left."""
        name = index.shard.name
        kept = [i for i, key in enumerate(index.keys) if not self.names(name, key)]
        if not kept:
            raise InputError(
                "`exclude`",
                "some sample to be left",
                f"all of shard {name} named in {self.path}",
                "leave the shard out",
            )
        skipped = [Skipped(shard=name, key=key, reason=REASON) for key in index.keys if self.names(name, key)]
        return only(index, kept, skipped)

    def require_known(self, known: Iterable[tuple[str, str]]) -> None:
        """Raise ValueError naming a sample of the file that is not among the (shard, key) `known`."""
        pairs = set(known)
        if unknown := self.samples - pairs - {("", key) for _, key in pairs}:
            shard, key = min(unknown)
            where = f"shard {shard}, key {key}" if shard else f"key {key}"
            more = f", and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
            raise InputError("`exclude`", "samples of the shards", f"{where}{more} in {self.path}", "mend the file")

    def require_same(self, skipped: Iterable[Skipped]) -> None:
        """Raise ValueError unless a store that `skipped` these samples left out just those that the file names."""
        left_out = {(sample.shard, sample.key) for sample in skipped if sample.reason == REASON}
        asked = self.samples - left_out - {("", key) for _, key in left_out}
        more = [f"{shard}/{key}" for shard, key in sorted(left_out) if not self.names(shard, key)]
        if asked or more:
            expected = f"the {len(left_out):,} samples that the store left out"
            besides = "/".join(filter(None, min(asked))) if asked else ""
            different = f"{self.path} without {more[0]}" if more else f"{self.path} with {besides}"
            raise InputError("`exclude`", expected, different, "run without `exclude`, or name another `cache`")


def _from_csv(text: str, path: AnyPath) -> set[tuple[str, str]]:
    rows = csv.reader(io.StringIO(text, newline=""))
    next(rows)
    try:
        return {(shard, key) for shard, key in filter(None, rows)}
    except (ValueError, csv.Error) as error:
        raise InputError(
            "`exclude`", "a shard and a key", f"line {rows.line_num} of {path}", "mend the file"
        ) from error
