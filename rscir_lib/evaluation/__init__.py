"""Benchmark x features x methods: ranks, metrics, tables."""
# ruff: noqa: F401 (names for users)

from rscir_lib.evaluation.evaluate import BASELINES, COLUMNS, evaluate, top_lists
from rscir_lib.evaluation.published import PUBLISHED, compare_published, nearest_version, published
from rscir_lib.evaluation.summary import chance, summarize, with_chance
