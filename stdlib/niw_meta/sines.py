"""E2: sinusoids from five points, by a network of 1761 weights."""

from __future__ import annotations

import jax
import numpy as np

from ppl import gen, normal, vi
from stdlib.niw_meta.learners import (
    TASKS_PER_STEP,
    adapted_outputs,
    closed_form_draws,
    learn_prior,
    learn_start,
    posterior_draws,
)
from stdlib.niw_meta.networks import regression_net
from stdlib.niw_meta.scores import Scores, moments, of_regression
from stdlib.niw_meta.tasks import NOISE, Sinusoids, sinusoids

SUPPORT, QUERIES, INNER = 5, 15, 5
RATE = 3e-3
LOCAL = vi.GaussNewton(steps=4, damping=100.0)


@gen
def emission(outputs):
    normal(outputs, NOISE) @ "y"


class Result:
    """Scores by method, and predictions of some tasks for the figure."""

    def __init__(self, test: Sinusoids):
        self.test = test
        self.scores: dict[str, Scores] = {}
        self.predictions: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.fits: dict[str, vi.Fit] = {}

    def add(self, name: str, outputs) -> None:
        mean, variance = moments(outputs, NOISE)
        y, curve = self.test.y[:, SUPPORT:], self.test.curve[:, SUPPORT:]
        errors = of_regression(mean, variance, y, curve)
        self.scores[name] = errors
        self.predictions[name] = np.asarray(mean), np.asarray(variance)


def run(smoke: bool) -> Result:
    """Train the prior and MAML's start on fresh tasks, score on others."""
    steps = 60 if smoke else 4000
    tasks = TASKS_PER_STEP * steps
    start, network = regression_net(jax.random.key(0))
    data = sinusoids(tasks, SUPPORT + QUERIES, seed=0)
    test = sinusoids(20 if smoke else 300, SUPPORT + 40, seed=1)
    result = Result(test)
    support = test.x[:, :SUPPORT], test.y[:, :SUPPORT]
    query = test.x[:, SUPPORT:], test.y[:, SUPPORT:]
    learned = learn_prior(
        network, emission, start, (data.x, data.y), steps=steps, by=LOCAL, rate=RATE
    )
    result.fits["NIW-Meta"] = learned.fit
    key = jax.random.key(2)
    at_once = closed_form_draws(network, emission, learned, support, *query, key, by=LOCAL)
    result.add("NIW-Meta, closed form", at_once)
    if smoke:
        return result
    result.add("NIW-Meta", posterior_draws(network, emission, learned, support, *query, key))
    split = data.x[:, :SUPPORT], data.y[:, :SUPPORT], data.x[:, SUPPORT:], data.y[:, SUPPORT:]
    for name, inner in (("MAML", INNER), ("one network", 0)):
        options = {"step_size": 2e-3}
        fits = [
            learn_start(
                network, emission, start, split, steps=steps, inner=inner, rate=rate, **options
            )
            for rate in (1e-3, RATE)
        ]
        fit = min(fits, key=lambda fit: np.mean(fit.losses[-steps // 10 :]))
        result.fits[name] = fit
        for more in (inner, 50):
            adapted = adapted_outputs(
                network, emission, fit.params["start"], support, *query, steps=more, **options
            )
            result.add(f"{name}, {more} steps", adapted)
    return result
