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
    """(image name, text, set of names of relevant images) of each composed query, in the order of the rows,
    those of a row in the order in which their texts first appear in its group."""
    with open(Path(root) / "PatternCom" / f"{attribute}.csv", newline="") as file:
        rows = [(name, value) for name, _, value in csv.reader(file)]
    decided = dict(rows)  # the last row of an image decides
    queries = []
    for name, value in rows:
        group = group_of(attribute, name, protocol)
        values = dict.fromkeys(v for n, v in rows if group_of(attribute, n, protocol) == group)
        for text in [v for v in values if v != value]:
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
    if lam in (0, 1) and method in ("weicom", "zscore", "linear", "minmax", "rrf"):
        return s_text if lam else s_image  # one modality alone
    if method in ("weicom", "zscore"):
        s_image, s_text = standardised(s_image), standardised(s_text)
    if method == "weicom":
        s_image, s_text = [-phi(-z) for z in s_image], [-phi(-z) for z in s_text]  # Phi - 1, which never saturates
    if method == "minmax":
        s_image, s_text = stretched(s_image), stretched(s_text)
    if method == "product-clamped":
        s_image, s_text = [max(s, 0.0) for s in s_image], [max(s, 0.0) for s in s_text]
    if method == "rrf":
        s_image, s_text = reciprocal_ranks(s_image), reciprocal_ranks(s_text)
    combine = {
        "image": lambda i, t: i,
        "text": lambda i, t: t,
        "average": lambda i, t: (i + t) / 2,
        "sum": lambda i, t: i + t,
        "product": lambda i, t: i * t,
        "product-clamped": lambda i, t: i * t,
        "minimum": min,
        "minimum-authors": lambda i, t: -max(i, t),
    }.get(method, lambda i, t: (1 - lam) * i + lam * t)
    return [combine(i, t) for i, t in zip(s_image, s_text, strict=True)]


def metrics(ranked, relevant, cutoffs=(5, 10, 15, 20)):
    """AP, P@k and R@k of a ranked list of names."""
    found, precisions = 0, []
    for rank, name in enumerate(ranked, 1):
        if name in relevant:
            found += 1
            precisions.append(found / rank)
    result = {"AP": sum(precisions) / len(relevant) if relevant else 0.0}
    for k in cutoffs:
        hits = len([name for name in ranked[:k] if name in relevant])
        result[f"P@{k}"] = hits / k
        result[f"R@{k}"] = hits / len(relevant) if relevant else 0.0
    return result


def ranking(feats, image_feat, text_feat, method, lam, left_out=()):
    """Positions, best first, ties by position, without those that are left out."""
    s_image = [dot(row, image_feat) for row in feats]
    s_text = [dot(row, text_feat) for row in feats]
    score = scores(method, s_image, s_text, lam)
    return [i for i in sorted(range(len(feats)), key=lambda i: -score[i]) if i not in left_out]


def evaluate_query(feats, names, image, text_feat, relevant, method, lam):
    """Metrics of one composed query; `sorted` is stable, so ties go by archive order."""
    order = ranking(feats, feats[names.index(image)], text_feat, method, lam)
    return metrics([names[i] for i in order], relevant)


def rank_of(x, values):
    """1 for the highest; equal values share the better rank."""
    return 1 + len([v for v in values if v > x])


def reciprocal_ranks(s):
    return [1 / (60 + rank_of(x, s)) for x in s]


def on_arc(v, t, lam):
    """The point on the arc from v to t: turned from v towards t by the share lam of their angle."""
    cosine = dot(v, t)
    angle = math.acos(max(-1, min(1, cosine)))
    across = [b - cosine * a for a, b in zip(v, t, strict=True)]  # from v, at a right angle, towards t
    length = math.sqrt(dot(across, across))
    return [math.cos(lam * angle) * a + math.sin(lam * angle) * c / length for a, c in zip(v, across, strict=True)]


def nearest(query, feats, k, own=None):
    """Positions of the k rows most similar to the query, best first, ties by position; its own isn't among them."""
    return [i for i in sorted(range(len(feats)), key=lambda i: (-dot(query, feats[i]), i)) if i != own][:k]


def expanded(own, feats, k, power):
    v = feats[own]
    total = [float(x) for x in v]
    for i in nearest(v, feats, k, own):
        weight = max(dot(v, feats[i]), 0) ** power
        total = [a + weight * float(x) for a, x in zip(total, feats[i], strict=True)]
    length = math.sqrt(dot(total, total))
    return [x / length for x in total]


def freedom(own, text, feats, encode, vocabulary, neighbours, words, kept):
    """Scores of every row by FreeDom for an image of the archive."""
    counts = {}
    for i in [own, *nearest(feats[own], feats, neighbours - 1, own)]:
        named = sorted(vocabulary, key=lambda word: -dot(feats[i], encode([word])[0]))[:words]
        for word in named:
            counts[word] = counts.get(word, 0) + 1
    most = sorted(counts, key=lambda word: -counts[word])[:kept]
    highest = max(counts.values())
    return [sum(counts[word] / highest * dot(encode([f"{word} {text}"])[0], row) for word in most) for row in feats]
