"""Views rendered ahead of those who ask for them, by processes or by threads."""

import functools
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from .order import Rows
from .samples import SampleError
from .views import Renderer, Views


class _Batches(Dataset[tuple[Rows, Views] | SampleError]):
    """What a worker process runs: rows are the index."""

    def __init__(self, render: Callable[[Rows], Views]) -> None:
        self._render = render

    def __getitem__(self, rows: Rows) -> tuple[Rows, Views] | SampleError:
        try:
            return rows, self._render(rows)
        except SampleError as error:
            return error  # DataLoader would wrap an exception in its traceback


def load(
    renderer: Renderer, batches: Iterable[Rows], *, workers: int = 0, pin_memory: bool = False
) -> Iterator[tuple[Rows, Views]]:
    """Yield each batch of rows with its views, in order, rendered ahead by `workers` processes.

    Without any, a batch is rendered when it is asked for, by as many threads of this process as torch has: the better
    way where the model needs the same cores, as it then never waits for one that renders. Raises SampleError, and
    RuntimeError if a worker was killed.
    """
    ours: list[Exception] = []  # errors of `batches` itself, which the loader asks for them

    def asked() -> Iterator[Rows]:
        try:
            yield from batches
        except Exception as error:
            ours.append(error)
            raise

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)  # starts no thread before it has work
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user's number stands
        loader = DataLoader(
            _Batches(renderer if workers else functools.partial(renderer, pool=pool, parts=threads)),
            sampler=cast("Iterable[int]", asked()),
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            collate_fn=_as_it_is,
        )
        items = iter(loader)
    try:
        for item in items:
            if isinstance(item, SampleError):
                raise item
            yield item
    except (OSError, EOFError) as error:
        if not workers or error in ours:
            raise
        # torch itself says so, in these words and wherever the main process is, if it is the first to notice.
        raise RuntimeError(f"DataLoader worker died: {str(error) or type(error).__name__}") from error


def _as_it_is(item: object) -> object:
    return item


def _start_worker(_: int) -> None:
    """One thread for each worker; signals that a whole group of processes gets are the main process's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, _: signal.signal(signum, signal.SIG_DFL))  # a second one ends it
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
