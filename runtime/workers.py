"""Worker processes: started so that nothing of this process can hurt them, and gone on every way out of it.

They come from Python's fork server, a clean process without our threads, CUDA contexts, locks and connections. Tasks go
to them through a socket each; what they make comes back in anonymous memory, which needs no room in /dev/shm.
"""

import contextlib
import errno
import functools
import mmap
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

_AHEAD = 2  # tasks of each worker that are sent before their results are asked for
_SECONDS_TO_END = 5.0
_FILES_OF_A_WORKER = 6
_BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}

Room = Callable[[int], memoryview]
"""Gives a worker so many bytes to write its result to; asked once a task."""
Task = TypeVar("Task")


class WorkerDiedError(RuntimeError):
    """A worker process was killed, or ended itself."""


class Workers(Generic[Task]):
    """`count` processes that apply `function` to tasks; a context manager, which alone starts and ends them.

    `function` takes a task and a `Room`; it is pickled once for each worker. They own nothing but memory, so they are
    ended by SIGKILL. A signal that a whole group of processes gets is this process's to handle: workers block it.
    """

    def __init__(self, function: Callable[[Task, Room], None], count: int, *, preload: Sequence[str]) -> None:
        """`preload`: the modules that the fork server imports, once for all workers."""
        self._function, self._count, self._preload = function, count, preload
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []

    def __enter__(self) -> "Workers[Task]":
        self._end = util.Finalize(self, _end, args=(self._processes, self._connections), exitpriority=100)
        try:
            _require_files(self._count)
            start_fork_server(self._preload)
            for number in range(self._count):
                self._start(number)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        self._connections.append(ours)
        with theirs:
            process = context.Process(
                target=_serve, args=(theirs, self._function), name=f"worker {number}", daemon=True
            )
            try:
                process.start()
            except EOFError as error:
                raise WorkerDiedError("the process that starts workers: killed") from error
        self._processes.append(process)

    def map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, mmap.mmap]]:
        """Yield each task with what `function` wrote for it, in order, made ahead; one `map` at a time.

        What `function` raises is raised here as itself, which ends the workers, as does leaving early. Raises
        WorkerDiedError.
        """
        try:
            yield from self._map(tasks)
        except BaseException:
            self._end()  # of what they still make, nobody takes the results
            raise

    def _map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, mmap.mmap]]:
        source = enumerate(tasks)
        sent: dict[int, Task] = {}  # and not yet yielded
        made: dict[int, mmap.mmap] = {}
        at_work: dict[Connection, deque[int]] = {connection: deque() for connection in self._connections}
        following, exhausted = 0, False
        while True:
            self._receive(at_work, made, waiting=following in sent and following not in made)
            while not exhausted and len(sent) < _AHEAD * self._count:
                if (numbered := next(source, None)) is None:
                    exhausted = True
                    break
                number, task = numbered
                connection = min(at_work, key=lambda one: len(at_work[one]))
                self._send(connection, task)
                sent[number] = task
                at_work[connection] = at_work.pop(connection)  # of those with as much to do, the next is another
                at_work[connection].append(number)
            if following in made:
                yield sent.pop(following), made.pop(following)
                following += 1
            elif not sent:
                return

    def _send(self, connection: Connection, task: Task) -> None:
        try:
            connection.send(task)
        except OSError as error:
            raise self._died(connection) from error

    def _receive(self, at_work: dict[Connection, deque[int]], made: dict[int, mmap.mmap], *, waiting: bool) -> None:
        """Take in every result that is there; with `waiting`, at least one."""
        for connection in wait(list(at_work), None if waiting else 0):  # an idle worker is heard of when it dies
            assert isinstance(connection, Connection)
            try:
                error, nbytes = connection.recv()
                if error is None:
                    made[at_work[connection].popleft()] = _receive_memory(connection, nbytes)
            except (EOFError, OSError) as reason:
                raise self._died(connection) from reason
            if error is not None:
                raise error

    def _died(self, connection: Connection) -> WorkerDiedError:
        process = self._processes[self._connections.index(connection)]
        process.join(_SECONDS_TO_END)
        code = process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return WorkerDiedError(f"{process.name}, process {process.pid}: {how}")


def _require_files(workers: int) -> None:
    """Raise OSError if this process, or the fork server, could not hold the connections to so many workers."""
    open_now, (most, _) = len(list(Path("/proc/self/fd").iterdir())), resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and open_now + _FILES_OF_A_WORKER * workers > most:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def start_fork_server(preload: Sequence[str]) -> None:
    """Start the process that workers are forked from, unless it runs; it imports `preload` while we go on."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED - {signal.SIGINT, signal.SIGTERM})
    try:
        resource_tracker.ensure_running()  # which unblocks SIGINT and SIGTERM, so it goes first
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        forkserver.ensure_running()
        _end_fork_server_with(forkserver._forkserver)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_fork_server_with(server: Any) -> None:
    """End the fork server at our exit; by itself it ends only once it has imported all."""
    if pid := getattr(server, "_forkserver_pid", None):
        util.Finalize(None, _kill, args=(pid,), exitpriority=0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _end(processes: list[BaseProcess], connections: list[Connection]) -> None:
    for process in processes:
        process.kill()
    for connection in connections:
        connection.close()
    until = time.monotonic() + _SECONDS_TO_END  # a worker may hang in a read that not even SIGKILL ends
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    processes.clear()
    connections.clear()


def _serve(connection: Connection, function: Callable[[Any, Room], None]) -> None:
    """What a worker does until its parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        memories: list[tuple[int, int]] = []
        error = None
        try:
            function(task, functools.partial(_make_room, memories))
        except Exception as raised:
            error = _portable(raised)
        try:
            connection.send((error, memories[0][1] if memories else 0))
            with socket.socket(fileno=os.dup(connection.fileno())) as sender:
                for descriptor, _ in memories:
                    if error is None:
                        socket.send_fds(sender, [b"M"], [descriptor])
                    os.close(descriptor)
        except OSError:  # the parent is gone
            return


def _end_with_parent() -> None:
    """Leave even from a read that hangs, once the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(1)


def _make_room(memories: list[tuple[int, int]], nbytes: int) -> memoryview:
    descriptor = os.memfd_create("distillcache", os.MFD_CLOEXEC)
    memories.append((descriptor, nbytes))
    os.posix_fallocate(descriptor, 0, max(nbytes, 1))  # else a lack of memory shows as SIGBUS at the first write
    return memoryview(mmap.mmap(descriptor, max(nbytes, 1)))


def _receive_memory(connection: Connection, nbytes: int) -> mmap.mmap:
    with socket.socket(fileno=os.dup(connection.fileno())) as receiver:
        _, descriptors, _, _ = socket.recv_fds(receiver, 1, 1)
    if not descriptors:
        raise EOFError
    try:
        return mmap.mmap(descriptors[0], max(nbytes, 1))
    finally:
        os.close(descriptors[0])


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent, with the worker's traceback as a note."""
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    error.__cause__ = error.__context__ = error.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
