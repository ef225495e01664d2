"""Models compute on one thread: where the threads of several processes wait for one another, all are slow."""

import pytest


@pytest.fixture(autouse=True)
def alone(one_thread: None) -> None:
    pass
