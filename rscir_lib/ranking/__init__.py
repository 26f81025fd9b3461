"""Rankings of an archive for many queries: the ranks of given images, and the best of all."""

from rscir_lib.ranking.auto import AUTO, AutoLambda, read_lambda, with_auto
from rscir_lib.ranking.questions import ImageSets, Job, Questions, make_jobs
from rscir_lib.ranking.ranks import Ranks, rank_relevant
from rscir_lib.ranking.topk import top_k
