"""One function over many items, on every core of this machine or on a Dask cluster."""

import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

import torch

MOST_WORKERS = 16  # processes: each needs memory for its item, and more gain little where all read one disk
AHEAD = 8  # items for each worker that are under way or done before their results are taken: fewer let workers wait

Item = TypeVar("Item")
Result = TypeVar("Result")
_function: Callable[[Any], Any]  # of a worker


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
) -> Iterator[Result]:
    """The results of `function(item)`, in order, from forked processes, which share memory and definitions.

    Only Linux forks safely: elsewhere this process does all the work. An error in a worker is raised here, and an error
    or an interrupt here ends all workers at once. workers: at most MOST_WORKERS processes; None for one a thread of
    torch's here, 0 or 1 for this process alone.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers {workers}: a positive number, or None for the usual")
    workers = min(torch.get_num_threads() if workers is None else workers, MOST_WORKERS, len(items))
    if workers <= 1 or sys.platform != "linux":
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _start, (function,)) as pool:
        try:
            # pool.map would cancel what it sent before the workers end, and its thread then fail in words of its own
            waiting = iter(items)
            futures = deque(pool.submit(_work, item) for item in islice(waiting, AHEAD * workers))
            while futures:
                result = futures.popleft().result()
                futures.extend(pool.submit(_work, item) for item in islice(waiting, 1))
                yield result
        except BaseException:  # GeneratorExit too: nobody waits for the rest
            _end(pool)
            raise


def _end(pool: Any) -> None:
    """End a pool's processes at once; until Python 3.14 a pool has no public way to."""
    processes = [*pool._processes.values()]
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
    pool._result_queue._writer.close()  # or the pool would wait for the rest of a result that was cut short


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    torch.set_num_threads(1)  # a forked process that asks OpenMP for more, where its parent has, waits forever
    # Ctrl-C reaches every process of a terminal, in any order: the parent alone answers, and ends these
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()  # a parent that was killed can't end its workers
    os._exit(1)


def _work(item: Any) -> Any:
    return _function(item)


@contextmanager
def running(scheduler: Any, workers: int | None = None) -> Generator[Any, None, None]:
    """What a Client connects to inside the block: for "local" a Dask cluster of `workers` processes (None: one a core)
    on this machine, which ends with the block; else `scheduler` as it is. ImportError says what to install.

    Whoever reaches a scheduler can have code run in its workers: this one listens on the loopback interface alone, with
    certificates made for it, so that no other person's process connects, and has no dashboard.
    """
    if not scheduler:
        yield None
        return
    try:
        from distributed import LocalCluster, Security
    except ImportError:
        raise ImportError("a scheduler wants Dask: pip install 'rscir-workbook[scale]'") from None
    if scheduler != "local":
        yield scheduler
        return
    try:
        security = Security.temporary()  # type: ignore[no-untyped-call]
    except ImportError:
        open_to_all = "any process on this machine can have code run in the workers of SCHEDULER=local"
        warnings.warn(f"{open_to_all}: pip install 'rscir-workbook[scale]' closes that", stacklevel=3)
        security = None
    # several processes map the same files: what Dask would count as theirs is the system's page cache
    options: dict[str, Any] = {"threads_per_worker": 1, "memory_limit": 0, "security": security, "host": "127.0.0.1"}
    options |= {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with LocalCluster(n_workers=workers, **options) as cluster:  # type: ignore[no-untyped-call]
        yield cluster


def each(
    function: Callable[[Item], Result], items: Sequence[Item], scheduler: Any = None, workers: int | None = None
) -> Generator[Result, None, None]:
    """The results of `function(item)`, in order.

    Args:
        function: Travels once, and so should hold what is large.
        items: Travel one by one, and so should be small.
        scheduler: None for `parallel_map`; "local" for a Dask cluster of processes here, which a script must start
            under `if __name__ == "__main__":`; the address of one that runs, such as "tcp://host:8786", or a cluster of
            Dask's, whose workers see the same files. A worker that dies is replaced, its items are done again.
        workers: Processes, None for one a core.
    """
    with running(scheduler, workers) as cluster:
        if cluster is None:
            yield from parallel_map(function, items, workers)
            return
        from distributed import Client

        with Client(cluster) as client:  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # an encoder is large, and is sent once
                # as a task of its own: where the worker that holds it dies, it is made again
                shared = client.submit(lambda: function, pure=False)
            futures = deque(client.map(lambda item, call: call(item), items, call=shared, pure=False))
            while futures:  # what was taken is let go
                yield futures.popleft().result()
