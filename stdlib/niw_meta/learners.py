"""Training and test-time use of the hierarchy and of MAML, by `vi.fit` and `vi.compile`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Key

from ppl import Program, vi
from stdlib.niw_meta.programs import (
    NIW,
    Network,
    adapt,
    bound,
    data_loss,
    independent,
    last_rows,
    maml,
    new_task,
)

TASKS_PER_STEP = 4


class Learned(NamedTuple):
    """A prior of the weights of new tasks: independent normals.

    Attributes:
        loc: m, `[weights]`.
        scale: standard deviations of the mode of q: sqrt(V / (df + 3)).
        fit: what `vi.fit` returned.
    """

    loc: Float[Array, " weights"]
    scale: Float[Array, " weights"]
    fit: vi.Fit


def learn_prior(
    network: Network,
    emission: Program,
    start: Array,
    data: tuple[Any, ArrayLike],
    *,
    steps: int,
    by: vi.QuadraticSolver,
    precision: Array | float = 1e3,
    df: float = 100.0,
    rate: float = 1e-3,
) -> Learned:
    """Train m and the precisions by one visit to each task.

    Args:
        data: x and y of all tasks, `[tasks, ...]`; as many as are visited.
        precision: df / V at the start. Low ones drown the signal in the draws of the weights.
        rate: learning rate of m; that of the log-precisions is 0.02.
    """
    total, size = np.shape(data[1])[0], len(start)
    prior = NIW(jnp.zeros(size), 0.01, jnp.full(size, 1e-3), 1.0)
    options: dict[str, Any] = {"by": by, "start": start, "precision": precision}
    model, guide = independent(network, emission, prior, total=total, df=df, **options)
    rates = {"m": rate, "log_precision": 2e-2}
    optimizer = optax.chain(
        optax.clip_by_global_norm(1000.0),
        optax.partition(
            {n: optax.adam(optax.cosine_decay_schedule(r, steps)) for n, r in rates.items()},
            {n: n for n in rates},
        ),
    )
    fit = vi.fit(
        bound(model, guide, total),
        data,
        batch_size=TASKS_PER_STEP,
        steps=steps,
        optimizer=optimizer,
        rewrites="closed_form",
    )
    variance = jnp.exp(-fit.params["log_precision"]) * df / (df + 3)
    return Learned(fit.params["m"], jnp.sqrt(variance), fit)


def learn_start(
    network: Network,
    emission: Program,
    start: Array,
    data: tuple[Any, ArrayLike, Any, ArrayLike],
    *,
    steps: int,
    inner: int,
    step_size: float,
    rate: float = 1e-3,
) -> vi.Fit:
    """Train MAML's start weights; without inner steps, one network for all tasks."""
    return vi.fit(
        maml(network, emission, start, steps=inner, step_size=step_size),
        data,
        batch_size=TASKS_PER_STEP,
        steps=steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(rate, steps)),
    )


# ------------------------------------------------------------------------------- new tasks


def posterior_draws(
    network: Network,
    emission: Program,
    learned: Learned,
    support: tuple[Any, ArrayLike],
    query_x: Any,
    query_y: ArrayLike,
    key: Key[Array, ""],
    *,
    steps: int = 200,
    draws: int = 20,
    rate: float = 1e-2,
) -> Float[Array, "tasks draws outputs"]:
    """Outputs of the query points by draws of each new task's posterior (card, 2.6).

    The posterior is a variational fit to the support under the mode of q: `steps` of Adam from the
    prior's mean, on the program `new_task`.
    """
    model, guide = new_task(network, emission)
    optimizer = optax.adam(rate)
    args = lambda x: (x, learned.loc, learned.scale)
    first = jax.tree.map(lambda a: a[0], support)
    program = vi.elbo(model, guide, observed={"y": first[1]}, args=args(first[0]))
    estimator = vi.compile(program, rewrites="closed_form")

    def task(x: Any, y: Array, query_x: Any, query_y: Array, key: Array) -> Array:
        def step(state: Any, key: Array) -> tuple[Any, None]:
            params, moments = state
            gradient = estimator.grad(key, params, {"y": y}, args(x))
            minus = jax.tree.map(jnp.negative, gradient)
            updates, moments = optimizer.update(minus, moments, params)
            return (optax.apply_updates(params, updates), moments), None

        params = {"mean": learned.loc, "log_scale": jnp.log(learned.scale)}
        fit_key, draw_key = jax.random.split(key)
        keys = jax.random.split(fit_key, steps)
        (params, _), _ = lax.scan(step, (params, optimizer.init(params)), keys)
        scale = jnp.exp(params["log_scale"])
        return _outputs(network, draw_key, draws, params["mean"], scale, query_x, query_y)

    keys = jax.random.split(key, np.shape(query_y)[0])
    return jax.jit(jax.vmap(task))(*support, query_x, query_y, keys)


def closed_form_draws(
    network: Network,
    emission: Program,
    learned: Learned,
    support: tuple[Any, ArrayLike],
    query_x: Any,
    query_y: ArrayLike,
    key: Key[Array, ""],
    *,
    by: vi.QuadraticSolver,
    draws: int = 20,
) -> Float[Array, "tasks draws outputs"]:
    """The same by the training's closed form on the support: no optimisation at all."""

    def task(x: Any, y: Array, query_x: Any, query_y: Array, key: Array) -> Array:
        loss = data_loss(network, emission, x, y)
        quadratic = vi.local_quadratic(loss, learned.loc, by=by)
        mean, variance = quadratic.posterior(learned.loc, learned.scale)
        return _outputs(network, key, draws, mean, jnp.sqrt(variance), query_x, query_y)

    keys = jax.random.split(key, np.shape(query_y)[0])
    return jax.jit(jax.vmap(task))(*support, query_x, query_y, keys)


def _outputs(
    network: Network,
    key: Key[Array, ""],
    draws: int,
    mean: Float[Array, " weights"],
    scale: Float[Array, " weights"],
    query_x: Any,
    query_y: Array,
) -> Float[Array, "draws outputs"]:
    """Outputs of the query points by draws of normal weights."""
    weights = mean + scale * jax.random.normal(key, (draws, len(mean)))
    return jax.vmap(lambda w: last_rows(network(w, query_x), query_x, query_y))(weights)


def adapted_outputs(
    network: Network,
    emission: Program,
    start: Array,
    support: tuple[Any, ArrayLike],
    query_x: Any,
    query_y: ArrayLike,
    *,
    steps: int,
    step_size: float,
) -> Float[Array, "tasks 1 outputs"]:
    """Outputs of the query points after MAML's inner steps: a point estimate, one draw."""

    def task(x: Any, y: Array, query_x: Any, query_y: Array) -> Array:
        loss = lambda w: data_loss(network, emission, x, y)(w) / len(y)
        weights = adapt(loss, start, steps, step_size)
        return last_rows(network(weights, query_x), query_x, query_y)[None]

    return jax.jit(jax.vmap(task))(*support, query_x, query_y)
