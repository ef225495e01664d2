"""Both stages on a GPU: speed beside ready tensors and online distillation, utilisation, memory, waits of the host.

    python bench/gpu.py

Without a GPU the same at a small size on the CPU, to which no target applies.
"""

import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event

import torch
from figures import CORES, Figure, Skipped, median, photo_shards, report
from stages import beside, new_store, random_teacher, stage1, stage2, training_of
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from distillcache.cache.store import Store
from distillcache.models.teachers import Teacher

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
TEACHER = "regnety_160" if GPU else "regnety_002"
STUDENTS = [f"deit_{size}_distilled_patch16_224" for size in (("tiny", "small", "base") if GPU else ("tiny",))]
WORKERS = len(CORES) if GPU else 0
VIEWS, TEACHER_BATCH, BATCH = (60, 256, 256) if GPU else (3, 32, 8)
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy")


def main() -> Iterator[Figure | Skipped]:
    where = torch.cuda.get_device_name() if GPU else "the CPU, small"
    yield Skipped(what=f"on {where}, {len(CORES)} cores, {TEACHER}", reason="this says what the figures are of")
    with tempfile.TemporaryDirectory() as name:
        folder, urls = Path(name), photo_shards(Path("runs/bench"))
        for compiled in (False, True):
            yield from caching(urls, folder, random_teacher(TEACHER, folder, device=DEVICE, compiled=compiled))
        store = new_store(folder / "labelled.zarr", urls, random_teacher("regnety_002", folder), views=3)
        for student in STUDENTS:
            yield from training(store, urls, folder, student)
        if GPU:
            yield from waits(store, urls, folder)
        else:
            yield Skipped(what="utilisation, memory, overlap and waits of the host", reason="no GPU")


def caching(urls: list[str], folder: Path, teacher: Teacher) -> Iterator[Figure]:
    what = f"with {TEACHER} (bf16, channels last{', compiled' if teacher.compiled else ''})"
    with Utilisation() as busy:
        found = stage1(urls, teacher, folder, views=VIEWS, batch=TEACHER_BATCH, workers=WORKERS)
    yield beside(found, "stage 1", "teacher", f"{what} beside the teacher on ready tensors", goal(0.95))
    rendered, labelled = (statistics.median(found[name]) for name in ("rendering", "teacher"))
    each = rendered / len(CORES)
    yield Figure(
        what=f"cores that keep a GPU busy {what}", ours=f"{each:,.0f}/s a core", theirs=median(found, "teacher"),
        value=labelled / each, unit=" cores", target=16 if GPU else 1e9, at_least=False,
    )  # fmt: skip
    yield from busy.figures(f"stage 1, the teacher alone and rendering alone in turn, {what}")


def training(store: Store, urls: list[str], folder: Path, student: str) -> Iterator[Figure]:
    found = stage2(
        store, urls, folder, online_teacher=TEACHER, model=student, batch=BATCH, device=DEVICE, workers=WORKERS
    )
    yield beside(found, "stage 2", "ready", f"{student} (bf16), beside the same step on ready tensors", goal(0.97))
    faster = 4.0 if student == STUDENTS[0] else 1.0
    yield beside(found, "stage 2", "online", f"{student} beside online distillation with {TEACHER}", goal(faster))
    if GPU:
        yield from memory(f"{student} and online distillation, batch {BATCH}")


def goal(target: float) -> float:
    return target if GPU else 0.0


def memory(what: str) -> Iterator[Figure]:
    used = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    yield Figure(
        what=f"GPU memory, {what}",
        ours=f"{used:.2f} GiB",
        theirs="",
        value=used,
        unit=" GiB",
        target=80,
        at_least=False,
    )


class Utilisation:
    """Samples what nvidia-smi says of the first visible GPU five times a second."""

    def __enter__(self) -> "Utilisation":
        self._ended, self._pool = Event(), ThreadPoolExecutor(1)
        self._sampled: Future[list[int]] = self._pool.submit(self._sample)
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._pool.shutdown()

    def _sample(self) -> list[int]:
        samples: list[int] = []
        if not GPU:
            return samples
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        if os.environ.get("CUDA_VISIBLE_DEVICES"):
            command += ["--id", os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]]
        while not self._ended.wait(0.2):
            samples.append(int(subprocess.check_output(command, text=True).split()[0]))
        return samples

    def figures(self, what: str) -> Iterator[Figure]:
        if GPU:
            mean = statistics.mean(self._sampled.result())
            yield Figure(what=f"utilisation, {what}", ours=f"{mean:.0f}%", theirs="", value=mean, unit="%", target=0)
            yield from memory(what)


def waits(store: Store, urls: list[str], folder: Path) -> Iterator[Figure]:
    """Look into ten steps with the profiler: nothing in them waits for the GPU, and copies lie under kernels."""
    steps = 10
    run, batches = training_of(
        store, urls, folder / "waits", model=STUDENTS[0], batch=BATCH, device=DEVICE, workers=WORKERS
    )
    for step in range(3):
        run._step(next(batches), 0, step)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for step in range(steps):
            batch = next(batches)
            torch.cuda.set_sync_debug_mode("error")  # raises where the step waits
            run._step(batch, 0, step)
            torch.cuda.set_sync_debug_mode("default")
        events = list(seen.events() or ())
    batches.close()
    waited = sum(event.name in WAITS for event in events)
    yield Figure(
        what=f"waits for the GPU in {steps} steps, by the profiler; more than its own one at the end", ours=str(waited),
        theirs="", value=waited, unit="", target=1, at_least=False,
    )  # fmt: skip
    on_gpu = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [event for event in on_gpu if "Memcpy HtoD" in event.name and "Pinned" in event.name]
    kernels = union([event for event in on_gpu if "Mem" not in event.name])
    covered = sum(overlap(copy, kernels) for copy in copies) / max(
        sum(copy.time_range.elapsed_us() for copy in copies), 1
    )
    yield Figure(
        what="share of the copies' time that lies under kernels", ours=f"{100 * covered:.0f}%", theirs="",
        value=100 * covered, unit="%", target=80,
    )  # fmt: skip


def union(events: list[FunctionEvent]) -> list[tuple[float, float]]:
    """Return the spans of time in which any of `events` runs."""
    spans: list[tuple[float, float]] = []
    for start, end in sorted((event.time_range.start, event.time_range.end) for event in events):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    return spans


def overlap(event: FunctionEvent, spans: list[tuple[float, float]]) -> float:
    began, ended = event.time_range.start, event.time_range.end
    return sum(max(0.0, min(ended, end) - max(began, start)) for start, end in spans)


if __name__ == "__main__":
    report(main)
