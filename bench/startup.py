"""How soon a command answers."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Skipped, report
from store import simulated

COMMAND = [sys.executable, "-m", "distillcache.cli"]


def main() -> Iterator[Figure | Skipped]:
    with tempfile.TemporaryDirectory() as folder:
        simulated(Path(folder) / "small.zarr", shards=4)
        yield seconds("distillcache --help", ["--help"], 0.5)
        yield seconds("distillcache inspect info", ["inspect", "info", str(Path(folder) / "small.zarr")], 1.0)


def seconds(what: str, arguments: list[str], target: float) -> Figure:
    taken = []
    for _ in range(6):
        started = time.perf_counter()
        subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    value = statistics.median(taken[1:])
    return Figure(what=what, ours=f"{value:.2f} s", theirs="-", value=value, unit=" s", target=target, at_least=False)


if __name__ == "__main__":
    report(main)
