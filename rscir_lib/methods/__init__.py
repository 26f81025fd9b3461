"""Methods that see more than two similarities. Each is a class with `name`, `has_lambda` and `fit` (`composition`)."""

from rscir_lib.methods.basic import Basic
from rscir_lib.methods.expansion import Expanded
from rscir_lib.methods.freedom import FreeDom
from rscir_lib.methods.slerp import Slerp
from rscir_lib.methods.vocabulary import read_vocabulary

__all__ = ["Basic", "Expanded", "FreeDom", "Slerp", "read_vocabulary"]
