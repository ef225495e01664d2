"""Every fault of docs/faults.md, made for real: each ends in the line the page promises, and nothing good is lost."""

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file, save_file

from distillcache.cache.store import Store

from .conftest import run
from .servers import Server

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
ONE_PROCESS = PAGE.read_text().partition("## How a run ends")[0]  # the rest is tests/test_ends.py's
PROMISED = {
    fault: (message.strip("`"), 1 if "Exit code 1" in remedy else 2)
    for fault, message, remedy in re.findall(r"^\| (.+?) \| (`.+?`) \| (.+?) \|$", ONE_PROCESS, re.MULTILINE)
}


class Bench:
    """Where a fault is made: two good shards, their store and teacher, all to be broken."""

    def __init__(self, folder: Path, shards: str, store: Path, teacher: Path, photos: list[bytes]) -> None:
        self.folder, self.photos, self.good = folder, photos, [folder / "store.zarr"]
        self.before: dict[Path, bytes] = {}
        for name in ("train-0.tar", "train-1.tar", "classes.txt"):
            shutil.copy(Path(shards).parent / name, folder)
        self.shards = str(folder / "train-*.tar")
        self.store = Path(shutil.copytree(store, folder / "store.zarr"))
        self.teacher = Path(shutil.copytree(teacher, folder / "teacher"))
        self.shard = folder / "a.tar"

    def tar(self, members: dict[str, bytes]) -> "Bench":
        """Write a shard of our own."""
        with tarfile.open(self.shard, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes) -> "Bench":
        """Write a file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)
        return self

    def without(self, name: str) -> "Bench":
        """Remove a file or a folder."""
        path = self.folder / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
        return self

    def flip(self, name: str, member: str = "") -> "Bench":
        """Flip a bit in the middle of a file, or in a tar member's header."""
        data = (self.folder / name).read_bytes()
        at = self.offset(member) + 100 if member else len(data) // 2
        return self.file(name, damaged(data, at))

    def until(self, member: str) -> bytes:
        """Return a good shard's bytes up to a member."""
        return self.whole[: self.offset(member)]

    def offset(self, member: str) -> int:
        """Return where a member's header begins in the good shard."""
        with tarfile.open(self.folder / "train-0.tar") as tar:
            return tar.getmember(member).offset

    def object(self, name: str, data: bytes) -> "Bench":
        """Put an object on a server."""
        fsspec.filesystem("memory").pipe(f"/bench/{name}", data)
        return self

    def cache(self, *more: object, shards: object = None, store: Path | None = None) -> Result:
        """Run stage 1: with our own shard into a new store, or on a store that is there."""
        new = () if store else ("--image-size", 32, "--views", 3)
        store, shards = store or self.folder / "new.zarr", shards or (self.shards if store else self.shard)
        teacher = () if "--teacher" in more else ("--teacher", self.teacher)
        given = ("--shards", shards, "--cache", store, *teacher, "--device", "cpu", *new)
        return self.run("cache-teacher", *given, *more)

    def exclude(self, data: bytes, *, shards: object = None, store: Path | None = None) -> Result:
        """Run stage 1 with a file of samples to be left out."""
        return self.file("drop.csv", data).cache(
            "--exclude", self.folder / "drop.csv", shards=shards or self.shards, store=store
        )

    def image(self, data: bytes, name: str = "x.jpg") -> Result:
        """Run stage 1 on a shard with one image between two good ones."""
        good = {f"{key}.{kind}": part for key in "ab" for kind, part in (("jpg", self.photos[0]), ("cls", b"1"))}
        self.tar(good | {name: data, "x.cls": b"1"})
        return self.cache()

    def train(self, *more: object, shards: object = None, store: Path | None = None) -> Result:
        """Run stage 2 on the store; a smaller run than any fault needs."""
        given = ("--shards", shards or self.shards, "--out", self.folder / "out", "--device", "cpu", "--batch-size", 8)
        stored = () if "--cache" in more or "--image-size" in more else ("--cache", store or self.store)
        model = ("--model-kwargs", "img_size=32", "embed_dim=24", "depth=1") if "--model" not in more else ()
        return self.run("train-student", *given, *stored, "--epochs", 1, "--warmup-epochs", 0, *more, *model)

    def again(self, *more: object) -> Result:
        """Train, and resume otherwise."""
        assert self.train().exit_code == 0
        self.good.append(self.folder / "out")
        return self.train(*more)

    def inspect(self, command: str, *more: object) -> Result:
        """Run a command that looks into the store."""
        return self.run("inspect", command, self.store, *more)

    def change(self, array: str, edit: Callable[["zarr.Array"], None]) -> None:
        """Change an array of the store as zarr would, checksums and all."""
        edit(zarr.open_group(self.store)[array])

    def attributes(self, **changes: object) -> "Bench":
        """Change root attributes of the store."""
        zarr.open_group(self.store).attrs.update(changes)
        return self

    def run(self, *arguments: object) -> Result:
        """Run a command, and remember what was there before it."""
        self.before = self.bytes()
        return run(*arguments)

    @property
    def whole(self) -> bytes:
        """A good shard's bytes."""
        return (self.folder / "train-0.tar").read_bytes()

    def bytes(self) -> dict[Path, bytes]:
        """Return every byte that a fault must not change."""
        return {file: file.read_bytes() for top in self.good for file in top.rglob("*") if file.is_file()}


def encoded(image: Image.Image, kind: str, **more: object) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **more)
    return buffer.getvalue()


def damaged(data: bytes, at: int | None = None) -> bytes:
    broken = bytearray(data)
    broken[len(data) // 2 if at is None else at] ^= 4
    return bytes(broken)


def rename(shard: Path, old: bytes, new: bytes) -> None:
    """Rename members; their headers' checksums are made right again."""
    data = bytearray(shard.read_bytes())
    while (at := data.find(old)) >= 0:
        data[at : at + len(old)] = new
        header = data[at : at + 512]
        header[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    shard.write_bytes(data)


FAULTS: dict[str, Callable[[Bench], Result]] = {
    "a tar that ends between two members": lambda bench: bench.file(
        "a.tar", bench.whole[: bench.offset("photo003.jpg")]
    ).cache(),
    "a damaged header in a tar": lambda bench: bench.file("a.tar", bench.whole).flip("a.tar", "photo003.jpg").cache(),
    "two tars in one file": lambda bench: bench.file("a.tar", 2 * bench.whole).cache(),
    "a class of more than 64 bytes": lambda bench: bench.tar(
        {"x.jpg": bench.photos[0], "x.cls": b"1" + b" " * 64}
    ).cache(),
    "a damaged PNG": lambda bench: bench.image(
        damaged(encoded(Image.open(io.BytesIO(bench.photos[0])), "PNG")), "x.png"
    ),
    "a GIF": lambda bench: bench.image(encoded(Image.new("RGB", (40, 40)), "GIF")),
    "braces that do not close": lambda bench: bench.cache(shards="sm/{s-0"),
    "braces for more than a million shards": lambda bench: bench.cache(shards="sm/{1..99999999999}.tar"),
    "a teacher without a name": lambda bench: bench.cache("--teacher", "", store=bench.store),
    "a place where nothing can be written": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b"1"}).cache(
        "--cache", "/proc/c.zarr"
    ),
    "a tar that ends too early": lambda bench: bench.file("a.tar", bench.whole[:100_000]).cache(),
    "an empty file": lambda bench: bench.file("a.tar", b"").cache(),
    "a file that is no tar": lambda bench: bench.file("a.tar", bench.photos[0]).cache(),
    "a compressed tar": lambda bench: bench.file("a.tar", gzip.compress(bench.whole)).cache(),
    "a tar without samples": lambda bench: bench.tar({"readme.txt": b"nothing"}).cache(),
    "a key twice": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b"1", "x.png": bench.photos[1]}).cache(),
    "members of a key apart": lambda bench: bench.tar(
        {"x.jpg": bench.photos[0], "y.jpg": bench.photos[1], "x.cls": b"1", "y.cls": b"1"}
    ).cache(),
    "an image without class": lambda bench: bench.tar({"x.jpg": bench.photos[0]}).cache(),
    "a class without image": lambda bench: bench.tar({"x.cls": b"1", "x.json": b"{}"}).cache(),
    "a class that is no number": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b"cat"}).cache(),
    "a negative class": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b"-1"}).cache(),
    "an empty class": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b""}).cache(),
    "a class that the teacher does not know": lambda bench: bench.tar(
        {"x.jpg": bench.photos[0], "x.cls": b"5"}
    ).cache(),
    "a name that is not UTF-8": lambda bench: bench.tar({os.fsdecode(b"caf\xe9.jpg"): bench.photos[0]}).cache(),
    "shards that are not there": lambda bench: bench.cache(shards=f"{bench.folder}/nowhere-{{0..1}}.tar"),
    "a pipe: or a newline in shards": lambda bench: bench.cache(shards=f"pipe:touch {bench.folder}/ran"),
    "a URL of an unknown kind": lambda bench: bench.cache(shards="ipx://server/a.tar"),
    "a URL whose package is missing": lambda bench: bench.cache(shards="dropbox://folder/a.tar"),
    "class names that are not UTF-8": lambda bench: (
        bench.file("classes.txt", b"caf\xe9").tar({"x.jpg": bench.photos[0], "x.cls": b"1"}).cache()
    ),
    "an image that ends too early": lambda bench: bench.image(bench.photos[0][:2000]),
    "a text named .jpg": lambda bench: bench.image(b"<html>404 Not Found</html>"),
    "an image of zero bytes": lambda bench: bench.image(b""),
    "a PNG of 16 bits a channel": lambda bench: bench.image(encoded(Image.new("I;16", (40, 40)), "PNG"), "x.png"),
    "an image of more than 134 megapixels": lambda bench: bench.image(
        encoded(Image.new("1", (12_000, 12_000)), "PNG"), "x.png"
    ),
    "a BMP or TIFF named .png": lambda bench: bench.image(encoded(Image.new("RGB", (40, 40)), "BMP"), "x.png"),
    "a shard of which no image is good": lambda bench: bench.tar({"x.jpg": b"no", "x.cls": b"1"}).cache(
        "--on-bad-image", "skip"
    ),
    "no store": lambda bench: bench.train("--cache", bench.folder / "nowhere.zarr"),
    "a shard instead of a store": lambda bench: bench.train("--cache", bench.folder / "train-0.tar"),
    "a part of a store": lambda bench: bench.train("--cache", bench.store / "label"),
    "looking into a folder with a store": lambda bench: bench.run(
        "inspect", "info", bench.file("stores/store.zarr/zarr.json", b"").folder / "stores"
    ),
    "looking into a teacher": lambda bench: bench.run("inspect", "info", bench.teacher),
    "looking into a run of train-student": lambda bench: bench.file("out/student.safetensors", b"").run(
        "inspect", "info", bench.folder / "out"
    ),
    "looking into a folder of images": lambda bench: bench.file("photos/cat/x.jpg", bench.photos[0]).run(
        "inspect", "info", bench.folder / "photos"
    ),
    "a packed store that was cut": lambda bench: bench.file("c.zip", b"PK, and half of it").train(
        "--cache", bench.folder / "c.zip"
    ),
    "filling a packed store": lambda bench: bench.cache("--cache", bench.folder / "c.zip", shards=bench.shards),
    "packing what is not finished": lambda bench: bench.without("store.zarr/label/c/0/1/0").run(
        "pack", bench.store, bench.folder / "c.zip"
    ),
    "a store on a server that another job fills": lambda bench: bench.object(
        "taken.zarr.claim", b'{"job": "pid 7 on node3", "at": "2026-11-28T10:00:00+00:00", "nonce": "0"}'
    ).cache("--cache", "memory://bench/taken.zarr", shards=bench.shards),
    "a store in a folder of a web server": lambda bench: web_folder(bench),
    "a store where there is something else on a server": lambda bench: bench.object(
        "other.zarr/holiday.jpg", b""
    ).cache("--cache", "memory://bench/other.zarr", shards=bench.shards),
    "caching into another program's folder": lambda bench: bench.cache("--cache", bench.teacher),
    "a sample in --exclude that no shard has": lambda bench: bench.exclude(b"shard,key\ntrain-0.tar,photo104\n"),
    "a file for --exclude that names no sample": lambda bench: bench.exclude(b"shard,key\n"),
    "a line in --exclude that is no shard and key": lambda bench: bench.exclude(b"shard,key\na,b,c\n"),
    "a whole shard in --exclude": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b"1"}).exclude(
        b"x\n", shards=bench.shard
    ),
    "another --exclude than the store's": lambda bench: bench.exclude(b"photo000\n", store=bench.store),
    "a store of a newer format": lambda bench: bench.attributes(format=5).train(),
    "damaged attributes": lambda bench: bench.attributes(recipe=[]).train(),
    "attributes that are no JSON": lambda bench: bench.file(
        "store.zarr/zarr.json", b'{"zarr_format": 3, "node_ty'
    ).train(),
    "an array that is missing": lambda bench: bench.without("store.zarr/seed").train(),
    "a damaged chunk of labels, checks or logits": lambda bench: bench.flip("store.zarr/check/c/0/1/0").train(),
    "a damaged chunk of another array": lambda bench: bench.flip("store.zarr/seed/c/0/0").train(),
    "a lost chunk of checks or logits": lambda bench: bench.without("store.zarr/check/c/0/1/0").train(),
    "labels that are not there yet": lambda bench: bench.without("store.zarr/label/c/0/1/0").train(),
    "another recipe than the store's": lambda bench: bench.cache("--recipe", "deit3", store=bench.store),
    "another image size than the store's": lambda bench: bench.cache("--image-size", 48, store=bench.store),
    "another seed than the store's": lambda bench: bench.cache("--seed", 1, store=bench.store),
    "another --topk than the store's": lambda bench: bench.cache("--topk", 3, store=bench.store),
    "images that are missing": lambda bench: bench.train(shards=bench.shards.replace("*", "0")),
    "none of the images": lambda bench: bench.file("val/cat/x.jpg", b"\xff\xd8 another").train(
        shards=bench.folder / "val"
    ),
    "other shards, and a store without digests": lambda bench: bench.without("store.zarr/digest").train(
        shards=bench.shards.replace("*", "0")
    ),
    "a part that names nothing": lambda bench: bench.train("--subset", "test-*"),
    "a damaged Parquet file": lambda bench: bench.train(
        shards=bench.file("a.parquet", b"PAR1 and no more").folder / "a.parquet"
    ),
    "a Parquet file without images": lambda bench: parquet(bench).train(shards=bench.folder / "a.parquet"),
    "caching on with a shard too few": lambda bench: bench.cache(
        store=bench.store, shards=bench.shards.replace("*", "0")
    ),
    "upgrading with other shards": lambda bench: renamed_shard(bench).run(
        "upgrade", bench.without("store.zarr/digest").store, "--shards", bench.shards
    ),
    "packing like a store, and otherwise": lambda bench: bench.run(
        "make-shards", "--like", bench.store, bench.folder, bench.folder / "out", "--per-shard", 5
    ),
    "publishing where something is published": lambda bench: bench.file("published/store.zarr.zip", b"").run(
        "publish", bench.store, bench.folder / "published"
    ),
    "publishing what is not finished": lambda bench: bench.without("store.zarr/label/c/0/1/0").run(
        "publish", bench.store, bench.folder / "published"
    ),
    "a mirror that can't hold a copy that is packed otherwise": lambda bench: far_away_copy(bench),
    "a teacher's name that timm does not know": lambda bench: bench.cache("--teacher", "vgg", store=bench.store),
    "a store instead of a teacher": lambda bench: bench.cache("--teacher", bench.store, store=bench.store),
    "a teacher's folder without a model": lambda bench: bench.without("teacher/config.json").cache(store=bench.store),
    "a teacher's damaged weights": lambda bench: bench.file("teacher/model.safetensors", b"no weights").cache(
        store=bench.store
    ),
    "more --topk than classes": lambda bench: bench.cache("--topk", 6, shards=bench.shards),
    "all logits and the largest": lambda bench: bench.cache("--topk", 2, "--logits", 8, shards=bench.shards),
    "logits in bits that there are not": lambda bench: bench.cache("--logits", 5, shards=bench.shards),
    "a part that there is not": lambda bench: bench.cache("--part", "2/2", shards=bench.shards),
    "views that are no whole cycles": lambda bench: bench.cache("--views", 4, shards=bench.shards),
    "no views, or another number below its least": lambda bench: bench.cache("--views", 0, shards=bench.shards),
    "shards to add to no store": lambda bench: bench.cache("--add-shards", bench.shards, shards=bench.shards),
    "shards to add to a part of a store's": lambda bench: bench.cache(
        "--add-shards", "b.tar", "--part", "0/2", shards=bench.shards, store=bench.store
    ),
    "an op in --set that nobody registered": lambda bench: bench.cache("--set", "own_ops=Mine", shards=bench.shards),
    "a module that can't be imported": lambda bench: bench.run("--import", "no_such_module", "inspect", "info", "x"),
    "a function of one's own for a teacher that is none": lambda bench: bench.cache(
        "--teacher", "json:absent", shards=bench.shards
    ),
    "options in a file that there are not": lambda bench: bench.file("c.yaml", b"smothing: 0.1").train(
        "--config", bench.folder / "c.yaml"
    ),
    "exporting what is no student": lambda bench: bench.run(
        "export-student", bench.teacher, "--to", "timm", "--out", bench.folder / "t"
    ),
    "pushing to no repository": lambda bench: bench.run(
        "export-student", bench.folder / "run", "--to", "timm", "--out", bench.folder / "t", "--push", "me"
    ),
    "an unknown recipe": lambda bench: bench.cache("--recipe", "autoaugment", shards=bench.shards),
    "an unknown field in --set": lambda bench: bench.cache("--set", "blur=1", shards=bench.shards),
    "a misspelt field in --set": lambda bench: bench.cache("--set", "hflp=0", shards=bench.shards),
    "a field in --set without a value": lambda bench: bench.cache("--set", "hflip", shards=bench.shards),
    "a value in --set that is no number": lambda bench: bench.cache("--set", "hflip=often", shards=bench.shards),
    "a value in --set out of its range": lambda bench: bench.cache("--set", "hflip=2", shards=bench.shards),
    "an image size out of its range": lambda bench: bench.cache("--image-size", 8, shards=bench.shards),
    "a device that does not exist": lambda bench: bench.train("--device", "abacus"),
    "a GPU that is not there": lambda bench: bench.train("--device", "cuda:99"),
    "an option that does not exist": lambda bench: bench.train("--learning-rate", 1),
    "an option that is missing": lambda bench: bench.run(
        "cache-teacher", "--shards", bench.shards, "--cache", bench.store
    ),
    "a pattern that the shell expanded": lambda bench: bench.run(
        "train-student", "--shards", "a.tar", "b.tar", "--cache", bench.store, "--out", bench.folder / "o"
    ),
    "more epochs than views": lambda bench: bench.train("--epochs", 7),
    "a batch larger than an epoch": lambda bench: bench.train("--batch-size", 64),
    "a student that timm does not know": lambda bench: bench.train("--model", "deit_tny"),
    "a student without stochastic depth": lambda bench: bench.train("--model", "repvit_m0_9"),
    "a student for another image size": lambda bench: bench.train("--model", "deit_tiny_distilled_patch16_224"),
    "a teacher to be trained at another image size": lambda bench: bench.run(
        "train-teacher",
        "--shards",
        bench.shards,
        "--out",
        bench.folder / "t",
        "--model",
        "deit_tiny_patch16_224",
        "--image-size",
        32,
        "--device",
        "cpu",
    ),
    "an argument that the student does not take": lambda bench: bench.train("--model-kwargs", "wings=2"),
    "an unknown optimizer": lambda bench: bench.train("--opt", "magic"),
    "soft labels of a store without logits": lambda bench: bench.attributes(topk=0).train("--distill", "soft"),
    "distilling without a store": lambda bench: bench.train("--distill", "hard", "--image-size", 32),
    "a recipe beside a store": lambda bench: bench.train("--recipe", "crop"),
    "held-out classes that the student lacks": lambda bench: bench.tar({"x.jpg": bench.photos[0], "x.cls": b"7"}).train(
        "--val-shards", bench.shard
    ),
    "weights to start from that are not there": lambda bench: bench.train("--init", "nowhere.pt"),
    "weights to start from of another model": lambda bench: bench.train("--init", bench.teacher / "model.safetensors"),
    "a file where the run's folder should be": lambda bench: bench.file("out", b"").train(),
    "resuming with another batch size": lambda bench: bench.again("--batch-size", 4),
    "resuming with another model": lambda bench: bench.again(
        "--model", "deit_small_distilled_patch16_224", "--model-kwargs", "img_size=32", "depth=1"
    ),
    "resuming with another learning rate, seed or other setting": lambda bench: bench.again("--lr", 1e-3),
    "a damaged checkpoint": lambda bench: bench.file("out/last.pt", b"half of one").train(),
    "a loss that is not finite": lambda bench: bench.train("--lr", 1000, "--opt", "sgd", "--epochs", 6, "--amp"),
    "evaluating what is not there": lambda bench: bench.run(
        "evaluate", "--checkpoint", "nowhere.pt", "--shards", bench.shards
    ),
    "evaluating a store": lambda bench: bench.run("evaluate", "--checkpoint", bench.store, "--shards", bench.shards),
    "evaluating a folder of runs": lambda bench: bench.file("runs/out/student.safetensors", b"").run(
        "evaluate", "--checkpoint", bench.folder / "runs", "--shards", bench.shards
    ),
    "evaluating what holds no weights": lambda bench: bench.run(
        "evaluate", "--checkpoint", bench.folder / "classes.txt", "--shards", bench.shards
    ),
    "a mirror or new shards on another machine": lambda bench: bench.cache(
        "--mirror", "s3://bucket/m", shards=bench.shards
    ),
    "evaluating weights without --model": lambda bench: bench.run(
        "evaluate", "--checkpoint", bench.teacher / "model.safetensors", "--shards", bench.shards
    ),
    "a student in a teacher's folder": lambda bench: bench.train("--out", bench.teacher),
    "a teacher in a store": lambda bench: bench.run(
        "train-teacher", "--shards", bench.shards, "--out", bench.store, "--model", "regnety_002", "--epochs", 1
    ),
    "evaluating a head that is not there": lambda bench: bench.run(
        "evaluate", "--checkpoint", bench.teacher, "--shards", bench.shards, "--head", "distill"
    ),
    "evaluating on classes that the student lacks": lambda bench: bench.tar(
        {"x.jpg": bench.photos[0], "x.cls": b"7"}
    ).run("evaluate", "--checkpoint", bench.teacher, "--shards", bench.shard),
    "a key that the store does not have": lambda bench: bench.inspect("label", "nobody"),
    "views that the store does not have": lambda bench: bench.inspect(
        "verify", "--shards", bench.shards, "--views", "3:99"
    ),
    "drawing more views than the store has": lambda bench: bench.inspect(
        "show", "photo000", "--shards", bench.shards, "--views", 7
    ),
    "pictures in a report without shards": lambda bench: bench.inspect("report", "--pictures", 50),
    "a share of which nothing is chosen": lambda bench: bench.inspect(
        "verify", "--shards", bench.shards, "--fraction", 0
    ),
    "nothing to pack": lambda bench: bench.run("make-shards", bench.folder / "nowhere", bench.folder / "o"),
}


def fault(name: str) -> Callable[[Callable[[Bench], Result]], Callable[[Bench], Result]]:
    def note(function: Callable[[Bench], Result]) -> Callable[[Bench], Result]:
        assert name not in FAULTS
        FAULTS[name] = function
        return function

    return note


@fault("a size below zero")
def _(bench: Bench) -> Result:
    bench.tar({"x.jpg": bench.photos[0], "x.cls": b"1"})
    data = bytearray(bench.shard.read_bytes())
    data[124:136] = b"\xff" * 12  # base 256
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bench.file("a.tar", bytes(data)).cache()


@fault("a folder instead of a tar")
def _(bench: Bench) -> Result:
    bench.shard.mkdir()
    return bench.cache()


@fault("a link instead of an image")
def _(bench: Bench) -> Result:
    bench.tar({"y.jpg": bench.photos[0], "y.cls": b"1", "x.cls": b"1"})
    with tarfile.open(bench.shard, "a") as tar:
        for kind, to in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "y.jpg")):
            link = tarfile.TarInfo("x.jpg")
            link.type, link.linkname = kind, to
            tar.addfile(link)
    return bench.cache()


@fault("a sparse member")
def _(bench: Bench) -> Result:
    hole = bench.folder / "x.jpg"
    with hole.open("wb") as file:
        file.write(bench.photos[0])
        file.truncate(1 << 20)
    (bench.folder / "x.cls").write_text("1")
    subprocess.run(["tar", "--sparse", "-cf", bench.shard, "x.jpg", "x.cls"], cwd=bench.folder, check=True)
    return bench.cache()


@fault("a member of more than 256 MiB")
def _(bench: Bench) -> Result:
    with tarfile.open(bench.shard, "w") as tar:
        info = tarfile.TarInfo("x.jpg")
        info.size = 2**28 + 1
        tar.addfile(info)
    return bench.cache()


@fault("two shards of one name")
def _(bench: Bench) -> Result:
    (bench.folder / "b").mkdir()
    shutil.copy(bench.shards.replace("*", "0"), bench.folder / "b")
    return bench.cache(shards=f"{bench.folder}/{{.,b}}/train-0.tar")


@fault("an animation")
def _(bench: Bench) -> Result:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    return bench.image(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))


@fault("a teacher of a hub that is out of reach")
def _(bench: Bench) -> Result:
    with pytest.MonkeyPatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        offline.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(bench.folder))
        return bench.cache("--teacher", "regnety_160.deit_in1k", store=bench.store)


@fault("another program's Zarr")
def _(bench: Bench) -> Result:
    zarr.create_group(bench.folder / "other.zarr", zarr_format=3)
    return bench.train("--cache", bench.folder / "other.zarr")


@fault("another teacher than the store's")
def _(bench: Bench) -> Result:
    weights = load_file(bench.teacher / "model.safetensors")
    save_file({k: v * 2 if "classifier" in k else v for k, v in weights.items()}, bench.teacher / "model.safetensors")
    return bench.cache(store=bench.store)


@fault("verifying with another teacher")
def _(bench: Bench) -> Result:
    weights = load_file(bench.teacher / "model.safetensors")
    save_file({k: v * 2 if "classifier" in k else v for k, v in weights.items()}, bench.teacher / "model.safetensors")
    return bench.inspect("verify", "--shards", bench.shards, "--teacher", bench.teacher)


@fault("caching on with a shard too many")
def _(bench: Bench) -> Result:
    shutil.copy(bench.shards.replace("*", "0"), bench.folder / "train-2.tar")
    return bench.cache(store=bench.store)


@fault("caching on with a shard of another size")
def _(bench: Bench) -> Result:
    with Path(bench.shards.replace("*", "0")).open("ab") as file:
        file.write(bytes(512))
    return bench.cache(store=bench.store)


@fault("caching on from a shard that was changed")
def _(bench: Bench) -> Result:
    rename(Path(bench.shards.replace("*", "0")), b"photo000", b"photoXXX")
    (bench.store / "label/c/0/0/0").unlink()
    return bench.cache(store=bench.store)


@fault("verifying a shard whose keys were renamed, and a store without digests")
def _(bench: Bench) -> Result:
    rename(Path(bench.shards.replace("*", "0")), b"photo000", b"photoXXX")
    return bench.without("store.zarr/digest").inspect("verify", "--shards", bench.shards)


@fault("an image replaced by one of the same size")
def _(bench: Bench) -> Result:
    path = Path(bench.shards.replace("*", "1"))
    with tarfile.open(path) as tar:
        member = tar.getmember("photo105.jpg")
    other = encoded(Image.new("RGB", (60, 60), "red"), "JPEG")
    data = bytearray(path.read_bytes())
    data[member.offset_data : member.offset_data + member.size] = other + bytes(member.size - len(other))
    path.write_bytes(data)
    return bench.train("--epochs", 3)


@fault("views that other libraries make otherwise")
def _(bench: Bench) -> Result:
    bench.change("probe_views", lambda array: array.__setitem__(slice(0, 2), np.asarray(array[:2]) ^ 1))
    return bench.attributes(
        versions={**Store(bench.store).manifest.versions, "opencv-python-headless": "4.5.0"}
    ).train()


@fault("caching on a machine that makes other views")
def _(bench: Bench) -> Result:
    bench.change("probe_views", lambda array: array.__setitem__(slice(0, 2), np.asarray(array[:2]) ^ 1))
    return bench.cache("--views", 6, store=bench.store)


@fault("a label that the teacher did not give")
def _(bench: Bench) -> Result:
    bench.change("label", lambda array: array.__setitem__((0, 0, 3), (array[0, 0, 3] + 1) % 5))
    return bench.inspect("verify", "--shards", bench.shards, "--teacher", bench.teacher)


@fault("a teacher that says NaN")
def _(bench: Bench) -> Result:
    weights = load_file(bench.teacher / "model.safetensors")
    save_file(
        {k: v * np.nan if k == "classifier.bias" else v for k, v in weights.items()},
        bench.teacher / "model.safetensors",
    )
    return bench.tar({"x.jpg": bench.photos[0], "x.cls": b"1"}).cache()


@fault("resuming on another store, recipe or teacher")
def _(bench: Bench) -> Result:
    assert bench.cache("--seed", 1, "--views", 6, shards=bench.shards).exit_code == 0
    return bench.again("--cache", bench.folder / "new.zarr")


@fault("a checkpoint of a newer format")
def _(bench: Bench) -> Result:
    (bench.folder / "out").mkdir()
    torch.save({"format": 5}, bench.folder / "out" / "last.pt")
    return bench.train()


def parquet(bench: Bench) -> Bench:
    pq.write_table(pa.table({"label": [1], "picture": ["cat.jpg"]}), bench.folder / "a.parquet")
    return bench


def renamed_shard(bench: Bench) -> Bench:
    rename(Path(bench.shards.replace("*", "0")), b"photo000", b"photoXXX")
    return bench


def far_away_copy(bench: Bench) -> Result:
    """Train on the shards of a web server under other names, of which the mirror holds one at a time."""
    for number in (0, 1):
        Path(bench.shards.replace("*", str(number))).rename(bench.folder / f"other-{number}.tar")
    with Server(bench.folder) as server:
        shards = f"{server.url}/other-{{0,1}}.tar"
        return bench.train("--mirror", bench.folder / "mirror", "--mirror-size", 600_000, shards=shards)


def web_folder(bench: Bench) -> Result:
    with Server(bench.folder) as server:
        return bench.train("--cache", f"{server.url}/c.zarr")


def far_away(bench: Bench, *more: object, answer: int = 0) -> Result:
    """Train on shards of a web server, which has an answer of its own if it is told one."""
    with Server(bench.folder, lambda request, number: answer and request.refuse(answer)) as server:
        shards = f"{server.url}/train-{{0,1}}.tar"
        return bench.train("--mirror", bench.folder / "mirror", "--retry-for", 0.1, *more, shards=shards)


def replaced(bench: Bench) -> Result:
    shutil.copy(bench.folder / "train-1.tar", bench.folder / "train-0.tar")
    return far_away(bench)


FAULTS |= {
    "shards that their server does not give out": lambda bench: far_away(bench, answer=403),
    "a server that is not well": lambda bench: far_away(bench, answer=503),
    "a shard that was replaced on its server": replaced,
    "a mirror that can't hold two windows": lambda bench: far_away(bench, "--mirror-size", "100K", "--window", 1),
    "a size that is none": lambda bench: far_away(bench, "--mirror-size", "much"),
}


@fault("a shard that its server does not have")
def _(bench: Bench) -> Result:
    with Server(bench.folder) as server:
        return bench.run("mirror", "--prefetch", f"{server.url}/train-9.tar", "--mirror", bench.folder / "mirror")


@fault("class folders without images")
def _(bench: Bench) -> Result:
    (bench.folder / "photos" / "cat").mkdir(parents=True)
    return bench.run("make-shards", bench.folder / "photos", bench.folder / "o")


@fault("packing otherwise into the same folder")
def _(bench: Bench) -> Result:
    (bench.folder / "photos" / "cat").mkdir(parents=True)
    (bench.folder / "photos" / "cat" / "x.jpg").write_bytes(bench.photos[0])
    assert bench.run("make-shards", bench.folder / "photos", bench.folder / "o").exit_code == 0
    bench.good.append(bench.folder / "o")
    return bench.run("make-shards", bench.folder / "photos", bench.folder / "o", "--seed", 1)


OUT_OF_RANGE = {
    "--alpha": 2, "--tau": 0, "--epochs": 0, "--batch-size": 1, "--grad-accum-steps": 9, "--lr": "nan", "--min-lr": -1,
    "--warmup-lr": -1, "--warmup-epochs": -1, "--weight-decay": -1, "--clip-grad": -1, "--smoothing": 1,
    "--drop-path": 1, "--ema-decay": 1, "--window": -1, "--crop-pct": 0,
}  # fmt: skip
for option, value in OUT_OF_RANGE.items():
    fault(f"{option} out of its range")(lambda bench, given=(option, value): bench.train(*given))  # type: ignore[misc]
BELOW = {"--batch-size": 0, "--workers": -1, "--topk": -1, "--seed": -1, "--teacher-size": 3}
for option, value in BELOW.items():
    fault(f"{option} of stage 1 out of its range")(lambda bench, given=(option, value): bench.cache(*given))  # type: ignore[misc]


VERIFIED = (
    "verifying a shard whose keys were renamed, and a store without digests",
    "a label that the teacher did not give",
)  # a table, no error


def test_the_page_and_the_faults_are_the_same() -> None:
    assert set(PROMISED) == set(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_line_that_the_page_promises(
    name: str, tmp_path: Path, store: Store, shards: str, teacher_folder: Path, photos: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path, shards, store.path, teacher_folder, photos)
    found = FAULTS[name](bench)
    message, code = PROMISED[name]
    pattern = re.compile("(distillcache: )?" + ".+".join(re.escape(part) for part in message.split("…")))
    assert found.exit_code == code and "Traceback" not in found.output, found.output
    assert len([line for line in found.output.splitlines() if pattern.fullmatch(line)]) == 1, found.output
    assert sum(line.startswith("distillcache: ") for line in found.output.splitlines()) == (name not in VERIFIED)
    assert bench.bytes() == bench.before
