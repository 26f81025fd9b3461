"""One question to an archive, and its best images."""

from rscir_lib.search.searcher import Hits, Searcher, search, top_k

__all__ = ["Hits", "Searcher", "search", "top_k"]
