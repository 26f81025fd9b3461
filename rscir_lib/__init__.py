"""Composed image retrieval in remote sensing: search an archive by a picture and a few words that change it.

    from rscir_lib import evaluate, extract_features, load_encoder, read_archive, read_benchmark, search, summarize

Each name is imported when it is first used, so that `import rscir_lib` takes no time and reads no weights.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers see; a test holds it to `_HOME`
    from rscir_lib.analysis import choose_lambda, intervals, write_trec
    from rscir_lib.archive import Archive, read_archive, read_image, write_listing
    from rscir_lib.benchmarks import Benchmark, read_benchmark
    from rscir_lib.benchmarks.patterncom import read_patterncom
    from rscir_lib.benchmarks.synthcom import draw_synthcom
    from rscir_lib.encoders import Encoder, load_encoder
    from rscir_lib.evaluation import chance, compare_published, evaluate, summarize, top_lists
    from rscir_lib.features import Features, extract_features, read_features
    from rscir_lib.methods import METHODS, Method
    from rscir_lib.runs import open_run
    from rscir_lib.search import Hits, Searcher, search

_HOME = {
    "rscir_lib.analysis": ["choose_lambda", "intervals", "write_trec"],
    "rscir_lib.archive": ["Archive", "read_archive", "read_image", "write_listing"],
    "rscir_lib.benchmarks": ["Benchmark", "read_benchmark"],
    "rscir_lib.benchmarks.patterncom": ["read_patterncom"],
    "rscir_lib.benchmarks.synthcom": ["draw_synthcom"],
    "rscir_lib.encoders": ["Encoder", "load_encoder"],
    "rscir_lib.evaluation": ["chance", "compare_published", "evaluate", "summarize", "top_lists"],
    "rscir_lib.features": ["Features", "extract_features", "read_features"],
    "rscir_lib.methods": ["METHODS", "Method"],
    "rscir_lib.runs": ["open_run"],
    "rscir_lib.search": ["Hits", "Searcher", "search"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("rscir-workbook")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rscir_lib' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
