"""lambda="auto": what evaluate and search do with it."""

import numpy as np
import pytest

from helpers import text_encoder
from rscir_lib.evaluation import evaluate, top_lists
from rscir_lib.evaluation.evaluate import compose
from rscir_lib.ranking import read_lambda
from rscir_lib.search import Searcher


@pytest.fixture
def read(case):
    benchmark, features = case
    return read_lambda(compose(benchmark, features, text_encoder(8), features), features)


@pytest.mark.slow
def test_evaluate_takes_the_lambda_that_is_read(case, read, capsys):
    benchmark, features = case
    auto = evaluate(benchmark, features, text_encoder(8), ["weicom", "image"], ["auto", 0.5], "cpu")
    assert f"lambda {read.lam:g} read off the similarities" in capsys.readouterr().out
    given = evaluate(benchmark, features, text_encoder(8), ["weicom", "image"], [read.lam, 0.5], "cpu", progress=False)
    assert auto.equals(given)
    assert 0 <= read.low <= read.lam + 0.005
    assert read.lam - 0.005 <= read.high <= 1
    assert read.queries == min(300, len(benchmark.queries))


def test_lists_are_those_of_the_lambda_that_is_read(case, read):
    benchmark, features = case
    lists = [
        top_lists(benchmark, features, text_encoder(8), lam=lam, k=5, progress=False) for lam in ("auto", read.lam)
    ]
    assert np.array_equal(*lists)


def test_search_reads_it_for_its_text(case):
    _, features = case

    class Encoder:
        encode_texts = staticmethod(text_encoder(8))

    searcher = Searcher(features, Encoder())
    hits = searcher(0, "red", "auto", top=5)
    assert hits.question["lambda"] == searcher.auto_lambda("red").lam
    assert hits.table.equals(searcher(0, "red", hits.question["lambda"], top=5).table)
    with pytest.raises(ValueError, match="images and a text"):
        searcher(0, "", "auto")
