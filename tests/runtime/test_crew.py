"""Ranks that share out work, as threads with one store of keys."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.distributed as dist

from distillcache.runtime import crew as crews
from distillcache.runtime.crew import Crew
from distillcache.runtime.devices import find_device
from distillcache.runtime.errors import InputError
from distillcache.runtime.ranks import PeerError, Rank, first_host, of_slurm

WORLD = 4


def each(act: Callable[[Crew], Any]) -> list[Any]:
    """Return what `act` returns in each of four ranks, or the error that it ends with."""
    keys = dist.HashStore()  # type: ignore[attr-defined]

    def rank(number: int) -> Any:
        try:
            with Crew(Rank(rank=number, world=WORLD), keys) as crew:
                return act(crew)
        except Exception as error:
            return error

    with ThreadPoolExecutor(WORLD) as pool:
        return list(pool.map(rank, range(WORLD)))


def test_each_number_is_drawn_once() -> None:
    def draw(crew: Crew) -> list[int]:
        drawn = []
        while (number := crew.draw("numbers")) < 100:
            drawn.append(number)
            time.sleep(0.001)
        return drawn

    shares = each(draw)
    assert all(shares) and sorted(n for share in shares for n in share) == list(range(100))


def test_the_first_finds_and_gathers_for_all() -> None:
    def tell(crew: Crew) -> tuple[str, list[str]]:
        with crew.first_before_others("made"):
            assert crew.add("made before", 1) == 1 or not crew.first
        return crew.agreed("what", lambda: f"of {crew.rank.rank}"), crew.gather("who", str(crew.rank.rank))

    first, *others = each(tell)
    assert first == ("of 0", ["0", "1", "2", "3"]) and others == [("of 0", [])] * 3


def test_of_an_error_one_rank_says_what_it_is() -> None:
    def fail(crew: Crew) -> None:
        if crew.rank.rank == 2:
            raise InputError("it", "right", "wrong")
        crew.gather("never", "") if crew.first else crew.agreed("never", lambda: "")

    errors = each(fail)
    assert [str(error) for error in errors] == ["", "", "it: expected right, found wrong", ""]
    assert all(isinstance(error, PeerError) and error.exit_code == 2 for error in errors if not str(error))


def test_of_one_error_in_all_ranks_one_line_is_left() -> None:
    def fail(crew: Crew) -> None:
        raise InputError("it", "right", "wrong")

    assert sorted(str(error) for error in each(fail)) == ["", "", "", "it: expected right, found wrong"]


def test_a_rank_that_shows_no_sign_of_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_SILENT", 0.5)
    monkeypatch.setattr(crews, "_BEAT", 0.1)
    released = threading.Event()

    def stop(crew: Crew) -> None:
        if crew.rank.rank == 3:
            crew._ended.set()  # no sign of life from here on
            released.wait(20)
            return
        try:
            crew.gather("all", "")
        finally:
            released.set() if crew.first else None

    errors = each(stop)
    assert "rank 3" in str(errors[0]) and "no sign of life" in str(errors[0])


@pytest.mark.parametrize("named", ["cuda", "cuda:0", "auto"])
def test_each_rank_has_the_gpu_of_its_local_rank(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a machine without one can say: the device that it fails to find is the rank's."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    for name, value in {"RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.zeros", lambda n, device: torch.ones(n))
        assert find_device(named) == torch.device("cuda:2")


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("n1", "n1"), ("gpu[03-05,9],other", "gpu03"), ("a,b", "a"), ("r[1-2]-x,s", "r1-x"), ("10.0.0.[7,9]", "10.0.0.7")],
)
def test_the_first_of_slurms_nodes_is_found(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_a_slurm_step_is_what_torchrun_would_say() -> None:
    step = {
        "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "7", "SLURM_PROCID": "6",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "3", "SLURM_STEP_NUM_NODES": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
        "SLURM_STEP_NODELIST": "gpu[03-06]",
    }  # fmt: skip
    said = of_slurm(step)
    assert {name: said[name] for name in said if name != "MASTER_PORT"} == {
        "RANK": "6", "WORLD_SIZE": "7", "GROUP_RANK": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "gpu03",
    }  # fmt: skip
    assert said["MASTER_PORT"] != of_slurm(step | {"SLURM_STEP_ID": "4"})["MASTER_PORT"]
    assert of_slurm(step | {"MASTER_ADDR": "login", "MASTER_PORT": "1"})["MASTER_ADDR"] == "login"
    assert of_slurm(step | {"SLURM_STEP_NUM_TASKS": "1"}) == {}
