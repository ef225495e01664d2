"""Shards on a web server that fails in every way: they arrive whole or a line says why."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import s3fs
import webdataset
from fsspec.implementations.memory import MemoryFileSystem

from distillcache.cache.claims import claims_on
from distillcache.cache.fill import fill
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import Order
from distillcache.datasets.samples import Samples, samples_of
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.shards.mirror import Mirror
from distillcache.datasets.views import Renderer
from distillcache.models.teachers import Teacher
from distillcache.runtime import remote
from distillcache.runtime.errors import InputError
from distillcache.tests.conftest import CLASSES, SIZE, cached, run
from distillcache.tests.servers import Request, Server, nginx, s3

COUNT = 6


@pytest.fixture(scope="module")
def folder(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of six photos."""
    folder = tmp_path_factory.mktemp("far-away")
    for number in range(COUNT):
        with webdataset.TarWriter(str(folder / f"train-{number}.tar"), mtime=0.0) as tar:
            for i in range(6):
                photo = photos[(number + 5 * i) % len(photos)]
                tar.write({"__key__": f"photo{number}{i}", "jpg": photo, "cls": (number + i) % CLASSES})
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, so that a small shard takes many requests, and short pauses."""
    monkeypatch.setattr(remote, "_BLOCK", 1 << 14)
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.1))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def stormy(request: Request, number: int) -> bool:
    """A tenth of the answers is 503 or 429; others are cut, reset or sent elsewhere."""
    if number % 10 == 3:
        return request.refuse(503 if number % 20 == 3 else 429)
    if number % 20 == 7 and request.command == "GET":
        request.send_file(request.server.folder / request.path.lstrip("/"), change=lambda body: body[: len(body) // 2])
        return True
    if number % 23 == 5:
        return request.reset()
    return number % 17 == 8 and request.redirect(f"{request.server.url}{request.path}")


def test_a_storm_changes_neither_store_nor_student(folder: Path, teacher_folder: Path, tmp_path: Path) -> None:
    weights = {}
    with Server(folder, stormy) as server:
        for name, shards in (("near", f"{folder}/train-{{0..5}}.tar"), ("far", f"{server.url}/train-{{0..5}}.tar")):
            store, here = tmp_path / f"{name}.zarr", ["--shards", shards, "--mirror", tmp_path / "mirror"]
            here += ["--device", "cpu", "--workers", 2, "--batch-size", 8, "--cache", store]
            cached = run("cache-teacher", *here, "--teacher", teacher_folder, "--image-size", SIZE, "--views", 3)
            assert cached.exit_code == 0, cached.output
            student = ["--model-kwargs", "img_size=32 embed_dim=24 depth=1 num_heads=3", "--out", tmp_path / name]
            trained = run("train-student", *here, *student, "--epochs", 3, "--warmup-epochs", 0)
            assert trained.exit_code == 0, trained.output
            weights[name] = (tmp_path / name / "student.safetensors").read_bytes()
        assert server.requests.total() > 100  # of which many failed
    assert run("inspect", "diff", tmp_path / "near.zarr", tmp_path / "far.zarr").exit_code == 0
    assert weights["near"] == weights["far"]


def test_a_mirror_smaller_than_the_data_stays_within_its_limit(
    server: Server, folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    mirror, most, limit = tmp_path / "mirror", 0, int(2.5 * max(path.stat().st_size for path in folder.glob("*.tar")))
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            found = 0
            for path in mirror.glob("*[0-9a-f.]*"):
                try:
                    found += path.stat().st_size
                except FileNotFoundError:
                    found = 0
                    break
            most = max(most, found)

    watching = threading.Thread(target=watch)
    watching.start()
    here = ["--shards", f"{server.url}/train-{{0..5}}.tar", "--mirror", mirror, "--mirror-size", f"{limit}"]
    here += ["--device", "cpu", "--batch-size", 4, "--cache", tmp_path / "c.zarr"]
    student = ["--model-kwargs", "img_size=32 embed_dim=24 depth=1 num_heads=3", "--warmup-epochs", 0, "--epochs", 3]
    try:
        cached = run("cache-teacher", *here, "--teacher", teacher_folder, "--image-size", SIZE, "--views", 3)
        assert cached.exit_code == 0, cached.output
        refused = run("train-student", *here, *student, "--out", tmp_path / "refused", "--window", 3)
        assert refused.exit_code == 2
        assert "bytes for two windows of 3 shards" in refused.output and "--window 1" in refused.output
        windowed = run("train-student", *here, *student, "--out", tmp_path / "windowed")
        assert windowed.exit_code == 0, windowed.output
        assert "shuffled in windows of 1" in windowed.output
    finally:
        ended.set()
        watching.join()
    assert 0 < most <= limit
    local = ["--shards", f"{folder}/train-{{0..5}}.tar", *here[6:]]
    assert run("train-student", *local, *student, "--out", tmp_path / "local", "--window", 1).exit_code == 0
    ours, theirs = ((tmp_path / name / "student.safetensors").read_bytes() for name in ("windowed", "local"))
    assert ours == theirs


def test_stage_1_fetches_each_shard_once_for_all_blocks_of_views(
    server: Server, folder: Path, teacher: Teacher, tmp_path: Path
) -> None:
    store = cached(tmp_path / "c.zarr", expand(f"{folder}/*.tar"), teacher, views=3)
    mirror = Mirror(tmp_path / "mirror", int(2.5 * max(path.stat().st_size for path in folder.glob("*.tar"))))
    far = store.samples(expand(f"{server.url}/train-{{0..5}}.tar"), mirror)
    with claims_on(store.path) as claims:
        fill(store, far, teacher, claims, views=27, batch_size=16, workers=0)  # three blocks of 12
    assert store.views_of_all() == 27 and server.sent.total() == size(folder)


def test_two_processes_share_a_mirror_and_fetch_nothing_twice(server: Server, folder: Path, tmp_path: Path) -> None:
    server.delay = 0.02
    command = [sys.executable, "-m", "distillcache.cli", "mirror", "--mirror", tmp_path / "mirror"]
    command += ["--prefetch", f"{server.url}/train-{{0..5}}.tar"]
    processes = [subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert server.sent.total() == size(folder)
    verified = run("mirror", "--mirror", tmp_path / "mirror", "--verify")
    assert verified.exit_code == 0 and "6 shards" in verified.output


def test_a_killed_download_goes_on_from_where_it_was(folder: Path, tmp_path: Path) -> None:
    mirror, url = tmp_path / "mirror", "train-0.tar"
    script = "from distillcache.datasets.shards import mirror; from distillcache.runtime import remote\n"
    script += "import sys; from pathlib import Path\n"
    script += "remote._BLOCK = 1 << 14; remote._AT_ONCE = 1\n"
    script += "mirror.Mirror(Path(sys.argv[1])).hold(sys.argv[2])"
    with Server(folder, delay=0.05) as server:
        process = subprocess.Popen([sys.executable, "-c", script, str(mirror), f"{server.url}/{url}"])
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 1 << 15 for path in mirror.glob("*.partial")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [path.name for path in mirror.iterdir() if len(path.name) == 64] == []
        begun = server.sent.total()
        with Mirror(mirror).holding(f"{server.url}/{url}") as held:
            assert Path(held.path).read_bytes() == (folder / url).read_bytes()
        assert 1 << 15 <= begun < server.sent.total() <= (folder / url).stat().st_size + (2 << 14)


def rendered(samples: Samples, workers: int, spoil: Path | None = None) -> list[int]:
    """Return the checks of every view; after the first batch, the mirror's files go, or are cut."""
    counts = samples.count.tolist()
    order = Order(seed=0, shards=[f"{i}" for i in range(COUNT)], samples=counts, recipe=named("deit", size=SIZE))
    checks = []
    with Loader(Renderer(order.recipe, samples), workers=workers) as loader:
        for _, views in loader.load(order.epoch(0).batches(4)):
            checks += views.check.tolist()
            if spoil and len(checks) == 4:
                for number, path in enumerate(sorted(path for path in spoil.iterdir() if len(path.name) == 64)):
                    if number % 2:
                        path.unlink()
                    else:
                        os.truncate(path, 100)
    return checks


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mirror_that_is_emptied_or_cut_while_it_is_used_is_filled_again(
    server: Server, folder: Path, tmp_path: Path, workers: int
) -> None:
    mirror = Mirror(tmp_path / "mirror")
    near = samples_of(index_shards(expand(f"{folder}/*.tar")), 0)
    far = samples_of(index_shards(expand(f"{server.url}/train-{{0..5}}.tar"), mirror=mirror), 0, mirror)
    assert rendered(far, workers, spoil=mirror.folder) == rendered(near, 0)
    assert server.sent.total() > size(folder)  # they came a second time


def test_a_wrong_byte_is_fetched_again_once_and_then_named(server: Server, folder: Path, tmp_path: Path) -> None:
    mirror, url = Mirror(tmp_path / "mirror"), f"{server.url}/train-0.tar"
    (index,) = index_shards([str(folder / "train-0.tar")])
    wrong = itertools.count()

    def damage(request: Request, number: int) -> bool:
        if request.command == "HEAD" or next(wrong) not in range(1, most):
            return False
        request.send_file(folder / "train-0.tar", change=lambda body: bytes([body[0] ^ 1]) + body[1:])
        return True

    server.fault, most = damage, 2
    mirror.let_go(mirror.hold(url, index.shard.sha256, index.shard.nbytes))
    assert mirror.path(index.shard.sha256).read_bytes() == (folder / "train-0.tar").read_bytes()
    mirror.empty()
    most = 10**9
    with pytest.raises(InputError, match=rf"train-0\.tar: expected SHA-256 {index.shard.sha256[:16]}, found .*restore"):
        mirror.hold(url, index.shard.sha256, index.shard.nbytes)
    assert [path for path in mirror.folder.iterdir() if path.name not in ("lock", "known")] == []


def test_a_wrong_byte_in_a_shard_that_no_store_knows_is_found_by_its_sha256sums(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    shutil.copytree(folder, made)
    near = index_shards(expand(f"{made}/*.tar"))
    (made / "SHA256SUMS").write_text("".join(f"{one.shard.sha256}  {one.shard.name}\n" for one in near))
    spoilt = set()

    def damage(request: Request, number: int) -> bool:
        if request.command == "HEAD" or not request.path.endswith(".tar") or request.path in spoilt:
            return False
        spoilt.add(request.path)
        request.send_file(made / request.path[1:], change=lambda body: body[:-1] + bytes([body[-1] ^ 1]))
        return True

    with Server(made, damage) as server:
        far = index_shards(expand(f"{server.url}/train-{{0..5}}.tar"), mirror=Mirror(tmp_path / "mirror"))
    assert len(spoilt) == COUNT and [one.shard for one in far] == [one.shard for one in near]


def test_a_server_that_was_away_or_stalled_is_waited_for(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_WITHIN", 0.5)
    back = time.monotonic() + 1.5

    def away(request: Request, number: int) -> bool:
        if number == 4:
            time.sleep(2)  # and then answers nobody
        return time.monotonic() < back and request.reset()

    server.fault = away
    with Mirror(tmp_path / "mirror").holding(f"{server.url}/train-1.tar") as held:
        assert Path(held.path).read_bytes() == (folder / "train-1.tar").read_bytes()


def test_a_server_without_ranges_sends_its_files_whole(server: Server, folder: Path, tmp_path: Path) -> None:
    def whole(request: Request, number: int) -> bool:
        del request.headers["Range"]
        return False

    server.fault = whole
    with Mirror(tmp_path / "mirror").holding(f"{server.url}/train-1.tar") as held:
        assert Path(held.path).read_bytes() == (folder / "train-1.tar").read_bytes()


class Short(MemoryFileSystem):
    """A client that does not notice when a body was cut, as the first one is."""

    protocol = "short"
    cut = False

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        first, Short.cut = not Short.cut, True
        return bytes(range(start, end - first))


def test_a_cut_body_is_noticed_where_its_client_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("short", Short, clobber=True)
    monkeypatch.setattr(remote, "_BLOCK", 100)
    assert b"".join(remote.RemoteFile("short://a.tar").blocks(50, 250)) == bytes(range(50, 250))


@pytest.mark.parametrize(
    ("url", "answer", "line"),
    [
        ("http://{host}/train-0.tar", 403, "the answer 403 Forbidden"),
        ("http://{host}/nothing.tar", 404, "the answer 404 Not Found"),
        ("http://user:secret@{host}/train-0.tar?sig=secret", 401, "the answer 401 Unauthorized"),
        ("https://{host}/train-0.tar", 200, "SSL"),
        ("http://{host}/train-0.tar", 503, "the answer 503 Service Unavailable"),
        ("http://no-such-host.invalid/train-0.tar", 200, "no-such-host.invalid"),
    ],
)
def test_what_no_repetition_mends_is_one_line(server: Server, tmp_path: Path, url: str, answer: int, line: str) -> None:
    server.fault = lambda request, number: answer != 200 and request.refuse(answer)
    named = url.format(host=f"127.0.0.1:{server.server_port}")
    began = time.monotonic()
    patience = 300 if answer in (401, 403, 404) or url.startswith("https") else 0.3
    found = run("mirror", "--prefetch", named, "--mirror", tmp_path / "mirror", "--retry-for", patience)
    assert found.exit_code == 2 and time.monotonic() - began < 10
    last = found.output.strip().splitlines()[-1]
    assert line in last and named.rpartition("/")[2].partition("?")[0] in last
    assert "secret" not in found.output and "Traceback" not in found.output


def test_a_full_disk_is_named(server: Server, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mirror], capture_output=True).returncode:
        pytest.skip("SKIPPED: only root can mount a small disk")
    try:
        found = run("mirror", "--prefetch", f"{server.url}/train-0.tar", "--mirror", mirror, "--mirror-size", "1G")
    finally:
        subprocess.run(["umount", "--lazy", mirror], check=True)
    assert found.exit_code == 2
    assert "No space left on device" in found.output and str(mirror) in found.output


@pytest.mark.skipif(not shutil.which("nginx"), reason="SKIPPED: no nginx")
@pytest.mark.parametrize("pattern", ["train-*.tar", "train-{0..5}.tar"])
def test_shards_behind_nginx_are_those_on_disk(folder: Path, tmp_path: Path, pattern: str) -> None:
    mirror = Mirror(tmp_path / "mirror", int(2.5 * max(path.stat().st_size for path in folder.glob("*.tar"))))
    near = samples_of(index_shards(expand(f"{folder}/*.tar")), 0)
    with nginx(folder, tmp_path) as url:
        far = samples_of(index_shards(expand(f"{url}/{pattern}"), mirror=mirror), 0, mirror)
        assert rendered(far, 2) == rendered(near, 0)
    assert " 206 " in (tmp_path / "requests").read_text()  # ranges of them


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[str]:
    """The shards in S3."""
    with s3("images") as url:
        s3fs.S3FileSystem().put([str(path) for path in folder.glob("*.tar")], "images/")
        yield url


def test_shards_in_s3_are_those_on_disk(
    bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 17)
    mirror = Mirror(tmp_path / "mirror")
    for pattern in ("train-{0..5}.tar", "train-*.tar"):
        urls = expand(f"{bucket}/{pattern}")
        assert [url.rpartition("/")[2] for url in urls] == sorted(path.name for path in folder.glob("*.tar"))
    near = samples_of(index_shards(expand(f"{folder}/*.tar")), 0)
    far = samples_of(index_shards(urls, mirror=mirror), 0, mirror)
    assert rendered(far, 2) == rendered(near, 0)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("{bucket}/nothing.tar", "found no such file"),
        ("s3://no-such-bucket/train-0.tar", "the answer 404 Not Found"),
    ],
)
def test_what_s3_does_not_have_is_one_line(bucket: str, tmp_path: Path, url: str, line: str) -> None:
    found = run("mirror", "--prefetch", url.format(bucket=bucket), "--mirror", tmp_path / "mirror")
    assert found.exit_code == 2 and line in found.output.strip().splitlines()[-1]


def test_with_a_store_and_a_full_mirror_no_server_is_asked(folder: Path, teacher_folder: Path, tmp_path: Path) -> None:
    with Server(folder) as server:
        here = ["--shards", f"{server.url}/train-{{0..5}}.tar", "--mirror", tmp_path / "mirror", "--device", "cpu"]
        here += ["--batch-size", 8, "--cache", tmp_path / "store.zarr"]
        cached = run("cache-teacher", *here, "--teacher", teacher_folder, "--image-size", SIZE, "--views", 3)
        assert cached.exit_code == 0, cached.output
    student = ["--model-kwargs", "img_size=32 embed_dim=24 depth=1 num_heads=3", "--warmup-epochs", 0, "--epochs", 1]
    trained = run("train-student", *here, *student, "--out", tmp_path / "out")
    assert trained.exit_code == 0, trained.output


@pytest.mark.parametrize("pattern", ["simplecache::{url}/train-{{0..5}}.tar", "{url}/train-*.tar"])
def test_chains_and_globs_name_the_same_shards(folder: Path, tmp_path: Path, pattern: str) -> None:
    def listed(request: Request, number: int) -> bool:
        if request.path != "/" or request.command != "GET":
            return False
        body = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(folder.iterdir())).encode()
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return True

    with Server(folder, listed) as server:
        urls = expand(pattern.format(url=server.url))
        assert len(urls) == COUNT and server.requests.total() < 6  # of which fsspec makes several
        with Mirror(tmp_path / "mirror").holding(urls[2]) as held:
            assert Path(held.path).read_bytes() == (folder / "train-2.tar").read_bytes()
