"""The methods: a query image and a query text in, one score per archive image out."""

from rscir_lib.methods.base import EncodeTexts, Method, Questions, Scorer
from rscir_lib.methods.basic import Basic
from rscir_lib.methods.inversion import Inversion
from rscir_lib.methods.pairwise import TwoSimilarities, Weighted, mix
from rscir_lib.methods.registry import METHODS, get_method
from rscir_lib.methods.vectors import Captioned, Direction, Expanded, FreeDom, Slerp
from rscir_lib.methods.vocabulary import known_words, read_vocabulary
