"""Composed queries with their relevant images, read from every format that is known, or drawn."""

from rscir_lib.benchmarks.base import ATTRIBUTES, Benchmark, ValidationReport
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.benchmarks.registry import READERS, find_reader, read_benchmark

__all__ = ["ATTRIBUTES", "READERS", "Benchmark", "ImageNames", "ValidationReport", "find_reader", "read_benchmark"]
