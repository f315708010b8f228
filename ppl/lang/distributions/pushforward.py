"""Distributions pushed through a bijection: log-normals, mixtures of positive numbers, and the
factors of mean-field guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.errors import ShapeError
from ppl.lang.distribution import Distribution, make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions.normal import log_density_of_noise, normal
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_normal
from ppl.lang.supports import Support, image_of, real, vector


def pushforward(base: Distribution, through: Support | Callable[[], Any]) -> Distribution:
    """The law of `f(x)` for `x` from `base`, with the density p(x) / |det f'(x)|.

    Args:
        base: a continuous distribution, mixtures included.
        through: f: a function without arguments that makes a TFP bijector (a class such as
            `tfb.Exp` is one), or a support, for its own map from unconstrained reals.

    Returns:
        a distribution with the parameters of `base`. Its draws can be differentiated where those of
        `base` can.

    Raises:
        TypeError: `base` is discrete, or the support is.
        ShapeError (when used): f takes values of higher rank than a draw of `base` has.

    >>> from tensorflow_probability.substrates.jax import bijectors as tfb
    >>> round(float(pushforward(normal, tfb.Exp).log_prob(2.0, 0.0, 1.0)), 4)  # log-normal
    -1.8523
    """
    family = base.family.value
    if family.kind != "float":
        raise TypeError(f"pushforward: {family.name} is discrete; a density needs numbers")
    if not isinstance(through, Support):
        return make_distribution(_push(family, through, None, None))
    if through.bijector is None:
        raise TypeError(f"pushforward: no bijection maps the real numbers onto {through.name}")
    return make_distribution(_push(family, through.bijector, through, None))


def pushforward_normal(support: Support, event_shape: tuple[int, ...] = ()) -> Distribution:
    """The law of `support.constrain(loc + scale * noise)` with standard normal noise.

    Args:
        support: a continuous support.
        event_shape: shape of one element of the support (`()` for numbers).

    Returns:
        a distribution with parameters `loc` and `scale` in the shape of the unconstrained
        element (for a simplex of 3: `[2]`).
    """
    if support is real and not event_shape:
        return normal  # its closed forms, too
    assert support.bijector is not None
    inner = support.bijector().inverse_event_shape(event_shape) if event_shape else ()
    base = _normal_arrays(len(inner)) if len(inner) else normal.family.value
    return make_distribution(_push(base, support.bijector, support, f"normal on {support.name}"))


def _push(
    base: Family, bijector: Callable[[], Any], support: Support | None, name: str | None
) -> Family:
    # Bijectors are made anew at each use: they hold constants, and those of one trace are no use
    # to another.
    name = name or f"{bijector().name} of {base.name}"

    def inner_shape(params: dict[str, Array]) -> tuple[int, ...]:
        return tuple(base.event_shape({n: p.shape for n, p in params.items()}))

    def event_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        return _outer_shape(bijector, base, tuple(base.event_shape(shapes)))

    def support_of(**params: Array) -> Support:
        return support or image_of(bijector, base.support_of(params), inner_shape(params))

    def log_volume(x: Array, params: dict[str, Array]) -> Array:
        return bijector().forward_log_det_jacobian(x, event_ndims=len(inner_shape(params)))

    def sample(key: Array, shape: tuple[int, ...], **params: Array) -> Array:
        return bijector().forward(base.sample(key, shape, **params))

    def sample_with_log_density(
        key: Array, shape: tuple[int, ...], **params: Array
    ) -> tuple[Array, Array]:
        assert base.sample_with_log_density is not None
        x, log_density = base.sample_with_log_density(key, shape, **params)
        return bijector().forward(x), log_density - log_volume(x, params)

    def log_density(value: Array, **params: Array) -> Array:
        event = event_shape({n: p.shape for n, p in params.items()})
        domain, inner = support_of(**params), range(-len(inner_shape(params)), 0)
        # On a closed boundary the inverse is infinite, and differences of infinities are NaN.
        finite = jnp.all(jnp.isfinite(bijector().inverse(value)), tuple(inner))
        inside = domain.check(value) & finite
        axes = tuple(range(-len(event), 0))
        safe = jnp.where(jnp.expand_dims(inside, axes), value, domain.example(event))
        x = bijector().inverse(safe)
        return only_where(inside, base.log_density(x, **params) - log_volume(x, params))

    return Family(
        name,
        base.parameters,
        sample,
        log_density,
        sample_with_log_density=base.sample_with_log_density and sample_with_log_density,
        support=support or support_of,
        event_shape=event_shape,
        reparam=base.reparam,
        plan_reparam=base.plan_reparam,
        alternatives=base.alternatives,
        defaults=base.defaults,
        noise=base.noise,
        noise_event_shape=base.noise_event_shape or base.event_shape,
    )


def _outer_shape(
    bijector: Callable[[], Any], base: Family, inner: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of the image of a draw.

    Raises:
        ShapeError: draws have too low a rank for the bijector.
    """
    found: list[tuple[int, ...]] = []

    def make() -> None:
        f = bijector()
        if f.forward_min_event_ndims > len(inner):
            raise ShapeError(
                f"{f.name} cannot be applied to draws of {base.name}",
                because=f"it takes arrays of rank {f.forward_min_event_ndims}, and a draw has the "
                f"shape {inner}",
                fix="use a distribution over vectors, such as multivariate_normal_diag",
            )
        found.append(tuple(f.forward_event_shape(inner)))

    jax.eval_shape(make)  # shapes are asked for where JAX lets nothing be computed
    return found[-1]


def _normal_arrays(rank: int) -> Family:
    """Arrays of independent normals as one draw each."""
    axes = tuple(range(-rank, 0))

    def draw(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> tuple[Array, Array]:
        event = event_shape({"loc": loc.shape, "scale": scale.shape})
        noise = standard_normal(key, (*shape, *event), jnp.result_type(loc, scale))
        return loc + scale * noise, jnp.sum(log_density_of_noise(noise, scale), axes)

    def log_density(value: Array, loc: Array, scale: Array) -> Array:
        return jnp.sum(log_density_of_noise((value - loc) / scale, scale), axes)

    def event_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        return jnp.broadcast_shapes(*(s[-rank:] for s in shapes.values()))

    return Family(
        f"rank-{rank} normal",
        {"loc": rank, "scale": rank},
        lambda key, shape, **params: draw(key, shape, **params)[0],
        log_density,
        sample_with_log_density=draw,
        support=vector(real, rank),
        event_shape=event_shape,
        reparam="explicit",
        noise=standard_normal,
    )
