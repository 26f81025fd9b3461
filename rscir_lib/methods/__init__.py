"""The methods: a query image and a query text in, one score per archive image out."""

from rscir_lib.methods.base import EncodeTexts, Method, Questions, Scorer
from rscir_lib.methods.basic import Basic
from rscir_lib.methods.expansion import Expanded
from rscir_lib.methods.freedom import FreeDom
from rscir_lib.methods.pairwise import TwoSimilarities, Weighted, mix
from rscir_lib.methods.registry import METHODS, get_method
from rscir_lib.methods.slerp import Slerp
from rscir_lib.methods.vocabulary import read_vocabulary

__all__ = [
    "METHODS", "Basic", "EncodeTexts", "Expanded", "FreeDom", "Method", "Questions", "Scorer", "Slerp",
    "TwoSimilarities", "Weighted", "get_method", "mix", "read_vocabulary",
]  # fmt: skip
