"""Mixtures of distributions of one family."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.errors import ShapeError
from ppl.lang.distribution import Distribution, make_distribution
from ppl.lang.distributions._tfp import quiet
from ppl.lang.distributions.categorical import log_probs_of
from ppl.lang.family import Family
from ppl.lang.supports import Support


def mixture_same_family(component: Distribution, *, given: tuple[str, ...] = ()) -> Distribution:
    """A mixture of K distributions from the family of `component`.

    Args:
        component: the family, as one of its distributions: `normal`, `dirichlet`, ...
        given: for families with alternative parameters, which ones are used; the first
            alternative if none is named (`logits`, `rate`).

    Returns:
        A distribution with the parameters `logits` (or, by name, `probs`, which must sum to 1):
        the mixing weights, of shape `[..., K]`; and the component's own, each with the axis `K`
        in front of its event axes. If the component itself has `logits` or `probs`, the weights
        are called `mixture_logits` and `mixture_probs`.

    Draws can be differentiated (implicitly, through the mixture's CDF) where the component is a
    number with a smooth density on a fixed interval; otherwise they cannot.

    >>> from ppl.lang.distributions import normal
    >>> two_normals = mixture_same_family(normal)
    >>> x = two_normals.log_prob(0.0, jnp.zeros(2), jnp.array([-1.0, 1.0]), jnp.ones(2))
    >>> round(float(x), 4)
    -1.4189
    """
    return make_distribution(_mixture_of(component.family.value, tuple(given)))


@functools.cache
def _mixture_of(part: Family, given: tuple[str, ...]) -> Family:
    names = _component_parameters(part, given)
    clash = {"logits", "probs"} & set(names)
    logits, probs = ("mixture_logits", "mixture_probs") if clash else ("logits", "probs")
    ranks = {n: part.parameters[n] + 1 for n in names}
    parameters = {logits: 1, **ranks, probs: 1}

    def split(params: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        weights = log_probs_of(params.get(logits), params.get(probs))
        return weights, {n: params[n] for n in names if n in params}

    def sample(key: Array, shape: tuple[int, ...], **params: Array) -> Array:
        index_key, key = jax.random.split(key)
        weights, own = split(params)
        index = jax.random.categorical(index_key, weights, shape=shape)
        chosen = {n: _choose(p, index, part.parameters[n], len(shape)) for n, p in own.items()}
        draw = part.sample(key, shape, **chosen)
        return follow(lax.stop_gradient(draw), params) if cdf else draw

    def log_density(value: Array, **params: Array) -> Array:
        weights, own = split(params)
        rank = len(event_shape({n: p.shape for n, p in params.items()}))
        value = jnp.expand_dims(value, value.ndim - rank)
        return _log_sum_exp(weights + part.log_density(value, **own))

    def event_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        sizes = {n: s[len(s) - parameters[n]] for n, s in shapes.items()}
        if len(set(sizes.values()) - {1}) > 1:
            raise ShapeError(
                f"mixture of {part.name}: the parameters have different numbers of components",
                because=f"their axes over components have the sizes {sizes}",
            )
        own = {n: _drop_axis(s, part.parameters[n]) for n, s in shapes.items() if n in names}
        return part.event_shape(own)

    @jax.custom_jvp
    def follow(draw: Array, params: dict[str, Array]) -> Array:
        """`draw`, moving with the parameters such that the CDF's value stays the same."""
        return draw

    @follow.defjvp
    def follow_jvp(primals, tangents):
        draw, params = primals

        def mixture_cdf(params):
            weights, own = split(params)
            return jnp.sum(jnp.exp(weights) * cdf(draw[..., None], own), -1)

        slope = jax.jvp(mixture_cdf, (params,), (tangents[1],))[1]
        return draw, tangents[0] - slope * jnp.exp(-log_density(draw, **params))

    def support(**params: Array) -> Support:
        return _union(part.support_of({n: p for n, p in params.items() if n in names}))

    cdf = _cdf_of(part)
    return Family(
        f"mixture of {part.name}",
        parameters,
        sample,
        log_density,
        support=part.support if isinstance(part.support, Support) else support,
        event_shape=event_shape,
        kind=part.kind,
        reparam="implicit" if cdf else None,
        alternatives=frozenset({logits, probs}),
        defaults={
            n: np.reshape(v, (1,) * ranks[n])
            for n, v in (part.defaults or {}).items()
            if n in names
        },
    )


def _component_parameters(part: Family, given: tuple[str, ...]) -> list[str]:
    """The component's parameters, one of each set of alternatives.

    Raises:
        ValueError: `given` names no parameter of the component, or two alternatives.
    """
    if unknown := sorted(set(given) - set(part.parameters)):
        raise ValueError(
            f"mixture_same_family: {part.name} has no parameter {unknown}; "
            f"it takes {list(part.parameters)}"
        )
    used = [n for n in part.parameters if n in part.alternatives and n in given]
    if len(used) > 1:
        raise ValueError(f"mixture_same_family: {part.name} takes only one of {used}")
    used = used or [n for n in part.parameters if n in part.alternatives][:1]
    return [n for n in part.parameters if n not in part.alternatives or n in used]


def _drop_axis(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A component parameter's shape without the axis K."""
    return (*shape[: len(shape) - rank - 1], *shape[len(shape) - rank :])


def _choose(param: Array, index: Array, rank: int, ndim: int) -> Array:
    """The chosen component's entry of a parameter, for each of `ndim` batch axes."""
    param = jnp.reshape(param, (1,) * (ndim + 1 + rank - param.ndim) + param.shape)
    if param.shape[ndim] == 1:
        return jnp.squeeze(param, ndim)
    lanes = np.ix_(*(np.arange(n) for n in param.shape[:ndim]))
    return param.at[(*lanes, index)].get(mode="promise_in_bounds")


def _log_sum_exp(terms: Array) -> Array:
    """Over the last axis; -inf with gradient 0 where all terms are -inf."""
    possible = jnp.any(terms > -jnp.inf, -1)
    total = jax.nn.logsumexp(jnp.where(possible[..., None], terms, 0), -1)
    return jnp.where(possible, total, -jnp.inf)


def _cdf_of(part: Family) -> Callable[[Array, dict[str, Array]], Array] | None:
    """The component's CDF, if draws of a mixture of them can be differentiated through it.

    The support must not depend on the parameters: a draw cannot cross a gap between components.
    """
    numbers = all(rank == 0 for rank in part.parameters.values())
    fixed = isinstance(part.support, Support) and part.support.event_ndims == 0
    if not (part.kind == "float" and part.reparam and numbers and fixed and part.tfp):
        return None

    def cdf(value: Array, params: dict[str, Array]) -> Array:
        with quiet():
            return part.tfp(**params).cdf(value)

    return cdf


def _union(each: Support) -> Support:
    """The union of the components' supports; `each` has them along a last batch axis."""

    def check(value: Array) -> Array:
        return jnp.any(each.check(jnp.expand_dims(value, value.ndim - each.event_ndims)), -1)

    def point(event_shape: tuple[int, ...]) -> Array:
        example = each.example(event_shape)
        axis = example.ndim - each.event_ndims - 1
        return example if axis < 0 else jnp.take(example, 0, axis)

    bounds = each.bounds and (_over(np.min, each.bounds[0]), _over(np.max, each.bounds[1]))
    name = f"mixture of {each.name}"
    return Support(name, each.event_ndims, each.discrete, check, bounds=bounds, point=point)


def _over(reduce: Callable, bound: Any) -> Any:
    return bound if bound is None or np.ndim(bound) == 0 else reduce(bound, -1)
