"""Data can't execute anything, and no bytes lead to more than one clear line."""

import errno
import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from distillcache.cache.store import Store
from distillcache.datasets.augment import pixels
from distillcache.datasets.shards.index import index_shard
from distillcache.runtime import atomic

from .conftest import FUZZ, run


class Trap:
    """What a pickle makes of it when it is loaded: a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_planted_pickles_are_never_read(
    tmp_path: Path, store: Store, shards: str, photos: list[bytes], teacher_folder: Path
) -> None:
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in {"x.jpg": photos[0], "x.pkl": trap, "x.pyd": trap, "x.pth": trap, "x.cls": b"1"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    arguments = ("--shards", tmp_path / "a.tar", "--teacher", teacher_folder, "--image-size", 32, "--views", 3)
    assert run("cache-teacher", *arguments, "--cache", tmp_path / "a.zarr", "--device", "cpu").exit_code == 0

    out = tmp_path / "out"
    out.mkdir()
    for write in (lambda path: path.write_bytes(trap), lambda path: torch.save({"model": Trap(sprung)}, path)):
        write(out / "last.pt")
        options = ("--device", "cpu", "--batch-size", 8, "--epochs", 1, "--model-kwargs", "img_size=32", "depth=1")
        found = run("train-student", "--shards", shards, "--cache", store.path, "--out", out, *options)
        assert found.exit_code == 2 and "expected a checkpoint, found a damaged file" in found.stderr
        found = run("evaluate", "--checkpoint", out / "last.pt", "--shards", shards, "--device", "cpu")
        assert found.exit_code == 2 and "expected weights" in found.stderr

    planted = Path(shutil.copytree(teacher_folder, tmp_path / "teacher"))
    weights = next(path for path in planted.iterdir() if path.suffix == ".safetensors")
    weights.unlink()
    (planted / "pytorch_model.bin").write_bytes(trap)
    for teacher in (planted, f"local-dir:{planted}"):
        found = run("cache-teacher", *arguments[:2], "--teacher", teacher, "--cache", tmp_path / "b.zarr")
        assert found.exit_code == 2 and found.stderr.count("distillcache:") == 1, found.output
    assert not sprung.exists()


@pytest.mark.parametrize("spec", ["pipe:touch {}", "`touch {}`", "$(touch {})", "a.tar; touch {}", "a\ntouch {}"])
def test_shard_specs_never_reach_a_shell(tmp_path: Path, spec: str) -> None:
    found = run("train-student", "--shards", spec.format(tmp_path / "sprung"), "--out", tmp_path / "out")
    assert found.exit_code == 2 and found.stderr.count("distillcache: shards: ") == 1
    assert ("commands are never run" in found.stderr) == (spec.startswith("pipe:") or "\n" in spec)
    assert not (tmp_path / "sprung").exists()


def test_an_error_of_the_system_that_torch_hides_is_found(tmp_path: Path) -> None:
    def write(_: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 1494784 vs 1494676")  # noqa: B904 - as torch's zip writer does

    with pytest.raises(OSError, match=r"No space left on device: '.*last\.pt'"):
        atomic.write(tmp_path / "last.pt", write)
    assert not list(tmp_path.iterdir())


@settings(max_examples=300 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_broken_tars_raise_nothing_but_value_errors(tmp_path: Path, shards: str, data: st.DataObject) -> None:
    whole = bytearray(Path(shards.replace("*", "0")).read_bytes()[: 40 * 512])
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "broken.tar"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        index_shard(str(path))
    except ValueError as error:
        assert "broken.tar" in str(error)


@settings(max_examples=300 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_broken_images_raise_nothing_but_value_errors(photos: list[bytes], data: st.DataObject) -> None:
    """A crash of a decoder would end pytest, too."""
    kind, photo = (
        data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"])),
        Image.open(io.BytesIO(photos[0])).resize((60, 50)),
    )
    mode = data.draw(st.sampled_from(["L", "RGB"] + ["P", "RGBA", "LA", "1"] * (kind == "PNG")))
    photo.convert(mode).save(buffer := io.BytesIO(), kind)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = pixels.decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
        assert image.ndim == 3 and image.shape[2] == 3
    except ValueError as error:
        assert str(error).startswith("expected ")


def test_images_that_claim_to_be_huge_are_refused(photos: list[bytes]) -> None:
    """A JPEG of 65,280 pixels squared by its header, and a PNG of 900 megapixels in 109 kB."""
    jpeg, png = bytearray(photos[0]), io.BytesIO()
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\x00\xff\x00"
    Image.new("1", (30_000, 30_000)).save(png, "PNG")
    Image.new("1", (12_000, 12_000)).save(less := io.BytesIO(), "PNG")  # more than ours, less than Pillow's own limit
    for data in (bytes(jpeg), png.getvalue(), less.getvalue()):
        with pytest.raises(ValueError, match="expected an image of at most 134,217,728 pixels, found one that claims"):
            pixels.decode(data)


def test_an_animation_is_no_image() -> None:
    frames, gif = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")], io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="expected one image, found an animation of 2"):
        pixels.decode(gif.getvalue())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_broken_attributes_raise_nothing_but_value_errors(tmp_path: Path, store: Store, data: st.DataObject) -> None:
    """One value of a store's root attributes, wherever it is, becomes another."""
    if not (copy := tmp_path / "copy.zarr").exists():
        shutil.copytree(store.path, copy)
    root = json.loads((store.path / "zarr.json").read_text())
    place = root["attributes"]
    while True:
        key = data.draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(_JSON)
    (copy / "zarr.json").write_text(json.dumps(root))
    try:
        found = Store(copy)
        found.order(), found.manifest.fingerprint, found.manifest.drifted()
    except ValueError as error:
        assert "copy.zarr" in str(error)
