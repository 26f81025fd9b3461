"""Benchmark x features x methods: ranks, metrics, tables."""

from rscir_lib.evaluation.evaluate import (
    BASELINES,
    COLUMNS,
    PUBLISHED,
    chance,
    compare_published,
    evaluate,
    nearest_version,
    published,
    summarize,
    top_lists,
    with_chance,
)

__all__ = [
    "BASELINES",
    "COLUMNS",
    "PUBLISHED",
    "chance",
    "compare_published",
    "evaluate",
    "nearest_version",
    "published",
    "summarize",
    "top_lists",
    "with_chance",
]
