"""The rules of the authors' evaluator and of i-CIR's and FreeDom's released code, written down once more, in numpy.

Read from what their code does, for one query at a time; nothing of it is copied. Words and least similarities are
given: theirs are files of their own.
"""

import numpy as np
from scipy.stats import norm


def authors(name: str, x: np.ndarray, v: np.ndarray, t: np.ndarray, lam: float = 0.5) -> np.ndarray:
    """Scores (N,) by the authors' evaluator: cosines, standardised by the unbiased std, through the normal CDF."""
    image, text = x @ v, x @ t
    z_image, z_text = ((s - s.mean()) / s.std(ddof=1) for s in (image, text))
    return {
        "image": image,
        "text": text,
        "average": (image + text) / 2,
        "sum": image + text,
        "product": image * text,
        "minimum-authors": -np.maximum(image, text),  # the least of the greater similarities comes first
        "zscore": (1 - lam) * z_image + lam * z_text,
        "weicom": (1 - lam) * norm.cdf(z_image) + lam * norm.cdf(z_text) - 1,
    }[name]


def icir(name: str, x: np.ndarray, v: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Scores (N,) by i-CIR's code: both similarities without what is below 0, multiplied."""
    assert name == "product-clamped"
    return (x @ v).clip(0) * (x @ t).clip(0)


def basic(x, position, text, encode, subjects, styles, contexts=100, neighbours=25):
    """Scores (N,) by BASIC as i-CIR's code has it, for an image of the archive."""
    v = x[position]
    phrases = [phrase for word in subjects[:contexts] for phrase in (f"{word} {text}", f"{text} {word}")]
    t = encode(phrases).astype(np.float64).mean(axis=0)
    t /= np.linalg.norm(t)
    plus, minus = (encode(list(words)).astype(np.float64) for words in (subjects, styles))
    mean_image, mean_text = x.mean(axis=0), plus.mean(axis=0)
    x, v, t, plus, minus = x - mean_image, v - mean_image, t - mean_text, plus - mean_text, minus - mean_text
    scatter = 0.8 * plus.T @ plus / (len(plus) - 1) - 0.2 * minus.T @ minus / (len(minus) - 1) + 1e-5
    values, vectors = np.linalg.eigh(scatter)
    strongest = np.argsort(-values)[:250]
    basis = vectors[:, strongest[values[strongest] > 1e-10 * np.abs(values).max()]]
    project = basis @ basis.T
    near = np.argsort(-(x @ (project @ v)), kind="stable")
    near = near[near != position][:neighbours]  # the query isn't in their database
    weights = np.exp(0.1 * np.append(x[near] @ (project @ v), 1))
    v = weights @ np.vstack([x[near], v]) / weights.sum()
    some = x[np.unique(np.linspace(0, len(x) - 1, 1000).astype(int))]
    least_image, least_text = (some @ some.T).min(), (plus @ some.T).min()
    s_v = ((x @ project @ v - least_image) / abs(least_image)).clip(0)
    s_t = ((x @ t - least_text) / abs(least_image)).clip(0)
    return s_v * s_t - 0.1 * (s_v + s_t) ** 2


def freedom(x, position, text, encode, vocabulary, neighbours=20, words=7, kept=7):
    """Scores (N,) by FreeDom's code, for an image of the archive and a vocabulary without two words of one feature."""
    near = [i for i in np.argsort(-(x @ x[position]), kind="stable") if i != position][: neighbours - 1]
    to_words = x[[position, *near]] @ encode(list(vocabulary)).astype(np.float64).T
    count = {}
    for row in to_words:
        for word in np.argsort(-row, kind="stable")[:words]:
            count[word] = count.get(word, 0) + 1
    most = sorted(count, key=lambda word: -count[word])[:kept]
    weights = np.array([count[word] for word in most]) / max(count.values())
    return x @ (weights @ encode([f"{vocabulary[word]} {text}" for word in most]).astype(np.float64))


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """In per cent with two decimals, as the authors' evaluator keeps it; ties by archive order."""
    ranks = np.flatnonzero(np.isin(np.argsort(-scores, kind="stable"), relevant)) + 1
    return np.round(100 * (np.arange(1, len(ranks) + 1) / ranks).mean(), 2) if len(ranks) else 0.0


def mean(values) -> float:
    """Python's rounding of a mean, which the authors' tables have."""
    return round(sum(values) / len(values), 2)
