"""Seconds and memory of a call."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil


def timed(function: Callable, *arguments, **options) -> tuple[float, object]:
    """Seconds that a call took, and what it returned."""
    start = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - start, result


def memory_mib() -> float:
    """Memory of this process and its children, in MiB; what they share counts once."""
    total, this = 0, psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            info = process.memory_full_info()
            total += getattr(info, "pss", info.uss)  # pss on Linux alone
    return total / 2**20


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


def measured(
    function: Callable, *arguments, memory: Callable[[], float] = memory_mib, **options
) -> tuple[float, float, object]:
    """Seconds that a call took, the most MiB it held beyond what was held before (sampled), and what it returned."""
    before, done, samples = memory(), threading.Event(), []
    start = time.perf_counter()

    def watch() -> None:
        while not done.wait(min((time.perf_counter() - start) / 20, 1)):  # often at first, for what is short
            samples.append(memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        seconds, result = timed(function, *arguments, **options)
    finally:
        done.set()
        watcher.join()
    return seconds, max([*samples, memory()]) - before, result
