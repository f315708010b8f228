"""The criterion of convergence, on made-up iterates and in a fit."""

from __future__ import annotations

import numpy as np
import optax
import pytest

from ppl import vi
from ppl.vi._loop import Moments
from ppl.vi.convergence import Convergence, Windows, diagnose
from tests.vi.programs import POSTERIOR, conjugate

RULE = Convergence()


def windows(iterates, losses, count=5):
    parts = np.split(iterates, count)
    means = np.array([p.mean(0) for p in parts])
    variances = np.array([p.var(0, ddof=1) for p in parts])
    chunks = np.split(losses, count)
    mean_losses = np.array([c.mean() for c in chunks])
    errors = np.array([c.std(ddof=1) / len(c) ** 0.5 for c in chunks])
    return diagnose(means, variances, mean_losses, errors, len(parts[0]), RULE)


def test_noise_about_a_point_has_converged():
    rng = np.random.default_rng(0)
    found = windows(rng.normal(size=(1_000, 3)) * 0.1, 5 + 0.1 * rng.normal(size=1_000))
    assert found.converged and found.steps == 1_000
    assert found.rhat < 1.05 and found.mcse < 0.02
    assert str(found).startswith("converged (R-hat 1.0")


def test_a_drift_has_not():
    rng = np.random.default_rng(0)
    drift = np.linspace(0, 1, 1_000)[:, None]
    noise = 0.1 * rng.normal(size=(1_000, 3))
    found = windows(noise + drift, np.full(1_000, 5.0))
    assert not found.converged and found.rhat > 1.1 and found.steps == 0
    found = windows(noise, np.linspace(5, 0, 1_000))  # only the loss moves
    assert not found.converged and found.change > 0.5
    found = windows(30 * noise, np.full(1_000, 5.0))  # stationary, but the mean is not known
    assert not found.converged and found.mcse > 0.02 and found.steps == 1_000


def test_the_moments_of_windows():
    """As sums about the start of each window, they give the mean of the last five windows."""
    rng = np.random.default_rng(1)
    iterates = 3 + 0.1 * rng.normal(size=(6, 100))
    kept = Windows(Convergence())
    for part in iterates:
        start = {"x": np.array(part[0] - 1)}
        moved = part - start["x"]
        kept.add(start, Moments({"x": moved.sum()}, {"x": (moved**2).sum()}), np.ones(100))
    assert kept.converged
    np.testing.assert_allclose(kept.average()["x"], iterates[1:].mean(), rtol=1e-6)


def test_a_fit_stops_early_and_averages():
    optimizer = optax.adam(0.02)
    options = dict(steps=20_000, optimizer=optimizer, num_samples=8)
    fit = vi.fit(conjugate, convergence=Convergence(window=400), **options)
    assert fit.convergence.converged and fit.steps < 10_000 and not fit.interrupted
    found = float(fit.params["loc"]), float(fit.params["scale"])
    np.testing.assert_allclose(found, POSTERIOR, atol=0.015)  # the last iterate's sd is 0.02


def test_a_fit_that_is_too_short_says_so():
    fit = vi.fit(conjugate, steps=60, convergence=Convergence(window=10), num_samples=8)
    assert not fit.convergence.converged and fit.steps == 60


@pytest.mark.parametrize("wrong", [{"windows": 2}, {"window": 1}, {"rhat": 1.0}, {"mcse": 0.0}])
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(ValueError, match="Convergence: "):
        Convergence(**wrong)
    with pytest.raises(TypeError, match="convergence is a vi"):
        vi.fit(conjugate, convergence=0.1)
