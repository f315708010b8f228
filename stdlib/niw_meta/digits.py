"""E3: three classes of real digits from three images each; the digits are held out."""

from __future__ import annotations

import jax
import numpy as np

from ppl import categorical, gen, vi
from stdlib.niw_meta.learners import (
    TASKS_PER_STEP,
    adapted_outputs,
    learn_prior,
    learn_start,
    posterior_draws,
)
from stdlib.niw_meta.networks import prototype_net
from stdlib.niw_meta.scores import Scores, of_labels
from stdlib.niw_meta.tasks import (
    HELD_OUT_DIGITS,
    SHOTS,
    TRAINING_DIGITS,
    WAYS,
    DigitTasks,
    digit_tasks,
    one_hot,
)

SUPPORT, INNER = WAYS * SHOTS, 5
LOCAL = vi.GaussNewton(steps=1, damping=1e3)


@gen
def emission(outputs):
    categorical(outputs.reshape(-1, WAYS)) @ "y"


def given(tasks: DigitTasks) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """x and y of the support."""
    images, labels = tasks.images[:, :SUPPORT], tasks.labels[:, :SUPPORT]
    return (images, one_hot(labels, SUPPORT)), labels


def asked(tasks: DigitTasks) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """x and y of the query points: x has the support too, for the prototypes."""
    return (tasks.images, one_hot(tasks.labels, SUPPORT)), tasks.labels[:, SUPPORT:]


def run(steps: int = 300, tests: int = 400) -> tuple[dict[str, Scores], dict[str, vi.Fit]]:
    """Train on tasks of the digits 0 to 5, score on those of 6 to 9."""
    start, network = prototype_net(jax.random.key(0))
    data = digit_tasks(TASKS_PER_STEP * steps, TRAINING_DIGITS, seed=0)
    test = digit_tasks(tests, HELD_OUT_DIGITS, seed=1)
    support, query = given(test), asked(test)
    untrained = adapted_outputs(network, emission, start, support, *query, steps=0, step_size=0.1)
    scores = {"untrained: prototypes of pixels": of_labels(untrained, query[1])}
    whole = (data.images, one_hot(data.labels, data.labels.shape[1])), data.labels
    options = {"steps": steps, "by": LOCAL, "precision": 1e4}
    learned = learn_prior(network, emission, start, whole, **options)
    fits = {"NIW-Meta": learned.fit}
    key = jax.random.key(2)
    drawn = posterior_draws(network, emission, learned, support, *query, key, steps=50)
    scores["NIW-Meta"] = of_labels(drawn, query[1])
    split = (*given(data), *asked(data))
    options = {"step_size": 0.1}
    fit = learn_start(network, emission, start, split, steps=steps, inner=INNER, **options)
    fits["MAML"] = fit
    for more in (INNER, 2 * INNER):
        adapted = adapted_outputs(
            network, emission, fit.params["start"], support, *query, steps=more, **options
        )
        scores[f"MAML, {more} steps"] = of_labels(adapted, query[1])
    return scores, fits
