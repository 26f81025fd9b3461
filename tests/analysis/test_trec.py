"""Ranked lists as TREC files, judged by another library."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers import text_encoder
from rscir_lib.analysis import judged_alone, write_trec
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.evaluation import evaluate, top_lists
from rscir_lib.features import Features


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # ranx's own
def test_ranx_agrees_on_the_same_files(case, tmp_path):
    """Full-length lists, written as TREC files and judged by another library."""
    import ranx

    benchmark, features = case
    names = tuple(f"a folder/100% {file.rpartition('/')[2]}" for file in benchmark.archive.files)
    renamed = Archive(benchmark.archive.root, names, benchmark.archive.classes)
    benchmark = Benchmark(
        renamed, benchmark.protocol, benchmark.queries, benchmark.targets, benchmark.labels, ValidationReport().table()
    )
    features = Features.from_arrays(features.feats, names, features.classes, {})
    encode = text_encoder(8)
    lists = top_lists(benchmark, features, encode, "weicom", 0.3, len(names), "cpu", progress=False)
    write_trec(benchmark, lists, tmp_path / "run.trec", tmp_path / "qrels.trec")
    qrels = ranx.Qrels.from_file(str(tmp_path / "qrels.trec"), kind="trec")
    run = ranx.Run.from_file(str(tmp_path / "run.trec"), kind="trec")
    names = {"map": "AP", "precision@5": "P@5", "precision@20": "P@20", "recall@5": "R@5", "recall@20": "R@20"}
    ranx.evaluate(qrels, run, list(names))
    theirs = pd.DataFrame(run.scores)[list(names)]
    ours = evaluate(benchmark, features, encode, ["weicom"], [0.3], "cpu", progress=False)
    theirs.index = theirs.index.astype(int)
    expected = theirs.loc[ours.index].to_numpy(float)
    assert ours[list(names.values())].to_numpy() == pytest.approx(expected, abs=1e-9)


def test_unknown_images_are_in_no_file(case, tmp_path):
    benchmark, features = case
    condensed = judged_alone(benchmark)
    lists = top_lists(condensed, features, text_encoder(8), "weicom", 0.3, 90, "cpu", progress=False)
    write_trec(condensed, lists, tmp_path / "run.trec", tmp_path / "qrels.trec")
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert len(lines) == 60 * len(condensed.queries)
    topic, q0, document, rank, score, name = lines[0].split()
    assert (topic, q0, rank, score, name) == (str(condensed.queries.index[0]), "Q0", "1", "90", "rscir")
    assert document in condensed.archive.files


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # ranx's own
@pytest.mark.parametrize("depth", [90, 5])
def test_a_topic_that_nothing_answers_counts(case, tmp_path, depth):
    """trec_eval and ranx take their means over the topics of the qrels; a cut list loses what lies below."""
    import ranx

    benchmark, features = case
    queries = benchmark.queries.assign(target=[len(benchmark.targets), *benchmark.queries["target"][1:]])
    benchmark = replace(benchmark, queries=queries, targets=(*benchmark.targets, np.empty(0, np.int64)))
    rows = evaluate(benchmark, features, text_encoder(8), ["weicom"], [0.3], "cpu", progress=False, return_ranks=True)
    lists = top_lists(benchmark, features, text_encoder(8), "weicom", 0.3, depth, "cpu", progress=False)
    write_trec(benchmark, lists, tmp_path / "run.trec", tmp_path / "qrels.trec")
    qrels, run = (kind.from_file(str(tmp_path / f"{name}.trec"), kind="trec")
                  for kind, name in ((ranx.Qrels, "qrels"), (ranx.Run, "run")))  # fmt: skip
    cut = [sum(np.arange(1, len(r) + 1)[r <= depth] / r[r <= depth]) / max(len(r), 1) for r in rows["ranks"]]
    assert ranx.evaluate(qrels, run, "map") == pytest.approx(np.mean(cut), abs=1e-9)
    assert depth < 90 or np.mean(cut) == pytest.approx(rows["AP"].mean())
