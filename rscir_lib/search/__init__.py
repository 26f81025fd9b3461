"""One question to an archive, and its best images."""

import sys
from types import ModuleType

from rscir_lib.search.hits import Hits
from rscir_lib.search.searcher import Searcher, search, top_k

__all__ = ["Hits", "Searcher", "search", "top_k"]


class _SearchPackage(ModuleType):
    """Python binds this package to `rscir_lib.search`, the name of the function as well: calling it calls that."""

    def __call__(self, *arguments: object, **options: object) -> Hits:
        return search(*arguments, **options)  # type: ignore[arg-type]


sys.modules[__name__].__class__ = _SearchPackage
