"""PatternCom under its short name; it lies in `rscir_lib.benchmarks.patterncom`."""

from rscir_lib.benchmarks.base import read_benchmark
from rscir_lib.benchmarks.patterncom import read_patterncom

__all__ = ["read_benchmark", "read_patterncom"]
