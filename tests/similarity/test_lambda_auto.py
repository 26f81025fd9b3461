"""Lambda without a label, against a slow reference: one row, one image at a time."""

import math

import numpy as np
import pytest

from rscir_lib.similarity.lambda_auto import BEGIN, NARROWEST, auto_lambda, fisher_lambda, two_normals


def slow_two_normals(row, steps):
    edge = float(np.quantile(row, BEGIN))
    upper = [1.0 if z >= edge else 0.0 for z in row]
    for _ in range(steps):
        fits = []
        for part in ([1 - u for u in upper], upper):
            size = sum(part)
            mean = sum(p * z for p, z in zip(part, row, strict=True)) / size
            std = math.sqrt(sum(p * (z - mean) ** 2 for p, z in zip(part, row, strict=True)) / size)
            fits.append((size / len(row), mean, max(std, NARROWEST)))
        densities = [[w / s * math.exp(-((z - m) ** 2) / s**2 / 2) for w, m, s in fits] for z in row]
        upper = [high / (low + high) for low, high in densities]
    return fits


def rows_with(answers, seed=0, n=600):
    """z-scores of `n` images, of which the share 0.05 lies `answers` above the rest."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(4, n))
    z[:, : n // 20] = rng.normal(answers, 0.5, size=(4, n // 20))
    return (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, ddof=1, keepdims=True)


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_the_fit_is_that_of_the_slow_reference(steps):
    z = rows_with(3)
    fit = two_normals(z, steps)
    for i, row in enumerate(z.tolist()):
        (_, low_mean, low_std), (_, high_mean, high_std) = slow_two_normals(row, steps)
        np.testing.assert_allclose(
            [part[i] for part in fit[:4]], [low_mean, low_std, high_mean, high_std], rtol=1e-9, atol=1e-9
        )


def test_the_fit_finds_what_was_put_there():
    z = rows_with(5, n=4000)
    fit = two_normals(z)
    np.testing.assert_allclose(fit.share, 0.05, atol=0.01)
    spread = np.sqrt(1 + 0.05 * 0.95 * 25 - 0.05 * 0.75)  # by which the rows were divided
    np.testing.assert_allclose(fit.high_mean - fit.low_mean, 5 / spread, rtol=0.05)
    np.testing.assert_allclose(fit.high_std, 0.5 / spread, rtol=0.15)


def test_the_side_that_separates_better_weighs_more():
    clear, faint = rows_with(6), rows_with(3, seed=1)
    assert (fisher_lambda(faint, clear) > 0.5).all()
    np.testing.assert_allclose(fisher_lambda(faint, clear), 1 - fisher_lambda(clear, faint), atol=1e-12)
    np.testing.assert_allclose(fisher_lambda(clear, clear), 0.5)


def test_flat_similarities_say_nothing():
    flat = np.full((2, 50), 0.3)
    assert auto_lambda([(flat, flat)]) == (0.5, 0.5, 0.5)
    varied = np.random.default_rng(0).normal(size=(2, 50))
    assert auto_lambda([(flat, varied)])[0] == 1  # only the text says anything


def test_batches_and_scale_change_nothing():
    image, text = rows_with(4), rows_with(3, seed=1)
    whole = auto_lambda([(image, text)])
    assert whole == auto_lambda([(image[i : i + 1], text[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(auto_lambda([(2 * image + 7, text / 9)]), whole, atol=1e-9)
    assert whole[1] <= whole[0] + 0.005
    assert whole[0] <= whole[2] + 0.005


def test_equal_similarities_say_nothing():
    """Rounding apart: no side has images that stand out, in an archive of one or a thousand."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 1000):
        same = [np.full((4, size), value) * (1 + 1e-16 * rng.integers(0, 3, (4, size))) for value in rng.random(2)]
        assert auto_lambda([tuple(same)]) == (0.5, 0.5, 0.5)
