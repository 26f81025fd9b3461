"""Functions over many items, in processes: order, errors, and nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from rscir_lib.storage.parallel import AHEAD, each, parallel_map, running

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.mark.parametrize("workers", [None, 0, 1, 2, 50])
@pytest.mark.parametrize("items", [[], [3], list(range(20))])
@pytest.mark.slow
def test_results_come_in_order(items, workers):
    offset = 7  # a local name: nothing has to be pickled
    assert list(parallel_map(lambda item: item + offset, items, workers)) == [item + 7 for item in items]


MORE_THREADS_THAN_WORKERS = """
import os, torch
from rscir_lib.storage.parallel import parallel_map

torch.set_num_threads(4)
a = torch.ones(1000, 1000)
a.exp().sum(), a @ a  # starts the threads
results = list(parallel_map(lambda _: (os.getpid(), (a @ a).exp().sum() > 0), range(4), workers=2))
assert all(done for _, done in results) and os.getpid() not in {pid for pid, _ in results}
"""


@pytest.mark.slow
@linux
def test_work_in_processes_after_work_in_threads():
    subprocess.run([sys.executable, "-c", MORE_THREADS_THAN_WORKERS], check=True, timeout=300)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_where_its_result_is_due(workers):
    results = parallel_map(lambda item: 1 / (item - 3), range(8), workers)
    assert [next(results) for _ in range(3)] == [-1 / 3, -1 / 2, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@linux
def test_a_pool_has_the_names_by_which_it_is_ended():
    """They are not public: where a new Python has other names, `_end` is to be written anew."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        process = pool.submit(os.getpid).result()
        assert list(pool._processes) == [process]
        assert pool._processes[process].is_alive()
        assert not pool._result_queue._writer.closed


@linux
def test_who_stops_early_waits_for_nobody():
    started = time.monotonic()
    results = parallel_map(lambda item: time.sleep(600 * (item > 0)), range(4), workers=2)
    next(results)
    results.close()
    assert time.monotonic() - started < 60
    assert not multiprocessing.active_children()


@pytest.mark.slow
@linux
@pytest.mark.parametrize("ending", ["closed", "failed"])
def test_large_results_that_are_cut_short_are_not_waited_for(ending):
    """A worker that is ended in the middle of a result leaves a part of it in the pipe."""

    def large(item):
        if ending == "failed" and item == 40:
            raise KeyError(item)
        return np.ones(2**17)

    for _ in range(4):
        results = parallel_map(large, range(400), workers=2)
        next(results)
        if ending == "closed":
            results.close()
        else:
            with pytest.raises(KeyError):
                list(results)
    assert not multiprocessing.active_children()


@linux
@pytest.mark.slow
def test_one_that_ends_leaves_the_workers_of_another_alone():
    other = parallel_map(lambda item: time.sleep(0.05) or item, range(40), workers=2)
    found = [next(other)]
    mine = parallel_map(lambda item: item, range(400), workers=2)
    next(mine)
    mine.close()
    assert [*found, *other] == list(range(40))


@linux
@pytest.mark.slow
def test_no_more_is_done_ahead_than_can_be_held():
    done = multiprocessing.get_context("fork").Value("i", 0)

    def count(item):
        with done.get_lock():
            done.value += 1
        return item

    results = parallel_map(count, range(1000), workers=2)
    next(results)
    time.sleep(1)
    assert done.value <= 2 * AHEAD + 1
    assert list(results) == list(range(1, 1000))


SLOW = """
import os, signal, sys, time
from rscir_lib.storage.parallel import parallel_map

if sys.argv[2] == "interrupted":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a background job inherits

def slow(item):
    open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
    time.sleep(600 if sys.argv[2] != "ignored" else 3)
    return item

print(list(parallel_map(slow, range(2), workers=2)))
"""


def working(folder, how):
    """A process of its own group with two workers at work, and the workers in /proc."""
    command = [sys.executable, "-c", SLOW, str(folder), how]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as a shell without job control starts `make test &`
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first = subprocess.Popen(
        ignoring + command if how == "ignored" else command, text=True, start_new_session=True, **pipes
    )
    until = time.monotonic() + 300
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    workers = [Path("/proc", path.name) for path in folder.iterdir()]
    assert len(workers) == 2
    return first, workers


def gone(paths):
    until = time.monotonic() + 300
    while any(path.exists() for path in paths) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(path.exists() for path in paths)


def end(first):
    if first.poll() is None:
        os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    first.stderr.close()


@pytest.mark.slow
@linux
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_first(tmp_path, sent):
    first, workers = working(tmp_path, "interrupted")
    try:
        if sent == signal.SIGINT:  # a terminal and Jupyter send it to all of them
            os.killpg(first.pid, sent)
        else:
            first.send_signal(sent)
        _, said = first.communicate(timeout=300)
        assert said.count("KeyboardInterrupt") == (sent == signal.SIGINT)
        assert "BrokenProcessPool" not in said
        assert gone(workers)
    finally:
        end(first)


@pytest.mark.slow
@linux
def test_an_interrupt_that_reaches_the_workers_first_makes_no_noise(tmp_path):
    first, workers = working(tmp_path, "interrupted")
    try:
        for worker in workers:
            os.kill(int(worker.name), signal.SIGINT)
        time.sleep(0.2)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=300)
        assert said.count("KeyboardInterrupt") == 1
        assert "BrokenProcessPool" not in said
        assert gone(workers)
    finally:
        end(first)


@pytest.mark.slow
@linux
def test_where_the_first_ignores_an_interrupt_the_workers_do_too(tmp_path):
    first, workers = working(tmp_path, "ignored")
    try:
        os.killpg(first.pid, signal.SIGINT)
        result, said = first.communicate(timeout=300)
        assert (result, said) == ("[0, 1]\n", "")
        assert gone(workers)
    finally:
        end(first)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*leaked semaphore", "ignore:any process on this machine")
def test_a_cluster_of_this_machine_is_closed_to_others():
    """It listens on the loopback interface alone, shows no dashboard, and runs nobody's code who has no certificate."""
    distributed = pytest.importorskip("distributed", reason="Dask isn't installed (extra scale)")
    with running("local", 1) as cluster:
        assert list(each(abs, [-1, 2], cluster)) == [1, 2]
        this = psutil.Process()
        connections = [c for p in (this, *this.children(recursive=True)) for c in p.net_connections("inet")]
        listening = {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        pages = [
            requests.get(f"http://127.0.0.1:{cluster.scheduler.http_server.port}/{p}", timeout=60)
            for p in ("", "status")
        ]
        assert [page.status_code for page in pages] == [404, 404]
        pytest.importorskip("cryptography", reason="without it there is a warning")
        for address in (cluster.scheduler_address, cluster.scheduler_address.replace("tls://", "tcp://")):
            with pytest.raises((TypeError, OSError)):
                distributed.Client(address, timeout=2)


@pytest.mark.slow
def test_without_certificates_it_says_so(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask isn't installed (extra scale)")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setattr(distributed, "LocalCluster", lambda **options: nullcontext(options))
    warned = pytest.warns(UserWarning, match="any process on this machine can have code run in the workers")
    with warned, running("local", 1) as options:
        assert options["host"] == "127.0.0.1"
