"""One function over many items, on every core."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process

import torch

MOST_WORKERS = 16  # each needs memory for its item


def parallel_map(function: Callable, items: Sequence, workers: int | None = None) -> Iterator:
    """The results of `function(item)`, in order.

    workers: processes, each of one thread; None for one a thread of torch's here, 1 for none but this one.

    Threads would wait for Python's lock, and a process of one thread loses nothing to the others. The processes are
    forked, so that they share what is in memory, and know what a notebook has defined; where the system can't do that
    safely (only Linux can), this process does all the work. An error in one of them is raised here, and an error or
    an interrupt here ends them all at once.
    """
    wanted = min(torch.get_num_threads() if workers is None else workers, MOST_WORKERS, len(items))
    workers = wanted if sys.platform == "linux" else 1
    if workers <= 1:
        yield from map(function, items)
        return
    others = set(active_children())
    with ProcessPoolExecutor(workers, get_context("fork"), _start, (function,)) as pool:
        try:
            yield from pool.map(_work, items)
        except BaseException:  # GeneratorExit too: nobody waits for the rest
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _start(function: Callable) -> None:
    global _function
    _function = function
    torch.set_num_threads(1)  # a forked process that asks OpenMP for more, where its parent has, waits forever
    # Ctrl-C reaches every process of a terminal, in any order: the parent alone answers, and ends these
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()  # a parent that was killed can't end its workers
    os._exit(1)


def _work(item: object) -> object:
    return _function(item)
