"""Rankings of an archive for many queries: the ranks of given images, and the best of all."""

from rscir_lib.methods.base import Questions
from rscir_lib.ranking.auto import AUTO, AutoLambda, read_lambda, with_auto
from rscir_lib.ranking.questions import ImageSets, Job, make_jobs
from rscir_lib.ranking.ranks import Ranks, rank_relevant
from rscir_lib.ranking.topk import top_k

__all__ = [
    "AUTO", "AutoLambda", "ImageSets", "Job", "Questions", "Ranks", "make_jobs", "rank_relevant", "read_lambda",
    "top_k", "with_auto",
]  # fmt: skip
