"""Input that is odd but good: it goes through both stages, and nothing of it leaves its place."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillcache.cache.store import Store
from distillcache.datasets.augment import pixels
from distillcache.datasets.shards.index import index_shard
from distillcache.runtime.watch import Watch

from .conftest import run

SMALL = (
    "--device",
    "cpu",
    "--batch-size",
    4,
    "--epochs",
    3,
    "--model-kwargs",
    "img_size=32",
    "embed_dim=24",
    "depth=1",
)


def encoded(image: Image.Image, kind: str, **more: object) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **more)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes, **more: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in more.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def test_odd_names_and_images_go_through_both_stages(tmp_path: Path, photos: list[bytes], teacher_folder: Path) -> None:
    photo = Image.open(io.BytesIO(photos[0]))
    images = {
        "../../escape": photos[0],
        f"{tmp_path}/absolute": photos[1],
        "a b\x1b[31m\nred": photos[2],
        "<script>alert(1)</script>": photos[3],
        "long/" + "x" * 300: photos[4],
        "one": encoded(Image.new("RGB", (1, 1), "red"), "JPEG"),
        "high": encoded(photo.resize((1, 5000)), "JPEG"),
        "wide": encoded(photo.resize((5000, 1)), "JPEG"),
        "cmyk": encoded(photo.convert("CMYK"), "JPEG"),
        "png": encoded(photo.convert("P"), "PNG"),
    }
    inside = tmp_path / "inside"
    inside.mkdir()
    with tarfile.open(inside / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}) as tar:
        for number, (key, data) in enumerate(images.items()):
            add(tar, f"{key}.JPG", data, pax_headers={"mtime": "1.5"})
            add(tar, f"{key}.cls", b" %d\n" % (number % 5))
            add(tar, f"{key}.json", b"{}")
        add(tar, "folder", b"", type=tarfile.DIRTYPE)
        add(tar, "../../../link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    given = ("--shards", inside / "a.tar", "--cache", inside / "c.zarr")
    made = run(
        "cache-teacher", *given, "--teacher", teacher_folder, "--image-size", 32, "--views", 3, "--device", "cpu"
    )
    assert made.exit_code == 0, made.output
    assert Store(inside / "c.zarr").keys(0) == list(images)
    trained = run("train-student", *given, "--out", inside / "out", *SMALL)
    assert trained.exit_code == 0, trained.output
    for key in images:
        told = run("inspect", "label", inside / "c.zarr", key)
        assert told.exit_code == 0 and "\x1b" not in told.output
    shown = run(
        "inspect", "show", inside / "c.zarr", *images, "--shards", inside / "a.tar", "--out", inside / "grid.png"
    )
    assert shown.exit_code == 0, shown.output
    assert sorted(p for p in tmp_path.rglob("*") if inside not in p.parents) == [
        p for p in before if inside not in p.parents
    ]


def test_ten_thousand_tiny_members_are_read_at_once(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(5000):
            add(tar, f"{i:05d}.png", b"x")
            add(tar, f"{i:05d}.cls", b"1")
    start = time.monotonic()
    assert len(index_shard(str(tmp_path / "a.tar")).keys) == 5000
    assert time.monotonic() - start < 30  # a second here; what it must not be is quadratic


def test_exif_rotation_is_not_honoured(photos: list[bytes]) -> None:
    """As recipes.md says: neither by stage 1 nor by stage 2, which share this decoder."""
    photo = Image.open(io.BytesIO(photos[0]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    for kind in ("JPEG", "PNG", "WEBP"):
        plain, turned = (pixels.decode(encoded(photo, kind, **more)) for more in ({}, {"exif": exif}))
        assert np.array_equal(plain, turned)


def test_a_read_that_hangs_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A pipe that nobody writes to, as a file server that does not answer."""
    os.mkfifo(tmp_path / "a.tar")
    watch = Watch(patience=0.05)
    writer = subprocess.Popen(["sh", "-c", f"sleep 1; : > {tmp_path}/a.tar"])
    with watch.waiting_for(f"{tmp_path}/a.tar"):
        (tmp_path / "a.tar").read_bytes()
    writer.wait()
    lines = capfd.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 6 and all(f"{tmp_path}/a.tar: a read has taken" in line for line in lines)
    time.sleep(0.2)
    assert not capfd.readouterr().err


@pytest.fixture
def read_only(tmp_path: Path, store: Store) -> Iterator[Path]:
    copy = tmp_path / "ro" / "store.zarr"
    shutil.copytree(store.path, copy)
    subprocess.run(["chmod", "-R", "a-w", str(copy.parent)], check=True)
    yield copy
    subprocess.run(["chmod", "-R", "u+w", str(copy.parent)], check=True)


def test_a_read_only_store_is_trained_from_and_inspected(tmp_path: Path, read_only: Path, shards: str) -> None:
    """By real processes that may not write there: of root's, the right to ignore permissions is taken first."""
    drop = "import ctypes, sys; ctypes.CDLL(None).prctl(24, 1)\n"  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    drop += "import os; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    probe = subprocess.run(
        [sys.executable, "-c", drop, "-c", f"open({str(read_only / 'x')!r}, 'w')"], capture_output=True
    )
    assert probe.returncode == 1 and b"Permission denied" in probe.stderr
    for arguments in (
        ("inspect", "info", read_only),
        ("inspect", "verify", read_only, "--shards", shards),
        ("train-student", "--shards", shards, "--cache", read_only, "--out", tmp_path / "out", *SMALL),
    ):
        command = [sys.executable, "-c", drop, "-m", "distillcache.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
