"""Benchmark x features x methods: ranks, metrics, tables."""

from rscir_lib.evaluation.evaluate import BASELINES, COLUMNS, evaluate, top_lists
from rscir_lib.evaluation.summary import chance, compare_published, nearest_version, published, summarize, with_chance

__all__ = [
    "BASELINES", "COLUMNS", "chance", "compare_published", "evaluate", "nearest_version", "published", "summarize",
    "top_lists", "with_chance",
]  # fmt: skip
