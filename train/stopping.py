"""When a run stops before its end: a signal, or a loss that is not finite, in any of its processes."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..runtime.processes import Processes
from ..runtime.signals import StopSignals
from ..runtime.transfers import to_cpu
from .checkpoint import Progress

_STEPS_BEHIND = 2
"""On a GPU: how many steps later a loss is looked at, which then waits for no computation but old ones."""


class RunInterruptedError(RuntimeError):
    """The user or the scheduler asked the run to stop; everything is saved. `exit_code` is a shell's."""

    def __init__(self, signum: int, progress: Progress) -> None:
        super().__init__(
            f"stopped in epoch {progress.epoch + 1}, step {progress.step}; run the same command again to go on"
        )
        self.exit_code = 128 + signum


class NonFiniteLossError(RuntimeError):
    """A loss was NaN or infinite; last.pt is from before it."""

    exit_code = 1


class Heard(NamedTuple):
    """Why to stop, as all processes know it; zeros: go on."""

    signum: int
    bad_step: int
    """The first step, from 1, whose loss was not finite."""


class Stopping:
    """What all processes of a run know of why to stop.

    Each process says after every step what it knows, and hears a step later what all of them knew: no step waits for a
    question, and all stop after the same one.
    """

    def __init__(self, signals: StopSignals, processes: Processes, device: torch.device) -> None:
        self._signals, self._processes = signals, processes
        self._behind = _STEPS_BEHIND if device.type == "cuda" else 0
        self._bad_step = torch.tensor(0, device=device)
        self._looks: deque[Callable[[], tuple[torch.Tensor, ...]]] = deque()
        self._asked: deque[Callable[[], list[int]]] = deque()

    def after_step(self, loss: torch.Tensor, step: int) -> Heard:
        """Take in the loss of a step, from 1, and return what all processes knew a step ago; alone, what is known."""
        self._bad_step = torch.where((self._bad_step == 0) & ~torch.isfinite(loss), step, self._bad_step)
        self._looks.append(to_cpu(self._bad_step))
        return self._ask(self._look(self._behind), behind=1)

    def after_all_steps(self) -> Heard:
        """Return what all processes know now, once all steps are computed."""
        return self._ask(self._look(0), behind=0)

    def _look(self, behind: int) -> int:
        """Return the first bad step of those that lie `behind` the last one or more, 0 where there is none."""
        bad_step = 0
        while len(self._looks) > behind:
            bad_step = bad_step or int(self._looks.popleft()()[0])
        return bad_step

    def _ask(self, bad_step: int, *, behind: int) -> Heard:
        self._asked.append(self._processes.ask_largest(self._signals.signum, bad_step))
        heard = Heard(0, 0)
        while len(self._asked) > (behind if self._processes.world > 1 else 0):
            heard = Heard(*map(max, heard, self._asked.popleft()()))
        return heard
