"""What every benchmark reports with: the machine, and a table of it all."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import torch

from rscir_lib.storage.measuring import memory_mib

DIM = 768  # of ViT-L-14's features


class Report:
    """Measurements: printed as they come, kept as rows of a table."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(self, section: str, what: str, **values: float) -> None:
        """One row; a value is seconds, mib (MiB beyond what was held before), ratio, or what its name says."""
        self.rows.append({"section": section, "what": what} | values)
        print(f"{section:<10} {what:<46}", *(f"{key}={value:,.4g}" for key, value in values.items()), flush=True)


def machine() -> str:
    """Processor, cores, GPU and versions, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "numpy", "pandas"))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores{load}; {gpu}; Python {platform.python_version()}, {versions}"


def unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def timed(function: Callable, *arguments, **options) -> tuple[float, object]:
    """Seconds that a call took, and what it returned."""
    start = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - start, result


def anonymous_mib() -> float:
    """As `memory_mib`, without the pages of files, which the system takes back when it wants them. Linux alone tells
    them apart; elsewhere they count."""
    total, this = 0, psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            if process == this:  # no Linux
                return memory_mib()
            continue  # it has just ended
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return total / 2**10
