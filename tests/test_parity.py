"""`make parity` without the published code: what its rows say of a difference, and how it ends."""

import math
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    pytest.importorskip("scipy", reason="SKIPPED: no SciPy; pip install 'distillcache[dev]'")
    return runpy.run_path(str(ROOT / "bench" / "parity" / "comparison.py"))


@pytest.mark.parametrize(
    ("difference", "said", "verdict", "code"),
    [
        (0, False, "equal", 0),
        (0.1, False, "within", 0),
        (0.1, True, "said", 0),
        (0.11, False, "DIFFERS", 1),
        (0.11, True, "DIFFERS", 1),
        (math.nan, False, "DIFFERS", 1),
    ],
)
def test_one_difference_above_its_bound_ends_with_1(
    comparison: dict[str, Any], difference: float, said: bool, verdict: str, code: int
) -> None:
    equal = comparison["Row"](what="loss", difference=0)
    row = comparison["Row"](what="lambda", difference=difference, at_most=0.1, said=said)
    assert comparison["exit_code"]([equal, row]) == code
    assert comparison["table"]([("mixing", [row])]).splitlines()[-1].startswith("| mixing: lambda |")
    assert row.cells()[-1] == verdict


def test_distributions_that_differ_are_told_from_those_that_do_not(comparison: dict[str, Any]) -> None:
    even, odd = range(0, 20_000, 2), range(1, 20_001, 2)
    assert comparison["distributions"]("side", even, odd).verdict == "within"
    assert comparison["distributions"]("side", even, [1.05 * value for value in odd]).verdict == "DIFFERS"
    assert comparison["share"]("flips", 5000, 5100, 10_000).verdict == "within"
    assert comparison["share"]("flips", 5000, 5400, 10_000).verdict == "DIFFERS"


def test_make_parity_says_in_one_line_what_it_needs() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "parity", "DEIT="], cwd=ROOT, capture_output=True, text=True, check=False
    )
    [line] = done.stderr.splitlines()
    assert done.returncode and not done.stdout and "run make parity DEIT=FOLDER" in line
