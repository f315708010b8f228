"""The hierarchy, its guide and the objective; and MAML with the same network, to compare.

Every task has its own weights; all weights come from one Gaussian, whose mean and covariance are
random. A task is a pair of data `(x, y)`: a network makes `outputs` of its weights and `x`, and an
emission, a program with the choice `"y"`, draws `y` given the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl import (
    Program,
    density,
    gen,
    inline,
    inverse_gamma,
    inverse_wishart,
    lower_cholesky,
    merge_choices,
    multivariate_normal,
    normal,
    param,
    plate,
    sim,
    vi,
)

Network = Callable[[Array, Any], Array]
"""`(weights [size], x) -> outputs`, flat: of all points of a task."""


@dataclass(frozen=True, eq=False)
class NIW:
    """A normal-inverse-Wishart law: Sigma ~ IW(df, scale), mu ~ N(loc, Sigma / strength).

    As a prior of independent coordinates `scale` is a number for each, and Sigma a vector of
    inverse gamma variances: a product of normal-inverse-Wishart laws of size 1.
    """

    loc: Array
    strength: float
    scale: Array
    df: float


def data_loss(network: Network, emission: Program, x: Any, y: Array) -> vi.Composed:
    """Minus the log-likelihood of a task, as a function of its weights."""
    return vi.Composed(
        outputs=lambda weights: network(weights, x),
        cost=lambda outputs: -density(emission)({"y": y}, outputs),
    )


# ------------------------------------------------------------------------- one full covariance


def full_covariance(
    network: Network,
    emission: Program,
    prior: NIW,
    *,
    total: int,
    df: float,
    by: vi.QuadraticSolver,
) -> tuple[Program, Program]:
    """The model and the guide with one inverse Wishart covariance of all weights.

    The guide's global part is NIW(m, strength, df S S', df) with parameters m and S; its local
    part is the Gaussian that is optimal for a quadratic likelihood (card, 2.3): no parameters of
    its own, so that nothing is kept of a task.

    Args:
        total: N, the number of tasks of which a step sees some.
        df: of the guide, above d - 1.
        by: finds the quadratic.

    Raises:
        ValueError: `df` is too small for the prior's or the guide's covariance to be proper.
    """
    size = len(prior.loc)
    for whose, value in (("the prior's", prior.df), ("the guide's", df)):
        if not value > size - 1:
            raise ValueError(f"full_covariance: {whose} df is {value}; it must be above {size - 1}")

    @gen
    def task(x, mu, Sigma):
        weights = multivariate_normal(mu, Sigma) @ "weights"
        emission(network(weights, x)) @ inline("y")

    @gen
    def model(x):
        Sigma = inverse_wishart(prior.df, jnp.linalg.cholesky(prior.scale)) @ "Sigma"
        mu = multivariate_normal(prior.loc, Sigma / prior.strength) @ "mu"
        plate(task, in_axes=(0, None, None), total=total)(x, mu, Sigma) @ "tasks"

    @gen
    def local(x, y, m, S):
        quadratic = vi.local_quadratic(data_loss(network, emission, x, y), start=m, by=by)
        mean, covariance = quadratic.posterior(m, S)  # S S' = inverse(E[inverse(Sigma)])
        multivariate_normal.reparam(mean, covariance) @ "weights"

    @gen
    def guide(x, y):
        m = param("m", prior.loc)
        S = param("S", jnp.eye(size), support=lower_cholesky)
        Sigma = inverse_wishart.reparam(df, jnp.sqrt(df) * S) @ "Sigma"
        multivariate_normal.reparam(m, Sigma / (prior.strength + total)) @ "mu"
        plate(local, in_axes=(0, 0, None, None), total=total)(x, y, m, S) @ "tasks"

    return model, guide


# ---------------------------------------------------------------------- independent coordinates


def independent(
    network: Network,
    emission: Program,
    prior: NIW,
    *,
    total: int,
    df: float,
    by: vi.QuadraticSolver,
    start: Array,
    precision: Array | float,
) -> tuple[Program, Program]:
    """The same with independent coordinates, for networks: IW of size 1 is an inverse gamma.

    Args:
        start: of the guide's mean m.
        precision: of the weights, df / V, at the start, for each or for all; its logarithm is the
            parameter.
        total, df, by: as above.

    Raises:
        ValueError: `df` or `precision` is not positive.
    """
    precisions = jnp.broadcast_to(jnp.asarray(precision, start.dtype), start.shape)
    if not (df > 0 and bool(jnp.all(precisions > 0))):
        raise ValueError(f"independent: df {df} and precision {precision} must be positive")

    @gen
    def task(x, mu, variance):
        weights = normal(mu, jnp.sqrt(variance)) @ "weights"
        emission(network(weights, x)) @ inline("y")

    @gen
    def model(x):
        variance = inverse_gamma(prior.df / 2, prior.scale / 2) @ "variance"
        mu = normal(prior.loc, jnp.sqrt(variance / prior.strength)) @ "mu"
        plate(task, in_axes=(0, None, None), total=total)(x, mu, variance) @ "tasks"

    @gen
    def local(x, y, m, sd):
        quadratic = vi.local_quadratic(data_loss(network, emission, x, y), start=m, by=by)
        mean, variance = quadratic.posterior(m, sd)
        normal.reparam(mean, jnp.sqrt(variance)) @ "weights"

    @gen
    def guide(x, y):
        m = param("m", start)
        sd = jnp.exp(-param("log_precision", jnp.log(precisions)) / 2)  # V = df sd^2
        variance = inverse_gamma.reparam(df / 2, df / 2 * sd**2) @ "variance"
        normal.reparam(m, jnp.sqrt(variance / (prior.strength + total))) @ "mu"
        plate(local, in_axes=(0, 0, None, None), total=total)(x, y, m, sd) @ "tasks"

    return model, guide


def bound(model: Program, guide: Program, total: int) -> vi.Objective:
    """The evidence lower bound per task, in nats, of a batch `(x, y)` of tasks.

    With `rewrites="closed_form"` what remains of the hierarchy is E KL(q_i || N(mu, Sigma)) and
    KL(q || p) / N by formula (card, 2.2), and one draw of each task's weights for its likelihood.
    """

    @vi.objective
    def niw_meta(x, y):
        z, log_q = sim(guide)(x, y)
        return (density(model)(merge_choices(z, {"tasks": {"y": y}}), x) - log_q) / total

    return niw_meta


def new_task(network: Network, emission: Program) -> tuple[Program, Program]:
    """A task at test time under a Gaussian prior (the mode of q), and a Gaussian guide."""

    @gen
    def model(x, loc, scale):
        weights = normal(loc, scale) @ "weights"
        emission(network(weights, x)) @ inline("y")

    @gen
    def guide(x, loc, scale):
        mean, log_scale = (
            param("mean", jnp.zeros_like(loc)),
            param("log_scale", -jnp.ones_like(loc)),
        )
        normal.reparam(mean, jnp.exp(log_scale)) @ "weights"

    return model, guide


# ---------------------------------------------------------------------------------------- MAML


def adapt(loss: Callable[[Array], Array], weights: Array, steps: int, step_size: float) -> Array:
    """Gradient descent that is differentiated through (Finn et al. 2017): the inner loop."""

    def step(weights: Array, _: None) -> tuple[Array, None]:
        return weights - step_size * jax.grad(loss)(weights), None

    return lax.scan(step, weights, None, length=steps)[0]


def maml(
    network: Network, emission: Program, start: Array, *, steps: int, step_size: float
) -> vi.Objective:
    """Mean log-likelihood of the query points after `steps` inner steps on the support points.

    The inner loss is the mean over the support points. Outputs of the query points come last.
    """

    @vi.objective
    def maml(x, y, query_x, query_y):
        weights = param("start", start)

        def task(x, y, query_x, query_y):
            loss = lambda w: data_loss(network, emission, x, y)(w) / len(y)
            outputs = network(adapt(loss, weights, steps, step_size), query_x)
            return density(emission)({"y": query_y}, last_rows(outputs, query_x, query_y)) / len(
                query_y
            )

        return jnp.mean(jax.vmap(task)(x, y, query_x, query_y))

    return maml


def last_rows(outputs: Array, x: Any, y: Array) -> Array:
    """The outputs of the points `y`, which are the last ones of `x`."""
    points = len(jax.tree.leaves(x)[0])
    return outputs.reshape(points, -1)[points - len(y) :].ravel()
