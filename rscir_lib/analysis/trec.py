"""Ranked lists as files that other evaluators read."""

from pathlib import Path

import numpy as np

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.storage.atomic import write_text


def write_trec(
    benchmark: Benchmark, lists: np.ndarray, run: str | Path, qrels: str | Path, name: str = "rscir"
) -> None:
    """Writes ranked lists as a TREC run, and the relevant images as qrels, for trec_eval, ranx and others.

    Topics are named by the queries' index, documents by the archive's files, with blanks as %20. Scores are k, k - 1,
    ..., as a list has ranks alone. Unknown images are in neither file. A query without relevant images gets one line of
    relevance 0: else trec_eval would leave it out of its means, where `evaluate` counts it as 0. MAP of lists cut at k
    counts the relevant images below as not retrieved; write k = len(archive) for `evaluate`'s AP.

    Args:
        benchmark: The queries.
        lists: (Q, k) archive positions of `top_lists`, the best first, -1 for none.
        run, qrels: The files of the lists and of the relevant images.
        name: What the run is called in its file.
    """
    documents = [file.replace("%", "%25").replace(" ", "%20") for file in benchmark.archive.files]
    lines = [
        f"{topic} Q0 {documents[position]} {rank} {lists.shape[1] - rank + 1} {name}\n"
        for topic, ranked in zip(benchmark.queries.index, lists, strict=True)
        for rank, position in enumerate(ranked[ranked >= 0].tolist(), 1)
    ]
    write_text(run, "".join(lines))
    relevant = [
        f"{topic} 0 {documents[position]} {int(bool(answers))}\n"
        for topic, target in zip(benchmark.queries.index, benchmark.queries["target"], strict=True)
        for answers in [benchmark.targets[target].tolist()]
        for position in answers or [0]
    ]
    write_text(qrels, "".join(relevant))
