"""Seconds and memory of a call."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


def memory_mib() -> float:
    """Memory of this process and its children, in MiB; what they share counts once."""
    total, this = 0, psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            info = process.memory_full_info()
            total += getattr(info, "pss", info.uss)  # pss on Linux alone
    return total / 2**20


def measured(
    function: Callable[..., T], *arguments: Any, memory: Callable[[], float] = memory_mib, **options: Any
) -> tuple[float, float, T]:
    """Seconds that a call took, the most MiB held beyond what was held before (sampled), and what it returned."""
    before, done, samples = memory(), threading.Event(), []
    start = time.perf_counter()

    def watch() -> None:
        while not done.wait(min((time.perf_counter() - start) / 20, 1)):  # often at first, for what is short
            samples.append(memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = function(*arguments, **options)
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watcher.join()
    return seconds, max([*samples, memory()]) - before, result
