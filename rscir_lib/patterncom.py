"""PatternCom under its short name; it lies in `rscir_lib.benchmarks.patterncom`."""

from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.registry import read_benchmark

__all__ = ["read_benchmark", "read_patterncom"]
