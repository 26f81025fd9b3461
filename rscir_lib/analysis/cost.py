"""What a method costs: seconds to fit it, milliseconds and memory of a query."""

import ctypes
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation.evaluate import compose
from rscir_lib.features import Features
from rscir_lib.methods.base import EncodeTexts, Method
from rscir_lib.methods.registry import get_method
from rscir_lib.similarity.gallery import InMemory


def cost(
    benchmark: Benchmark, features: Features, encode_texts: EncodeTexts, methods: Sequence[str | Method]
) -> pd.DataFrame:
    """Fits each method to the archive, then asks it one query at a time; a query's own text is encoded beforehand.

    Returns:
        A row per method: "fit s"; "ms a query", of the quickest of twenty queries, since other processes only add to
        it; "MiB a query", the most memory that one took, NaN where the system isn't Linux.
    """
    gallery = InMemory(features.aligned(benchmark.archive))
    inside = benchmark.queries[benchmark.queries["position"] >= 0].drop_duplicates("position")  # methods keep some
    queries = inside.sample(min(20, len(inside)), random_state=0)
    questions = compose(replace(benchmark, queries=queries), gallery, encode_texts, features)
    singles, lines = [questions.take(np.array([number])) for number in range(len(questions))], {}
    for method in map(get_method, methods):
        start = time.perf_counter()
        scorer = method.fit(gallery, encode_texts)
        fitted, took = time.perf_counter() - start, []
        scorer(singles[0], 0.5)  # what is only done once
        before = _peak_memory(start=True)
        for single in singles[1:] or singles:
            start = time.perf_counter()
            scorer(single, 0.5)
            took.append(time.perf_counter() - start)
        lines[method.name] = {"fit s": fitted, "ms a query": 1000 * min(took), "MiB a query": _peak_memory() - before}
    return pd.DataFrame(lines).T


def _peak_memory(start: bool = False) -> float:
    """The most MiB that this process has held since the last `start`; NaN where the kernel doesn't say."""
    try:
        if start:
            ctypes.CDLL(None).malloc_trim(0)  # memory freed before would be taken again unseen
            Path("/proc/self/clear_refs").write_text("5")
        (peak,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(peak) / 1024
    except (OSError, AttributeError, ValueError):
        return float("nan")
