"""Every run ends and says the truth: real processes, with workers and under torchrun, and what happens to them."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distillcache.cache.store import Store
from distillcache.datasets.shards.index import index_shard

from . import conftest
from .servers import Request, Server

pytestmark = pytest.mark.usefixtures("one_thread")
LIMIT = 60.0
"""Seconds that a run may take from the fault to its end."""
STRAYS = 10.0
"""Seconds from a run's end until none of its processes is left."""
SHARED_MEMORY = Path("/dev/shm")
MODEL = ("img_size=32", "patch_size=8", "embed_dim=24", "depth=2", "num_heads=3")
DISTILLCACHE = (sys.executable, "-m", "distillcache.cli")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way in which a run ends before its time."""

    fault: str
    stage: int
    workers: int
    ranks: int = 1

    def __str__(self) -> str:
        where = f"{self.ranks} ranks" if self.ranks > 1 else "alone"
        return f"{self.fault}, stage {self.stage}, {self.workers} workers, {where}"


class Running:
    """A run, and all processes that it starts: they carry a mark in their environment."""

    def __init__(self, command: list[str], *, before: tuple[str, ...] = (), **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.memory = set(SHARED_MEMORY.iterdir())
        self.process = subprocess.Popen(
            [*before, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MARK": self.mark, **environment},
        )  # fmt: skip

    def processes(self, *words: str) -> list[int]:
        """Return the processes of this run whose command line has all of `words`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (folder / "environ").read_bytes()
                line = (folder / "cmdline").read_bytes().decode()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state != "Z" and all(word in line for word in words):
                found.append(int(folder.name))
        return sorted(found)

    def workers(self) -> list[int]:
        servers = set(self.processes("multiprocessing.forkserver"))
        parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in servers}
        return [pid for pid in servers if parents[pid] in servers]

    def ranks(self) -> list[int]:
        return [pid for pid in self.processes("distillcache.cli") if pid not in self.processes("torch.distributed.run")]

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(600):
            if condition():
                return
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.1)
        raise AssertionError("it never came so far")

    def end(self, limit: float = LIMIT) -> tuple[int, list[str]]:
        """Wait for the end, which leaves nothing; return the exit code and our lines."""
        try:
            _, text = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            raise
        end = time.monotonic() + STRAYS
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left
        left_in_memory = set(SHARED_MEMORY.iterdir()) - self.memory
        assert not [path for path in left_in_memory if not path.name.startswith("sem.loky")]  # scikit-learn's
        lines = [line for line in text.splitlines() if line.startswith("distillcache:")]
        assert all(len(line) <= 320 for line in lines)
        # torchrun's own tracebacks aside, which say nothing of us.
        assert "in a worker process" not in text and "]: Traceback" not in text
        assert "torch/distributed" in text or "Traceback" not in text
        return self.process.returncode, lines


class Bench:
    """A stage on a few photos, in a folder of its own."""

    def __init__(self, cell: Cell, folder: Path, shards: str, teacher: Path, store: Store) -> None:
        self.cell, self.folder, self.teacher = cell, folder, teacher
        self.shards = Path(shutil.copytree(Path(shards).parent, folder / "shards"))
        self.store = Path(shutil.copytree(store.path, folder / "given.zarr"))
        self.out = folder / "out"
        self.out.mkdir(exist_ok=True)
        self.data = ["--shards", str(self.shards / "train-*.tar")]

    def command(self, out: Path | None = None) -> list[str]:
        """Return the command of a run that takes some seconds."""
        cell, out = self.cell, out or self.out
        data = [*self.data, "--device", "cpu", "--workers", str(cell.workers)]
        launcher = [*TORCHRUN, str(cell.ranks), *DISTILLCACHE[1:]] if cell.ranks > 1 else [*DISTILLCACHE]
        if cell.stage == 1:
            more = ["--cache", str(out / "c.zarr"), "--teacher", str(self.teacher), "--image-size", "32"]
            return [*launcher, "cache-teacher", *data, *more, "--batch-size", "16", "--views", "300"]
        more = ["--cache", str(self.store), "--out", str(out), "--batch-size", "8", "--model-kwargs", *MODEL]
        epochs = "80" if cell.ranks == 1 else "40"
        return [*launcher, "train-student", *data, *more, "--reuse-views", "--epochs", epochs, "--drop-path", "0.1"]

    def finish(self) -> None:
        """Run again, to the end: the result is the one of a run that nothing happened to."""
        self.run(self.out)
        assert self.result(self.out) == reference(self)

    def run(self, out: Path) -> None:
        """Run to the end; one process alone is this one, and renders by itself."""
        if self.cell.ranks > 1:
            assert Running(self.command(out)).end(120) == (0, [])
        else:
            [*arguments] = self.command(out)[len(DISTILLCACHE) :]
            arguments[arguments.index("--workers") + 1] = "0"
            done = conftest.run(*arguments)
            assert done.exit_code == 0, done.output

    def result(self, out: Path) -> dict[str, bytes]:
        if self.cell.stage == 2:
            return {"student": (out / "student.safetensors").read_bytes().partition(b"}}")[2]}  # behind what it is told
        files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        return {name: data for name, data in files.items() if name != "c.zarr/zarr.json"}  # which has the date

    def at_work(self, run: Running) -> None:
        """Wait until the run is in the middle of things."""
        if self.cell.stage == 1:
            run.until(lambda: len(list(self.out.glob("c.zarr/label/c/*/*/0"))) > 2)
        else:
            run.until((self.out / "metrics.csv").exists)


_REFERENCES: dict[tuple[int, int], dict[str, bytes]] = {}


def reference(bench: Bench) -> dict[str, bytes]:
    """Return what a run leaves to which nothing happens, made once for each stage and number of ranks."""
    key = (bench.cell.stage, bench.cell.ranks)
    if key not in _REFERENCES:
        bench.run(bench.folder / "reference")
        _REFERENCES[key] = bench.result(bench.folder / "reference")
    return _REFERENCES[key]


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, shards: str, teacher_folder: Path, store: Store
) -> Iterator[Bench]:
    yield Bench(request.param, tmp_path, shards, teacher_folder, store)


def cells(*quick: Cell, thorough: tuple[Cell, ...] = ()) -> pytest.MarkDecorator:
    """Run a test in the `quick` cells, and where ENDS is set (`make test-ends`) in the `thorough` ones too."""
    chosen = (*quick, *thorough) if "ENDS" in os.environ else quick
    return pytest.mark.parametrize("bench", chosen, indirect=True, ids=str)


def cell(fault: str, stage: int, workers: int, ranks: int = 1) -> Cell:
    return Cell(fault=fault, stage=stage, workers=workers, ranks=ranks)


@cells(cell("SIGTERM", 2, 1), thorough=(cell("SIGINT", 1, 2), cell("SIGTERM", 1, 0), cell("SIGINT", 2, 1, ranks=2)))
def test_a_signal_ends_the_waiting_for_a_server_that_stalls(bench: Bench) -> None:
    stalled = threading.Event()

    def stall(request: Request, number: int) -> bool:
        stalled.set()
        time.sleep(3600)
        return True

    signum = signal.Signals[bench.cell.fault]
    with Server(bench.shards, stall) as server:
        bench.data = ["--shards", f"{server.url}/train-{{0,1}}.tar", "--mirror", str(bench.folder / "mirror")]
        run = Running(bench.command())
        run.until(stalled.is_set)
        os.kill(run.ranks()[0], signum)
        code, lines = run.end()
    assert code == (128 + signum if bench.cell.ranks == 1 else 1)
    assert bench.cell.ranks > 1 or lines == ["distillcache: stopped; run the same command again to go on"]


@cells(
    cell("SIGTERM", 1, 1),
    cell("SIGUSR1 to one", 2, 1, ranks=2),
    thorough=(
        cell("SIGINT to all", 2, 4),
        cell("SIGHUP", 2, 0),
        cell("SIGUSR1", 1, 0),
        cell("SIGINT to all", 1, 4),
        cell("SIGTERM", 2, 1),
        cell("SIGTERM to all", 2, 0, ranks=2),
    ),
)  # fmt: skip
def test_a_signal_ends_a_run_in_good_order(bench: Bench) -> None:
    name, _, whom = bench.cell.fault.partition(" to ")
    signum = signal.Signals[name]
    run = Running(bench.command())
    bench.at_work(run)
    if whom == "all":
        os.killpg(run.process.pid, signum)
    else:
        os.kill(run.ranks()[-1], signum)
    code, lines = run.end()
    assert code == (128 + signum if bench.cell.ranks == 1 else 1)  # of ranks, torchrun's
    assert len(lines) == 1
    place = "" if bench.cell.stage == 1 else " in epoch "
    assert lines[0].startswith(f"distillcache: stopped{place}") and "run the same command again to go on" in lines[0]
    left = [path.name for path in bench.out.iterdir()]
    assert not [name for name in left if name.endswith(("lock", ".partial"))]
    bench.finish()


@cells(cell("second SIGTERM", 2, 1), thorough=(cell("second SIGTERM", 1, 1), cell("second SIGTERM", 2, 1, ranks=2)))
def test_a_second_signal_ends_a_run_at_once(bench: Bench) -> None:
    """Also a run that can't answer the first: its worker, for whose views it waits, is stopped."""
    run = Running(bench.command())
    bench.at_work(run)
    for pid in (*run.workers(), *run.ranks()):
        os.kill(pid, signal.SIGSTOP)
    for pid in run.ranks():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
    time.sleep(1)
    for pid in run.ranks():
        os.kill(pid, signal.SIGTERM)
    code, _ = run.end(15)
    assert code in ((143, -signal.SIGTERM) if bench.cell.ranks == 1 else (1,))
    bench.finish()


@cells(
    cell("killed worker", 1, 2),
    thorough=(cell("killed worker", 2, 1, ranks=2), cell("killed worker", 2, 4), cell("killed worker", 1, 1)),
)
def test_a_killed_worker_is_one_line(bench: Bench) -> None:
    """Killed as the out-of-memory killer does it."""
    run = Running(bench.command())
    bench.at_work(run)
    os.kill(run.workers()[-1], signal.SIGKILL)
    code, lines = run.end()
    assert code == (2 if bench.cell.ranks == 1 else 1)
    assert re.search(
        r"a process that renders views died \(worker \d, process \d+: killed by SIGKILL\); is mem", lines[0]
    )
    assert all("another process of this run ended" in line for line in lines[1:]) and len(lines) <= bench.cell.ranks
    bench.finish()


@cells(thorough=(cell("torchrun is killed", 2, 1, ranks=2),))
def test_ranks_without_their_launcher_save_and_end(bench: Bench) -> None:
    run = Running(bench.command())
    bench.at_work(run)
    os.kill(run.process.pid, signal.SIGKILL)
    run.end(12)
    assert (bench.out / "last.pt").exists() and not (bench.out / "lock").exists()
    bench.finish()


@cells(cell("a rank is killed", 2, 1, ranks=2), thorough=(cell("a rank is stopped", 2, 0, ranks=2),))
def test_a_rank_without_its_peer_ends(bench: Bench) -> None:
    run = Running(bench.command())
    bench.at_work(run)
    if "killed" in bench.cell.fault:
        os.kill(run.ranks()[-1], signal.SIGKILL)
    else:
        os.kill(run.ranks()[-1], signal.SIGSTOP)
        time.sleep(1)
        os.kill(run.process.pid, signal.SIGTERM)
    code, lines = run.end(45)  # torchrun waits 30 s for what is stopped
    assert code == 1 and len(lines) == 1
    # Its launcher may have stopped the other before that one notices.
    assert re.search(r"another process of this run ended|: stopped[;,]", lines[0])
    bench.finish()


def in_namespace(script: str, then: str = 'exec "$@"') -> tuple[str, ...]:
    """Return what a command is put behind to run where `script` may mount; skips where nobody may."""
    before = ("unshare", "--map-root-user", "--mount", "sh", "-c", f"{script} && {then}", "sh")
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("SKIPPED: this machine allows no mounts of one's own")
    return before


@cells(cell("tiny /dev/shm", 2, 2), thorough=(cell("tiny /dev/shm", 1, 4), cell("tiny /dev/shm", 2, 1, ranks=2)))
def test_a_tiny_shared_memory_is_enough(bench: Bench) -> None:
    """docker's 64 MB would be full with a few batches at 224 pixels; here it is full from the start."""
    before = in_namespace("mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /dev/shm && touch /dev/shm/full")
    assert Running(bench.command(), before=before).end(120) == (0, [])
    assert bench.result(bench.out) == reference(bench)


@cells(
    thorough=(
        cell("full disk", 1, 1),
        cell("full disk", 2, 1, ranks=2),
        cell("full disk", 2, 4),
        cell("full disk", 1, 0),
        cell("full disk", 2, 0),
    ),
)
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(bench: Bench) -> None:
    size = "60k" if bench.cell.stage == 1 else "150k"
    kept = bench.folder / "kept"
    kept.mkdir()
    save = f"trap 'cp -a {bench.out}/. {kept}/' EXIT"
    before = in_namespace(f"mount -t tmpfs -o size={size} tmpfs {bench.out} && {save}", '"$@"')
    code, lines = Running(bench.command(), before=before).end(60)
    assert code == (2 if bench.cell.ranks == 1 else 1)
    assert f"distillcache: {bench.out}/" in lines[0] and "No space left on device" in lines[0]
    assert all("another process of this run ended" in line for line in lines[1:]) and len(lines) <= bench.cell.ranks
    shutil.copytree(kept, bench.out, dirs_exist_ok=True)
    bench.finish()


@cells(cell("bad image", 2, 2), thorough=(cell("bad image", 2, 0), cell("bad image", 2, 1, ranks=2)))
def test_an_error_in_a_worker_is_the_line_of_no_workers(bench: Bench) -> None:
    shard = bench.shards / "train-1.tar"
    index = index_shard(str(shard))
    data = bytearray(shard.read_bytes())
    data[index.offsets[4] : index.offsets[4] + 600] = bytes(600)
    shard.write_bytes(data)
    code, lines = Running([*bench.command(), "--allow-drift"]).end()
    assert code == (2 if bench.cell.ranks == 1 else 1)
    assert lines[0].startswith("distillcache: shard train-1.tar, key photo104: expected a JPEG, PNG or WebP image")


@cells(cell("two runs on one folder", 2, 0))
def test_a_runs_folder_has_one_owner(bench: Bench) -> None:
    run = Running(bench.command())
    bench.at_work(run)
    os.kill(run.process.pid, signal.SIGSTOP)
    code, [line] = Running(bench.command()).end()
    os.kill(run.process.pid, signal.SIGCONT)
    assert code == 2
    holder = f"pid {run.process.pid} on {socket.gethostname()}"
    assert f"out: expected a folder of this run's own, found {bench.out} in use by {holder}" in line
    assert run.end(120) == (0, [])
    assert bench.result(bench.out) == reference(bench)


@cells(cell("ranks that differ", 2, 0, ranks=2))
def test_ranks_that_go_on_from_different_places_end_with_one_line_each(bench: Bench) -> None:
    """Two machines whose --out is not shared: one has a checkpoint, the other has none."""
    run = Running(bench.command())
    bench.at_work(run)
    os.kill(run.ranks()[0], signal.SIGTERM)
    run.end()
    [*launcher, flag, module], arguments = bench.command()[: len(TORCHRUN) + 3], bench.command()[len(TORCHRUN) + 3 :]
    arguments[arguments.index("--out") + 1] = "$OUT"
    quoted = " ".join(argument if argument == "$OUT" else shlex.quote(argument) for argument in arguments)
    script = (
        f"OUT={bench.out}; [ $RANK = 0 ] || OUT={bench.out}-elsewhere; exec {sys.executable} {flag} {module} {quoted}"
    )
    code, lines = Running([*launcher, "--no-python", "bash", "-c", script]).end()
    assert code == 1 and len(lines) == 2 and lines[0] == lines[1]
    assert "where the run goes on from: rank 0 on" in lines[0] and "has epoch 1, step 0;" in lines[0]
