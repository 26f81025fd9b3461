"""The one check of a device's name."""

import re

import torch


def torch_device(name: str | torch.device = "auto", float64: bool = False) -> torch.device:
    """The torch device of a name: "auto" (CUDA where torch finds it, else MPS, else the CPU) or its own.

    float64: whether it must compute in float64. MPS can't: the CPU takes its place. Raises ValueError for another name,
    and for a device that torch doesn't find on this machine.
    """
    kind = str(name)
    match = re.fullmatch(r"auto|cpu|mps|cuda(?::(0|[1-9]\d*))?", kind, re.ASCII)
    if not match:
        raise ValueError(f"device {name!r} is unknown: choose auto, cpu, cuda, cuda:<number> or mps")
    gpus, has_mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if gpus else "mps" if has_mps else "cpu"
    if kind.startswith("cuda") and int(match[1] or 0) >= gpus:
        raise ValueError(f"device {kind!r}: torch finds {gpus} CUDA devices here; choose auto or cpu")
    if kind == "mps" and not float64 and not has_mps:
        raise ValueError("device 'mps': torch finds no MPS device here; choose auto or cpu")
    return torch.device("cpu" if kind == "mps" and float64 else kind)
