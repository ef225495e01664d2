"""Views rendered ahead of those who ask for them, by processes or by threads: the one owner of both."""

import mmap
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import cv2
import torch

from ..runtime.workers import Room, Workers, start_fork_server
from .order import Rows
from .samples import LostError
from .supply import LookAhead
from .views import Renderer, Views

_PRELOAD = (__name__,)
_LOST = -1
"""In place of a batch's first check: what it is rendered from went from the mirror."""


class Loader:
    """Renders batches of rows with `workers` processes; a context manager, after which none of them is left.

    Without any, a batch is rendered when it is asked for, by as many threads of this process as torch has: the better
    way where the model needs the same cores, as it then never waits for one that renders.
    """

    def __init__(self, renderer: Renderer, *, workers: int = 0, pin_memory: bool = False) -> None:
        """`pin_memory`: put views where a GPU can fetch them while the CPU goes on."""
        self._renderer, self._pin_memory = renderer, pin_memory
        self._workers = Workers(_Render(renderer), workers, preload=_PRELOAD) if workers else None

    def __enter__(self) -> "Loader":
        if self._workers:
            self._workers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workers:
            self._workers.__exit__(kind, error, trace)

    def load(self, batches: Iterable[Rows]) -> Iterator[tuple[Rows, Views]]:
        """Yield each batch of rows with its views, in order; one `load` at a time.

        Raises SampleError, WorkerDiedError if a worker was killed, and ValueError for a shard that does not come.
        """
        views = self._supplied(batches) if self._renderer.samples.supply else self._rendered(batches)
        return _pinned(views) if self._pin_memory else views

    def _supplied(self, batches: Iterable[Rows]) -> Iterator[tuple[Rows, Views]]:
        """Render with every shard from far away in the mirror by then."""
        samples = self._renderer.samples
        assert samples.supply
        ahead = LookAhead(samples.supply, samples.files_of)
        for rows, views in self._rendered(ahead.supplied(batches)):
            yield rows, views
            ahead.done()

    def _rendered(self, batches: Iterable[Rows]) -> Iterator[tuple[Rows, Views]]:
        return self._by_processes(self._workers, batches) if self._workers else self._by_threads(batches)

    def _by_processes(self, workers: Workers[Rows], batches: Iterable[Rows]) -> Iterator[tuple[Rows, Views]]:
        for rows, memory in workers.map(batches):
            views = _views(memory, rows, self._renderer)
            yield rows, self._renderer(rows) if views.check[0] == _LOST else views  # this process can fetch it anew

    def _by_threads(self, batches: Iterable[Rows]) -> Iterator[tuple[Rows, Views]]:
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads)
        try:
            for rows in batches:
                yield rows, self._renderer(rows, pool, threads)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def start_early(workers: int) -> None:
    """Begin what workers need to start, where there will be some, while the caller has other things to load."""
    if workers:
        start_fork_server(_PRELOAD)


class _Render:
    """What a worker does with a batch of rows."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def __call__(self, rows: Rows, room: Room) -> None:
        views = _views(room(Views.nbytes(len(rows), self._renderer.recipe.size)), rows, self._renderer)
        try:
            self._renderer.render(rows, views)
        except LostError:
            views.check[0] = _LOST

    def __setstate__(self, state: dict[str, Renderer]) -> None:
        """Arrive in a worker, which has one thread."""
        self.__dict__.update(state)
        torch.set_num_threads(1)
        cv2.setNumThreads(0)


def _views(memory: mmap.mmap | memoryview, rows: Rows, renderer: Renderer) -> Views:
    return Views.over(torch.frombuffer(memory, dtype=torch.uint8), len(rows), renderer.recipe.size)


def _pinned(batches: Iterable[tuple[Rows, Views]]) -> Iterator[tuple[Rows, Views]]:
    """Yield each batch in pinned memory, copied by a thread while the one before it is used."""
    copying: deque[tuple[Rows, Future[Views]]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for rows, views in batches:
            copying.append((rows, thread.submit(views.pin_memory)))
            if len(copying) > 1:
                before, copy = copying.popleft()
                yield before, copy.result()
        for before, copy in copying:
            yield before, copy.result()
