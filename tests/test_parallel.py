"""Functions over many items, in processes: order, errors, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rscir_lib.parallel import parallel_map

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.mark.parametrize("workers", [None, 0, 1, 2, 50])
@pytest.mark.parametrize("items", [[], [3], list(range(20))])
def test_results_come_in_order(items, workers):
    offset = 7  # a local name: nothing has to be pickled
    assert list(parallel_map(lambda item: item + offset, items, workers)) == [item + 7 for item in items]


MORE_THREADS_THAN_WORKERS = """
import os, torch
from rscir_lib.parallel import parallel_map

torch.set_num_threads(4)
a = torch.ones(1000, 1000)
a.exp().sum(), a @ a  # starts the threads
results = list(parallel_map(lambda _: (os.getpid(), (a @ a).exp().sum() > 0), range(4), workers=2))
assert all(done for _, done in results) and os.getpid() not in {pid for pid, _ in results}
"""


@linux
def test_work_in_processes_after_work_in_threads():
    subprocess.run([sys.executable, "-c", MORE_THREADS_THAN_WORKERS], check=True, timeout=60)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_where_its_result_is_due(workers):
    results = parallel_map(lambda item: 1 / (item - 3), range(8), workers)
    assert [next(results) for _ in range(3)] == [-1 / 3, -1 / 2, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


SLOW = """
import os, sys, time
from rscir_lib.parallel import parallel_map

def slow(item):
    open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
    time.sleep(600)

list(parallel_map(slow, range(4), workers=2))
"""


@linux
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_first(tmp_path, sent):
    first = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        workers = [Path("/proc", path.name) for path in tmp_path.iterdir()]
        assert len(workers) == 2
        if sent == signal.SIGINT:  # a terminal and Jupyter send it to all of them
            os.killpg(first.pid, sent)
        else:
            first.send_signal(sent)
        _, said = first.communicate(timeout=30)
        assert said.count("KeyboardInterrupt") == (sent == signal.SIGINT)
        until = time.monotonic() + 20
        while any(path.exists() for path in workers) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(path.exists() for path in workers)
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
