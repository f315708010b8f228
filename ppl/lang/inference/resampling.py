"""Resampling schemes: distributions over ancestors.

A draw is the vector of all K ancestors, so that its log-probability, which unbiased gradients need,
is that of the whole vector. `retained` is the law of the ancestors of conditional SMC: given that
particle i survives, P(a) = r(a) N_i(a) / (K W_i), with r the scheme, N_i(a) the number of i's
children and W_i its weight; the survivor is then any of i's children (Andrieu, Doucet and
Holenstein 2010, section 4.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.lang.distribution import Distribution, make_distribution
from ppl.lang.family import Family
from ppl.lang.supports import Support

TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Scheme:
    """A resampling scheme.

    Attributes:
        ancestors: draws all ancestors, given the weights.
        retained: draws them, given that one particle survives.
    """

    ancestors: Distribution
    retained: Distribution


def _edges(log_weights: Array) -> tuple[Array, Array]:
    """Where each particle's share of [0, 1) begins and ends."""
    ends = jnp.cumsum(jax.nn.softmax(log_weights, -1), -1)
    ends = ends / ends[..., -1:]
    return jnp.concatenate([jnp.zeros_like(ends[..., :1]), ends[..., :-1]], -1), ends


def _at(points: Array, log_weights: Array) -> Array:
    """The particle in whose share each point lies."""
    ends = _edges(log_weights)[1]
    index = jnp.sum(points[..., :, None] >= ends[..., None, :], -1)
    return jnp.minimum(index, log_weights.shape[-1] - 1).astype(jnp.int32)


def _points(key: Array, shape: tuple[int, ...], k: int, shared: bool) -> Array:
    """One point in each of k equal parts of [0, 1), all at the same place in theirs if shared."""
    u = jax.random.uniform(key, (*shape, 1 if shared else k))
    return (jnp.arange(k) + u) / k


def _overlap(ancestors: Array, log_weights: Array) -> tuple[Array, Array]:
    """Where in its part of [0, 1), as a number in [0, 1], each ancestor's share begins and ends."""
    k = log_weights.shape[-1]
    starts, ends = (jnp.broadcast_to(e, ancestors.shape) for e in _edges(log_weights))
    begin = k * jnp.take_along_axis(starts, ancestors, -1) - jnp.arange(k)
    end = k * jnp.take_along_axis(ends, ancestors, -1) - jnp.arange(k)
    return jnp.maximum(begin, 0.0), jnp.minimum(end, 1.0)


def _log(x: Array) -> Array:
    return jnp.log(jnp.maximum(x, TINY))


def _log_multinomial(ancestors: Array, log_weights: Array) -> Array:
    log_probs = jnp.broadcast_to(jax.nn.log_softmax(log_weights, -1), ancestors.shape)
    return jnp.sum(jnp.take_along_axis(log_probs, ancestors, -1), -1)


def _log_stratified(ancestors: Array, log_weights: Array) -> Array:
    begin, end = _overlap(ancestors, log_weights)
    return jnp.sum(_log(end - begin), -1)


def _log_systematic(ancestors: Array, log_weights: Array) -> Array:
    begin, end = _overlap(ancestors, log_weights)
    return _log(jnp.min(end, -1) - jnp.max(begin, -1))


def _draw_multinomial(key: Array, shape: tuple[int, ...], log_weights: Array) -> Array:
    k = log_weights.shape[-1]
    logits = log_weights[..., None, :]
    return jax.random.categorical(key, logits, shape=(*shape, k)).astype(jnp.int32)


def _keep_multinomial(
    key: Array, shape: tuple[int, ...], log_weights: Array, index: Array
) -> Array:
    key, at = jax.random.split(key)
    others = _draw_multinomial(key, shape, log_weights)
    k = log_weights.shape[-1]
    child = jax.random.randint(at, shape, 0, k)
    return jnp.where(jnp.arange(k) == child[..., None], _column(index, shape), others)


def _draw_by_points(shared: bool) -> Callable[..., Array]:
    def draw(key: Array, shape: tuple[int, ...], log_weights: Array) -> Array:
        return _at(_points(key, shape, log_weights.shape[-1], shared), log_weights)

    return draw


def _keep_by_points(shared: bool) -> Callable[..., Array]:
    def draw(key: Array, shape: tuple[int, ...], log_weights: Array, index: Array) -> Array:
        # A point of the survivor's share decides which child it becomes.
        key, at = jax.random.split(key)
        k = log_weights.shape[-1]
        chosen = _column(index, shape)
        starts, ends = (jnp.broadcast_to(e, (*shape, k)) for e in _edges(log_weights))
        begin, end = (jnp.take_along_axis(e, chosen, -1) for e in (starts, ends))
        point = k * (begin + (end - begin) * jax.random.uniform(at, (*shape, 1)))
        child = jnp.clip(jnp.floor(point), 0, k - 1)
        place = (jnp.arange(k) + point - child) / k
        points = place if shared else _points(key, shape, k, False)
        return jnp.where(jnp.arange(k) == child, chosen, _at(points, log_weights))

    return draw


def _column(index: Array, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(index, shape)[..., None].astype(jnp.int32)


def _scheme(
    name: str,
    draw: Callable[..., Array],
    keep: Callable[..., Array],
    log_prob: Callable[[Array, Array], Array],
) -> Scheme:
    def log_retained(ancestors: Array, log_weights: Array, index: Array) -> Array:
        chosen = jnp.broadcast_to(index, ancestors.shape[:-1])[..., None]
        children = jnp.sum(ancestors == chosen, -1)
        log_probs = jnp.broadcast_to(jax.nn.log_softmax(log_weights, -1), ancestors.shape)
        own = jnp.take_along_axis(log_probs, chosen.astype(jnp.int32), -1)[..., 0]
        count = jnp.log(jnp.maximum(children, 1) / log_weights.shape[-1])
        return log_prob(ancestors, log_weights) + count - own

    common = {
        "support": _indices,
        "event_shape": lambda shapes: shapes["log_weights"][-1:],
        "kind": "int",
    }
    ancestors = Family(
        name, {"log_weights": 1}, draw, lambda value, log_weights: log_prob(value, log_weights),
        **common,
    )  # fmt: skip
    retained = Family(
        f"{name}_retained", {"log_weights": 1, "index": 0}, keep, log_retained, **common
    )
    return Scheme(make_distribution(ancestors), make_distribution(retained))


_indices = Support(
    "indices", 1, True, lambda x: jnp.all(x >= 0, -1), point=lambda shape: jnp.zeros(shape)
)

schemes = {
    "multinomial": _scheme("multinomial", _draw_multinomial, _keep_multinomial, _log_multinomial),
    "stratified": _scheme(
        "stratified", _draw_by_points(False), _keep_by_points(False), _log_stratified
    ),
    "systematic": _scheme(
        "systematic", _draw_by_points(True), _keep_by_points(True), _log_systematic
    ),
}
"""By name: independent ancestors; one in each of K equal parts of the weights; the same with one
random number for all (Douc and Cappe 2005, arXiv cs/0507025)."""
