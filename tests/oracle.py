"""The protocol, slowly and obviously: one query at a time, one image at a time. What `evaluate` must agree with."""

import csv
import math
import re
from pathlib import Path

MERGED = {
    "denseresidential": "residential",
    "sparseresidential": "residential",
    "closedroad": "road",
    "intersection": "road",
    "bridge": "roadpass",
    "overpass": "roadpass",
    "ferryterminal": "pier",
    "harbor": "pier",
    "parkingspace": "parking",
    "parkinglot": "parking",
}
GROUPED = {
    "density": ["denseresidential", "sparseresidential"],
    "shape": ["closedroad", "intersection"],
    "context": ["bridge", "overpass"],
    "existence": ["ferryterminal", "harbor", "parkingspace", "parkinglot"],
}


def class_of(name):
    return re.match(r"[^0-9]*", name).group().replace("_", "")


def group_of(attribute, name, protocol):
    cls = class_of(name)
    if protocol == "first-release" and attribute == "density" and cls in ("christmastreefarm", "forest"):
        return "treecover"
    return MERGED[cls] if cls in GROUPED.get(attribute, []) else cls


def composed_queries(root, attribute, protocol):
    """(image name, text, set of names of relevant images) of each composed query, in no particular order."""
    with open(Path(root) / "PatternCom" / f"{attribute}.csv", newline="") as file:
        rows = [(name, value) for name, _, value in csv.reader(file)]
    decided = dict(rows)  # the last row of an image decides
    queries = []
    for name, value in rows:
        group = group_of(attribute, name, protocol)
        others = {v for n, v in rows if group_of(attribute, n, protocol) == group} - {value}
        for text in others:
            relevant = {n for n, v in decided.items() if v == text}
            if protocol == "released":
                cls = class_of(name)
                relevant = {n for n in relevant if MERGED.get(class_of(n), class_of(n)) == MERGED.get(cls, cls)}
            queries.append((name, text, relevant))
    return queries


def dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def standardised(s):
    mean = math.fsum(s) / len(s)
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in s) / (len(s) - 1)) if len(s) > 1 else 0
    return [(x - mean) / std if std > 1e-12 else 0.0 for x in s]


def stretched(s):
    return [(x - min(s)) / (max(s) - min(s)) if max(s) - min(s) > 1e-12 else 0.0 for x in s]


def phi(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


def scores(method, s_image, s_text, lam):
    if lam in (0, 1) and method in ("weicom", "zscore", "linear", "minmax"):
        return s_text if lam else s_image  # one modality alone
    if method in ("weicom", "zscore"):
        s_image, s_text = standardised(s_image), standardised(s_text)
    if method == "weicom":
        s_image, s_text = [-phi(-z) for z in s_image], [-phi(-z) for z in s_text]  # Phi - 1, which never saturates
    if method == "minmax":
        s_image, s_text = stretched(s_image), stretched(s_text)
    if method == "product-clamped":
        s_image, s_text = [max(s, 0.0) for s in s_image], [max(s, 0.0) for s in s_text]
    combine = {
        "image": lambda i, t: i,
        "text": lambda i, t: t,
        "average": lambda i, t: (i + t) / 2,
        "sum": lambda i, t: i + t,
        "product": lambda i, t: i * t,
        "product-clamped": lambda i, t: i * t,
        "minimum": min,
    }.get(method, lambda i, t: (1 - lam) * i + lam * t)
    return [combine(i, t) for i, t in zip(s_image, s_text, strict=True)]


def metrics(ranked, relevant):
    """AP, P@k and R@k of a ranked list of names."""
    found, precisions = 0, []
    for rank, name in enumerate(ranked, 1):
        if name in relevant:
            found += 1
            precisions.append(found / rank)
    result = {"AP": sum(precisions) / len(relevant) if relevant else 0.0}
    for k in (5, 10, 15, 20):
        hits = len([name for name in ranked[:k] if name in relevant])
        result[f"P@{k}"] = hits / k
        result[f"R@{k}"] = hits / len(relevant) if relevant else 0.0
    return result


def evaluate_query(feats, names, image, text_feat, relevant, method, lam):
    """Metrics of one composed query; `sorted` is stable, so ties go by archive order."""
    s_image = [dot(row, feats[names.index(image)]) for row in feats]
    s_text = [dot(row, text_feat) for row in feats]
    score = scores(method, s_image, s_text, lam)
    order = sorted(range(len(names)), key=lambda i: -score[i])
    return metrics([names[i] for i in order], relevant)
