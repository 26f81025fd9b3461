"""The one check of a device's name, on machines with and without GPUs."""

import pytest
import torch

from rscir_lib.storage.device import torch_device


@pytest.fixture
def machine(monkeypatch):
    """Makes torch find so many CUDA devices, and an MPS device or none."""

    def become(gpus, mps=False):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return become


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "float64", "expected"),
    [
        (0, False, "auto", False, "cpu"),
        (0, True, "auto", False, "mps"),
        (0, True, "auto", True, "cpu"),
        (2, True, "auto", True, "cuda"),
        (2, False, "cuda:1", False, "cuda:1"),
        (1, False, torch.device("cuda", 0), False, "cuda:0"),
        (0, True, "mps", False, "mps"),
        (0, False, "mps", True, "cpu"),  # so that a run's settings hold on another machine
        (2, False, "cpu", False, "cpu"),
    ],
)
def test_where_torch_computes(machine, gpus, mps, name, float64, expected):
    machine(gpus, mps)
    assert torch_device(name, float64) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:2", "device 'cuda:2': torch finds 2 CUDA devices here; choose auto or cpu"),
        ("mps", "device 'mps': torch finds no MPS device here; choose auto or cpu"),
        *[
            (name, f"device {name!r} is unknown: choose auto, cpu, cuda, cuda:<number> or mps")
            for name in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "CPU", "", None)
        ],
    ],
)
def test_devices_that_are_not_there_are_refused(machine, name, message):
    machine(2)
    with pytest.raises(ValueError, match=message):
        torch_device(name)
