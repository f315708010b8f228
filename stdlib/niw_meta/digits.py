"""E3: three classes of real digits from three images each; the digits are held out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ppl import categorical, gen, vi
from stdlib.niw_meta.learners import (
    TASKS_PER_STEP,
    adapted_outputs,
    learn_prior,
    learn_start,
    posterior_draws,
)
from stdlib.niw_meta.networks import classifier_net
from stdlib.niw_meta.scores import Scores, of_labels
from stdlib.niw_meta.tasks import HELD_OUT_DIGITS, SHOTS, TRAINING_DIGITS, WAYS, digit_tasks

SUPPORT, INNER = WAYS * SHOTS, 5
LOCAL = vi.GaussNewton(steps=3, damping=10.0)


@gen
def emission(outputs):
    categorical(outputs.reshape(-1, WAYS)) @ "y"


def run(smoke: bool) -> tuple[dict[str, Scores], dict[str, vi.Fit]]:
    """Train on tasks of the digits 0 to 5, score on those of 6 to 9."""
    steps = 30 if smoke else 2000
    start, head, network = classifier_net(jax.random.key(0))
    data = digit_tasks(TASKS_PER_STEP * steps, TRAINING_DIGITS, seed=0)
    test = digit_tasks(20 if smoke else 500, HELD_OUT_DIGITS, seed=1)
    support = test.images[:, :SUPPORT], test.labels[:, :SUPPORT]
    query = test.images[:, SUPPORT:], test.labels[:, SUPPORT:]
    scores: dict[str, Scores] = {}
    precision = jnp.where(np.arange(len(start)) < head, 1.0, 1e4)
    learned = learn_prior(
        network, emission, start, tuple(data), steps=steps, by=LOCAL, precision=precision
    )
    fits = {"NIW-Meta": learned.fit}
    key = jax.random.key(2)
    drawn = posterior_draws(network, emission, learned, support, *query, key, steps=50)
    scores["NIW-Meta"] = of_labels(drawn, query[1])
    if smoke:
        return scores, fits
    images, labels = data
    split = images[:, :SUPPORT], labels[:, :SUPPORT], images[:, SUPPORT:], labels[:, SUPPORT:]
    options = {"step_size": 0.5}
    fit = learn_start(network, emission, start, split, steps=steps, inner=INNER, **options)
    fits["MAML"] = fit
    for more in (INNER, 2 * INNER):
        adapted = adapted_outputs(
            network, emission, fit.params["start"], support, *query, steps=more, **options
        )
        scores[f"MAML, {more} steps"] = of_labels(adapted, query[1])
    return scores, fits
