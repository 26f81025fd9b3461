"""Similarities of queries to an archive: their one definition, the scales that they are put on, the order they give."""

from rscir_lib.similarity.exact import similarities
from rscir_lib.similarity.gallery import Gallery, InMemory
from rscir_lib.similarity.moments import Moments
from rscir_lib.similarity.order import best_first
