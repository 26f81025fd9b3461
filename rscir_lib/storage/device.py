"""The one check of a device's name."""

import re

import torch


def torch_device(name: str | torch.device = "auto", float64: bool = False) -> torch.device:
    """The torch device of a name.

    Args:
        name: "auto" (CUDA where torch finds it, else MPS, else the CPU), "cpu", "mps", "cuda" or "cuda:<number>".
        float64: Whether it must compute in float64. MPS can't: the CPU takes its place.

    Raises:
        ValueError: For another name, or a device that torch doesn't find on this machine.
    """
    match = re.fullmatch(r"(auto|cpu|mps|cuda)(?:(?<=cuda):(\d+))?", str(name), re.ASCII)
    if not match:
        raise ValueError(f"device {name!r} is unknown: choose auto, cpu, cuda, cuda:<number> or mps")
    kind, gpus = match[1], torch.cuda.device_count()
    has_mps = torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if gpus else "mps" if has_mps else "cpu"
    if kind == "mps" and float64:
        kind = "cpu"
    if kind == "cuda" and int(match[2] or 0) >= gpus:
        raise ValueError(f"device {str(name)!r}: torch finds {gpus} CUDA devices here; choose auto or cpu")
    if kind == "mps" and not has_mps:
        raise ValueError("device 'mps': torch finds no MPS device here; choose auto or cpu")
    return torch.device(kind if match[2] is None else f"cuda:{int(match[2])}")
