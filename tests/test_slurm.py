"""The jobs of examples/slurm on a real Slurm, as its users submit them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher

from .cache.test_processes import held
from .conftest import SIZE, cached, run
from .slurm import cluster

JOBS = Path(__file__).parents[1] / "examples" / "slurm"
LIMIT = 180
pytestmark = pytest.mark.skipif(
    not shutil.which("sbatch"), reason="SKIPPED: no Slurm (apt-get install slurm-wlm); make test-slurm"
)
STUDENT = "--device cpu --model-kwargs img_size=32 --model-kwargs embed_dim=24 --model-kwargs depth=2 "
STUDENT += "--model-kwargs num_heads=3 --warmup-epochs 0 --batch-size 8"


class Slurm:
    """Where jobs are submitted, and what they leave."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, **environment, "PATH": programs, "OMP_NUM_THREADS": "1"}
        self.folder = folder

    def ask(self, *command: object) -> str:
        asked = subprocess.run(
            list(map(str, command)), env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.strip()

    def submit(self, *options: object, **variables: object) -> str:
        self.environment |= {name: str(value) for name, value in variables.items()}
        return self.ask("sbatch", "--parsable", "--output", "job-%j", *options)

    def state(self, job: str) -> str:
        """Return the state of a job, or of each job of an array."""
        return self.ask("squeue", "--noheader", "--states", "all", "--jobs", job, "--format", "%T")

    def until(self, happens: Callable[[], object], limit: float = LIMIT) -> None:
        deadline = time.monotonic() + limit
        while not happens():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def ends(self, job: str) -> str:
        """Wait for the end of a job, and return its state."""
        self.until(lambda: not set(self.state(job).split()) & {"PENDING", "RUNNING", "COMPLETING"})
        return self.state(job)

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("job-*")))


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Two nodes, and what programs find them by."""
    with cluster(Path(f"/tmp/slurm-{os.getpid()}-{time.monotonic_ns()}"), grace=30) as environment:
        yield environment
    shutil.rmtree(Path(environment["SLURM_CONF"]).parent)


@pytest.fixture
def slurm(environment: dict[str, str], tmp_path: Path) -> Iterator[Slurm]:
    slurm = Slurm(environment, tmp_path)
    yield slurm
    slurm.ask("scancel", "--me")


@pytest.fixture(scope="module")
def whole(shards: str, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 24 views that one process made."""
    return cached(tmp_path_factory.mktemp("whole") / "c.zarr", expand(shards), teacher, views=24)


def test_two_tasks_on_two_nodes_fill_one_store(
    slurm: Slurm, shards: str, teacher_folder: Path, whole: Store, tmp_path: Path
) -> None:
    flags = f"--image-size {SIZE} --device cpu --views 24"
    job = slurm.submit(
        "--nodes", 2, "--ntasks-per-node", 1, JOBS / "cache.sbatch",
        SHARDS=shards, CACHE=tmp_path / "c.zarr", TEACHER=teacher_folder, FLAGS=flags,
    )  # fmt: skip
    assert slurm.ends(job) == "COMPLETED", slurm.said()
    assert held(tmp_path / "c.zarr") == held(whole.path)
    assert slurm.said().count("labels ") == 1  # one table


def test_jobs_of_an_array_share_nothing_and_are_merged(
    slurm: Slurm, shards: str, teacher_folder: Path, whole: Store, tmp_path: Path
) -> None:
    flags = f"--image-size {SIZE} --device cpu --views 24"
    job = slurm.submit(
        "--array", "1-2", JOBS / "cache-array.sbatch",
        SHARDS=shards, CACHE=tmp_path / "part", TEACHER=teacher_folder, FLAGS=flags,
    )  # fmt: skip
    merge = f"distillcache inspect merge {tmp_path}/all.zarr {tmp_path}/part-*.zarr"
    merged = slurm.submit("--dependency", f"afterok:{job}", "--wrap", merge)
    assert slurm.ends(merged) == "COMPLETED", slurm.said()
    labels = {name for name in held(whole.path) if name.startswith(("label", "check", "seed"))}
    found = held(tmp_path / "all.zarr")
    assert {name: found[name] for name in labels} == {name: held(whole.path)[name] for name in labels}


def test_a_preempted_job_goes_on_at_its_exact_step(slurm: Slurm, shards: str, whole: Store, tmp_path: Path) -> None:
    flags = f"{STUDENT} --reuse-views --epochs 150"
    given = {"SHARDS": shards, "CACHE": whole.path, "OUT": tmp_path / "out", "FLAGS": flags}
    job = slurm.submit("--nodes", 2, "--ntasks-per-node", 1, JOBS / "train.sbatch", **given)
    slurm.until(lambda: (tmp_path / "out" / "last.pt").exists())
    first = slurm.submit("--partition", "high", "--exclusive", "--nodes", 2, "--wrap", "sleep 1")
    assert slurm.ends(first) == "COMPLETED"
    assert slurm.ends(job) == "COMPLETED", slurm.said()
    assert "stopped" in slurm.said() and "going on from epoch" in slurm.said()
    alone = tmp_path / "alone"
    options = ["--shards", shards, "--cache", whole.path, "--out", alone, *flags.split()]
    command = ["torchrun", "--nproc-per-node", 2, "--no-python", "distillcache", "train-student", *options]
    slurm.ask(*command)
    assert (alone / "student.safetensors").read_bytes() == (tmp_path / "out/student.safetensors").read_bytes()


def test_a_cancelled_job_ends_and_is_not_requeued(slurm: Slurm, shards: str, whole: Store, tmp_path: Path) -> None:
    flags = f"{STUDENT} --reuse-views --epochs 150"
    given = {"SHARDS": shards, "CACHE": whole.path, "OUT": tmp_path / "out", "FLAGS": flags}
    job = slurm.submit("--nodes", 1, "--ntasks-per-node", 2, JOBS / "train.sbatch", **given)
    slurm.until(lambda: (tmp_path / "out" / "last.pt").exists())
    slurm.ask("scancel", job)
    assert slurm.ends(job) == "CANCELLED"
    more = ["--shards", shards, "--cache", whole.path, "--out", tmp_path / "out", *flags.split()]
    assert run("train-student", *more).exit_code == 0
    assert run("evaluate", "--checkpoint", tmp_path / "out", "--shards", shards, "--device", "cpu").exit_code == 0


def test_a_job_whose_time_is_up_is_requeued_before_that(
    slurm: Slurm, shards: str, teacher_folder: Path, whole: Store, tmp_path: Path
) -> None:
    flags = f"--image-size {SIZE} --device cpu --views 24 --batch-size 1 --workers 0"
    job = slurm.submit(
        "--nodes", 1, "--ntasks-per-node", 2, "--time", 1, "--signal", "USR1@40", JOBS / "cache.sbatch",
        SHARDS=shards, CACHE=tmp_path / "c.zarr", TEACHER=teacher_folder, FLAGS=flags,
    )  # fmt: skip
    assert slurm.ends(job) == "COMPLETED", slurm.said()
    assert held(tmp_path / "c.zarr") == held(whole.path)
