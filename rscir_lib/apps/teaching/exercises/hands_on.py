"""Truths of the exercises in notebooks 07 and 08, the explorer and labelling."""

from rscir_lib.apps.labelling import cohens_kappa, propose
from rscir_lib.apps.teaching.context import ExerciseContext, Truth


def exercise_07_1(c: ExerciseContext) -> Truth:
    ap = c.rows(["weicom"], (c["LAMBDA"],))["AP"].to_numpy()[c["QUERIES"]]
    perfect = ap > 0.9999  # 1, less the rounding of a mean of many precisions
    wrong = {"that is a share; asked is how many": 100 * perfect.mean(), "those are not perfect": (~perfect).sum()}
    return Truth(perfect.sum(), "count", wrong)


def exercise_07_2(c: ExerciseContext) -> Truth:
    def first(method: str, lam: float) -> set[str]:
        return set(c.search(c["POSITION"], c["QUERY_TEXT"], lam, method, top=10).table["file"])

    wanted = first("weicom", c["LAMBDA"])
    common = [len(wanted & first("linear", step / 20)) for step in range(21)]
    wrong = {"that is the same lambda for both": common[round(20 * c["LAMBDA"])], "the least of them": min(common)}
    return Truth(max(common), "count", wrong)


def exercise_08_1(c: ExerciseContext) -> Truth:
    labels = c.benchmark.labels
    known = labels[(labels["attribute"] == c["CHECK"]) & labels["value"].isin(c["VALUES"])]
    if known.empty:
        raise ValueError(f"CHECK={c['CHECK']!r}: no labels of that name with any of the values {c['VALUES']}")
    proposed = propose(c.x, c.run.encoder.encode_texts, {value: value for value in c["VALUES"]})
    said = known["position"].map(proposed.set_index("position")["proposed"])
    agree, by_chance = (said == known["value"]).mean(), 1 / len(c["VALUES"])
    uniform = "chance is not the same for all values: it depends on how often each is said"
    wrong = {"that is the agreement, chance included": agree, uniform: (agree - by_chance) / (1 - by_chance)}
    return Truth(cohens_kappa(said.tolist(), known["value"].tolist()), "share", wrong)


def exercise_08_2(c: ExerciseContext) -> Truth:
    named = {value: value for value in c["VALUES"]}, {"smooth": "smooth", "striped": "striped"}
    margins = [propose(c.x, c.run.encoder.encode_texts, prompts)["margin"] for prompts in named]
    wrong = {"those are means": [m.mean() for m in margins], "those are the largest": [m.max() for m in margins]}
    return Truth([m.median() for m in margins], "number", wrong)
