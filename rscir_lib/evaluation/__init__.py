"""Benchmark x features x methods: ranks, metrics, tables."""

from rscir_lib.evaluation.evaluate import BASELINES, COLUMNS, evaluate, top_lists
from rscir_lib.evaluation.published import PUBLISHED, compare_published, nearest_version, published
from rscir_lib.evaluation.summary import chance, summarize, with_chance

__all__ = [
    "BASELINES", "COLUMNS", "PUBLISHED", "chance", "compare_published", "evaluate", "nearest_version", "published",
    "summarize", "top_lists", "with_chance",
]  # fmt: skip
