"""The methods by name. One of the kind `TwoSimilarities` is an entry here, any other a class with `name`, `has_lambda`
and `fit`; one that is not registered is given to `evaluate` and `search` as an object."""

import torch

from rscir_lib.methods.base import Method
from rscir_lib.methods.basic import Basic
from rscir_lib.methods.pairwise import TwoSimilarities, Weighted, add, halfway, minimum, mix, multiply
from rscir_lib.methods.vectors import Direction, FreeDom, Slerp
from rscir_lib.similarity.scales import clamped, minmax, normal_cdf, reciprocal_rank, upper_tail, zscore

_METHODS: list[Method] = [
    TwoSimilarities("text", Weighted(lambda lam: (0.0, 1.0)), scope="row", formula="s_t. Protocol, Scores."),
    TwoSimilarities("image", Weighted(lambda lam: (1.0, 0.0)), scope="row", formula="s_v. Protocol, Scores."),
    TwoSimilarities(
        "average", halfway, scope="row",
        formula='(s_v + s_t) / 2, "Text & Image". Protocol, Scores.',
    ),
    TwoSimilarities(
        "weicom", mix, upper_tail, has_lambda=True, scope="row",
        formula="(1 - lambda) Phi(z_v) + lambda Phi(z_t), less 1, z = (s - mean) / std. Psomas et al., Composed "
        "image retrieval for remote sensing, IGARSS 2024.", shown=normal_cdf,
    ),
    # the steps that WeiCom adds, one by one
    TwoSimilarities(
        "linear", mix, has_lambda=True, scope="row",
        formula="(1 - lambda) s_v + lambda s_t. WeiCom without its scale.",
    ),
    TwoSimilarities(
        "zscore", mix, zscore, has_lambda=True, scope="row",
        formula="(1 - lambda) z_v + lambda z_t, z = (s - mean) / std. In the authors' utilities, where "
        "nothing calls it.",
    ),
    TwoSimilarities(
        "minmax", mix, minmax, has_lambda=True,
        formula="(1 - lambda) m_v + lambda m_t, m = (s - min) / (max - min). Fox and Shaw, TREC-2, 1994 (CombSUM).",
    ),
    TwoSimilarities(
        "rrf", mix, reciprocal_rank, has_lambda=True,
        formula="(1 - lambda) / (60 + rank_v) + lambda / (60 + rank_t), equal similarities sharing the better "
        "rank. Cormack et al., Reciprocal rank fusion, SIGIR 2009, where lambda is 1/2.",
    ),
    Slerp(),
    Direction(),
    FreeDom(),
    Basic(),
    # without their query expansion, marked by a dagger in Psomas et al. (NeurIPS 2025); and as released
    FreeDom(neighbours=1, name="freedom-dagger"),
    Basic(expand=False, name="basic-dagger"),
    Basic(released=True, name="basic-released"),
    TwoSimilarities("sum", add, scope="row", formula="s_v + s_t. In the authors' code, unpublished."),
    TwoSimilarities("product", multiply, formula="s_v s_t. A baseline of FreeDom's code, and in the authors'."),
    TwoSimilarities(
        "product-clamped", multiply, clamped, formula="max(s_v, 0) max(s_t, 0). The product of i-CIR's code."
    ),
    TwoSimilarities(
        "minimum", minimum, scope="row", formula="min(s_v, s_t). Fox and Shaw, TREC-2, 1994 (CombMIN)."
    ),
    TwoSimilarities(
        "minimum-authors", lambda image, text, lam: -torch.maximum(image, text),
        formula="-max(s_v, s_t): 'minimum' in the authors' code, unpublished. The image whose greater similarity "
        "is least comes first.",
    ),
]  # fmt: skip
METHODS = {method.name: method for method in _METHODS}


def get_method(method: str | Method) -> Method:
    """The method of that name; an object that is one is given back.

    Raises ValueError listing the names there are, or for an object that lacks something or bears another's name.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
        return METHODS[method]
    if missing := [part for part in ("name", "has_lambda", "fit") if not hasattr(method, part)]:
        raise ValueError(f"{method!r} is no method: it lacks {', '.join(missing)}")
    if METHODS.get(method.name, method) is not method:
        raise ValueError(f"there is another method named {method.name!r}: give this one a name of its own")
    return method
