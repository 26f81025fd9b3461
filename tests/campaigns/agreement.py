"""Do our scores agree with the authors', i-CIR's and FreeDom's rules, on the same inputs? Prints figures.

    python tests/campaigns/agreement.py          # SynthCom by the bundled encoder, WHUCom's collages by CLIP

The rules stand in tests/as_published.py, written down once more; no code of theirs is here.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
import as_published as rules
from rscir_lib.evaluation import evaluate, summarize
from rscir_lib.evaluation.evaluate import compose
from rscir_lib.methods import METHODS, Basic, FreeDom, read_vocabulary
from rscir_lib.runs import open_run, real_tasks
from rscir_lib.similarity.gallery import InMemory

AUTHORS = ("image", "text", "average", "sum", "product", "minimum-authors", "zscore", "weicom")
QUERIES = 100  # of each benchmark: BASIC and FreeDom take a while, one query at a time


def agreement(benchmark, features, encode, words: dict) -> pd.DataFrame:
    """A row a method: the greatest difference of a score, and how many cells of the table (rounded as the authors do)
    are equal, of those there are. `words` are the lists that BASIC and FreeDom are given: subjects, styles."""
    x = features.aligned(benchmark.archive).astype(np.float64)
    gallery = InMemory(features.aligned(benchmark.archive))
    questions, queries = compose(benchmark, gallery, encode, features), benchmark.queries
    subjects, styles = words["subjects"], words["styles"]
    ways = {name: (METHODS[name], lambda p, w, v, t, name=name: rules.authors(name, x, v, t, 0.5)) for name in AUTHORS}
    ways["product-clamped"] = METHODS["product-clamped"], lambda p, w, v, t: rules.icir("product-clamped", x, v, t)
    freedom = FreeDom(subjects, name="freedom, these words")
    dagger = FreeDom(subjects, neighbours=1, name="freedom-dagger, these words")
    basic = Basic(subjects, styles, released=True, name="basic-released, these words")
    ways["freedom"] = freedom, lambda p, w, v, t: rules.freedom(x, p, w, encode, subjects)
    ways["freedom-dagger"] = dagger, lambda p, w, v, t: rules.freedom(x, p, w, encode, subjects, 1)
    ways["basic-released"] = basic, lambda p, w, v, t: rules.basic(x, p, w, encode, subjects, styles)
    lines = {}
    for name, (method, rule) in ways.items():
        lam = 0.5 if method.has_lambda else float("nan")
        ours = method.fit(gallery, encode)(questions, lam)
        sides = zip(questions.query_images, questions.query_texts, strict=True)
        asked = zip(queries["position"], queries["text"], sides, strict=True)
        theirs = np.stack([rule(position, text, *pair) for position, text, pair in asked])
        rows = evaluate(benchmark, features, encode, [method], [0.5], "cpu", progress=False)
        table = summarize(rows, rounding="authors").iloc[0]
        ap = [rules.average_precision(s, benchmark.targets[t]) for s, t in zip(theirs, queries["target"], strict=True)]
        cells = (
            pd.Series(ap, queries.index).groupby(queries["attribute"], sort=False).agg(lambda c: rules.mean(list(c)))
        )
        cells = [*cells, rules.mean(list(cells))]
        equal = sum(abs(a - b) < 1e-9 for a, b in zip(table, cells, strict=True))
        lines[name] = {"greatest difference": np.abs(ours - theirs).max(), "equal cells": equal, "cells": len(cells)}
    return pd.DataFrame(lines).T.astype({"equal cells": int, "cells": int})


def some(benchmark, number: int = QUERIES):
    """The benchmark with fewer queries, and nothing unknown: the authors' evaluator knows no unknown images."""
    queries = benchmark.queries.sample(min(number, len(benchmark.queries)), random_state=0).sort_index()
    return replace(benchmark, queries=queries.drop(columns="unknown", errors="ignore"), unknowns=())


def main() -> None:
    bundled = open_run()
    tasks = {"SynthCom (synthetic)": (bundled.benchmark, bundled.features, bundled.encoder.encode_texts)}
    tasks["collages (constructed), CLIP"] = real_tasks()["collages, clip"]
    for name, (benchmark, features, encode) in tasks.items():
        words = {lists: read_vocabulary(lists) for lists in ("subjects", "styles")}
        distinct = np.unique(encode(list(words["subjects"])).round(5), axis=0, return_index=True)[1]
        words["subjects"] = [words["subjects"][i] for i in sorted(distinct)]  # words of one feature tie in theirs
        print(f"\n{name}, {QUERIES} queries\n{agreement(some(benchmark), features, encode, words)}")


if __name__ == "__main__":
    main()
