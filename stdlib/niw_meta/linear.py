"""E1: linear regressions, where everything is known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from ppl import gen, normal, vi
from stdlib.niw_meta.learners import adapted_outputs
from stdlib.niw_meta.programs import NIW, bound, data_loss, full_covariance, maml
from stdlib.niw_meta.scores import Scores, of_regression
from stdlib.niw_meta.tasks import (
    LINEAR_MEAN,
    NOISE,
    LinearTasks,
    linear_covariance,
    linear_tasks,
)

SUPPORT, QUERIES, DF, BATCH = 3, 16, 14.0, 8


@gen
def emission(outputs):
    normal(outputs, NOISE) @ "y"


def network(weights: Array, x: Array) -> Array:
    return x @ weights


@jax.jit
def _predictive(x: Array, y: Array, loc: Array, covariance: Array) -> tuple[Array, Array]:
    factor = jnp.linalg.cholesky(covariance)

    def task(x, y):
        loss = data_loss(network, emission, x[:SUPPORT], y[:SUPPORT])
        quadratic = vi.local_quadratic(loss, loc, by=vi.Newton())
        mean, posterior = quadratic.posterior(loc, factor)
        query = x[SUPPORT:]
        return query @ mean, jnp.sum(query @ posterior * query, -1) + NOISE**2

    return jax.vmap(task)(x, y)


def predict(tasks: LinearTasks, loc: ArrayLike, covariance: ArrayLike) -> Scores:
    """Of the posterior predictive of the query points under the prior N(loc, covariance)."""
    arrays = (jnp.asarray(a, jnp.float32) for a in (tasks.x, tasks.y, loc, covariance))
    mean, variance = _predictive(*arrays)
    return of_regression(mean, variance, tasks.y[:, SUPPORT:])


def fitted_noise(outputs: Array, y: ArrayLike, scored: Array, target: ArrayLike) -> Scores:
    """Of point predictions with the variance that fits other tasks' errors, `outputs` of `y`."""
    return of_regression(scored, jnp.full(scored.shape, jnp.mean((outputs - y) ** 2)), target)


def run(smoke: bool) -> tuple[dict[str, Scores], vi.Fit]:
    """Train on fresh tasks, score on others: by name of the method. The short version has only the
    hierarchy and the priors that need no training."""
    steps = 500 if smoke else 3000
    test = linear_tasks(500 if smoke else 2000, SUPPORT + QUERIES, seed=1)
    data = linear_tasks(BATCH * steps, SUPPORT + QUERIES, seed=0)
    total = len(data.y)
    prior = NIW(jnp.zeros(4), 0.01, 0.1 * jnp.eye(4), 6.0)
    model, guide = full_covariance(network, emission, prior, total=total, df=DF, by=vi.Newton())
    schedule = optax.piecewise_constant_schedule(3e-2, {steps // 3: 0.3, 2 * steps // 3: 0.3})
    options = {"batch_size": BATCH, "steps": steps, "optimizer": optax.adam(schedule)}
    fit = vi.fit(bound(model, guide, total), tuple(data), rewrites="closed_form", **options)
    loc, covariance = fit.params["m"], fit.params["S"] @ fit.params["S"].T
    scores = {
        "oracle: the true prior": predict(test, LINEAR_MEAN, linear_covariance()),
        "NIW-Meta": predict(test, loc, covariance),
        "NIW-Meta, mode of q": predict(test, loc, covariance * DF / (DF + 4 + 2)),
        "no pooling: N(0, 10 I)": predict(test, jnp.zeros(4), 10.0 * jnp.eye(4)),
    }

    def split(tasks: LinearTasks):
        x, y = tasks
        return x[:, :SUPPORT], y[:, :SUPPORT], x[:, SUPPORT:], y[:, SUPPORT:]

    if smoke:
        return scores, fit
    for name, inner in (("MAML, 5 steps", 5), ("one network", 0)):
        inner_options = {"steps": inner, "step_size": 0.02}
        program = maml(network, emission, jnp.zeros(4), **inner_options)
        start = vi.fit(program, split(data), **options).params["start"]

        def outputs(tasks: LinearTasks, start=start, inner_options=inner_options):
            x, y, query_x, query_y = split(tasks)
            adapted = adapted_outputs(
                network, emission, start, (x, y), query_x, query_y, **inner_options
            )
            return adapted[:, 0], query_y

        other = LinearTasks(*(a[:2000] for a in data))
        scores[name] = fitted_noise(*outputs(other), *outputs(test))
    return scores, fit
