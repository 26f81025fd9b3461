"""Similarities of queries to an archive: their one definition, the scales that they are put on, the order they give."""

from rscir_lib.similarity.exact import best_first, similarities
from rscir_lib.similarity.gallery import Gallery, InMemory
from rscir_lib.similarity.moments import Moments

__all__ = ["Gallery", "InMemory", "Moments", "best_first", "similarities"]
