"""Finding, making and reading shards."""

import io
import pickle
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from distillcache.datasets.augment import pixels
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.files import class_names, expand
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.shards.writing import make_shards


def tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return str(path)


def folder_of_classes(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name / f"{name}.{i}.png")
    return folder


def test_index_finds_what_webdataset_reads(shards: str) -> None:
    urls = expand(shards)
    samples = samples_of(index_shards(urls), 0)
    for s, (url, index) in enumerate(zip(urls, index_shards(urls), strict=True)):
        theirs = list(webdataset.WebDataset(url, shardshuffle=False))
        assert index.keys == [sample["__key__"] for sample in theirs]
        assert index.targets == [int(sample["cls"]) for sample in theirs]
        assert [samples.read(s, i) for i in range(len(theirs))] == [sample["jpg"] for sample in theirs]


def test_images_that_lie_in_other_files_are_read_from_there(tmp_path: Path, shards: str) -> None:
    """As in a copy that is packed otherwise: the images of one shard in a file each."""
    samples = samples_of(index_shards(expand(shards)), 0)
    count = int(samples.count[0])
    files = []
    for i in range(count):
        files.append(str(tmp_path / f"{i}.jpg"))
        Path(files[-1]).write_bytes(samples.read(0, i))
    apart = replace(
        samples, files=files, paths=files, file=np.arange(count)[None], offset=np.zeros_like(samples.offset)
    )
    assert [apart.read(0, i) for i in range(count)] == [samples.read(0, i) for i in range(count)]
    assert apart.file_name(0, 3) == "3.jpg"


def test_processes_that_render_are_sent_no_keys(shards: str) -> None:
    indexes = index_shards(expand(shards))
    samples = samples_of(indexes, 0)
    assert samples.keys is not None and samples.keys[1, :11].tolist() == indexes[1].keys
    sent = pickle.loads(pickle.dumps(samples))
    assert sent.keys is None and sent.read(1, 3) == samples.read(1, 3)
    for name in ("count", "file", "seed", "target", "offset", "nbytes"):
        assert np.array_equal(getattr(sent, name), getattr(samples, name))


def test_made_shards_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "images")
    contents = []
    for out in (tmp_path / "one", tmp_path / "two"):
        make_shards(str(source), out, per_shard=4, seed=3)
        contents.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert contents[0] == contents[1]
    names = [f"train-{i:06d}.tar" for i in range(3)]
    assert sorted(contents[0]) == ["SHA256SUMS", "classes.txt", "shards.json", *names]
    assert subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=out, stdout=subprocess.DEVNULL).returncode == 0
    make_shards(str(source), tmp_path / "three", per_shard=4, seed=4)
    assert (tmp_path / "three" / "train-000000.tar").read_bytes() != contents[0]["train-000000.tar"]


def test_made_shards_hold_every_image_once_with_its_class(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "images")
    make_shards(str(source), tmp_path / "out", per_shard=4)
    indexes = index_shards(expand(str(tmp_path / "out" / "*.tar")))
    found = {(key, target) for index in indexes for key, target in zip(index.keys, index.targets, strict=True)}
    assert found == {(f"{n}/{n}_{i}", t) for t, n in enumerate(("cat", "dog")) for i in range(5)}
    assert class_names([indexes[0].url]) == ["cat", "dog"]


def test_making_shards_goes_on_and_refuses_another_packing(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "images")
    make_shards(str(source), tmp_path / "out", per_shard=4)
    kept, lost = tmp_path / "out" / "train-000000.tar", tmp_path / "out" / "train-000001.tar"
    before, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    make_shards(str(source), tmp_path / "out", per_shard=4)
    assert lost.read_bytes() == before and kept.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="name another folder"):
        make_shards(str(source), tmp_path / "out", per_shard=5)


def test_expand_takes_globs_braces_and_lists_in_any_order(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"t-{i:06d}.tar").touch()
    everything = [str(tmp_path / f"t-{i:06d}.tar") for i in range(3)]
    assert expand(f"{tmp_path}/*.tar") == expand(f"{tmp_path}/t-{{000000..000002}}.tar") == expand(everything[::-1])
    assert expand(f"file://{tmp_path}/t-000001.tar") == [f"file://{tmp_path}/t-000001.tar"]


def test_a_file_system_whose_package_is_missing_is_one_error() -> None:
    with pytest.raises(
        ValueError, match=r"gs://bucket/a.tar: expected a package that reads it, found none; pip install"
    ):
        expand("gs://bucket/a.tar")


def test_expand_refuses_what_is_not_there_or_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found nothing at"):
        expand(f"{tmp_path}/*.tar")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.tar").touch()
    with pytest.raises(ValueError, match="different file names"):
        expand(f"{tmp_path}/*/t.tar")
    with pytest.raises(ValueError, match="commands are never run"):
        expand(f"pipe:touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "LA", "1", "RGB"])
def test_every_kind_of_image_comes_out_as_rgb(mode: str, views: list[np.ndarray]) -> None:
    kinds = {"CMYK": "JPEG", "RGBA": "PNG", "P": "PNG", "LA": "PNG", "1": "PNG"}
    for kind in {kinds.get(mode, "JPEG"), *(["WEBP"] if mode in ("RGB", "RGBA") else [])}:
        buffer = io.BytesIO()
        Image.fromarray(views[0]).convert(mode).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
        ours = pixels.decode(buffer.getvalue())
        theirs = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).max() <= (4 if mode == "CMYK" else 0)
