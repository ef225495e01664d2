"""Copies to a GPU and back: on this machine's GPU, where it has one."""

import pytest
import torch

from distillcache.runtime.transfers import to_cpu, to_device


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_what_goes_to_a_device_comes_back_and_the_host_waits_for_nothing(device: str) -> None:
    place, sent = torch.device(device), torch.arange(1 << 20).reshape(4, -1)
    [weights] = to_device(place, torch.tensor([2]))  # the first use of a device may wait
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        arriving = []
        for number in range(8):
            there, nothing = to_device(place, sent + number, None)
            assert there is not None and there.device.type == device and nothing is None
            arriving.append(to_cpu(there * weights, there.sum()))
        found = [wait() for wait in arriving]
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    for number, (doubled, total) in enumerate(found):
        assert torch.equal(doubled, 2 * (sent + number)) and int(total) == int((sent + number).sum())
