"""Seconds and memory of a call."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


def memory_mib() -> float:
    """Memory of this process and its children, in MiB; shared pages count once."""
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
    before, done, start = memory(), Event(), time.perf_counter()

    def most() -> float:
        held = before
        while not done.wait(min((time.perf_counter() - start) / 20, 1)):  # often at first, for what is short
            held = max(held, memory())
        return max(held, memory())

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(most)
        try:
            result, seconds = function(*arguments, **options), time.perf_counter() - start
        finally:
            done.set()
    return seconds, watched.result() - before, result
