"""Where a guide starts: the best of several points, by the model's density.

Half of the points are draws from the prior, half lie about the origin of unconstrained space (as
Stan's inits do), since a vague prior rarely draws anything near the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array, Float, Key

from ppl.lang.density import density
from ppl.lang.observed import Choices, PartlyObserved, flat_choices, merge_observed
from ppl.lang.seed import seed
from ppl.lang.trace_type import ChoiceType
from ppl.vi.guides._latents import Layout, is_continuous, nest

_DRAWS = 16
_RADIUS = 1.0


def starting_points(
    model: GFI, latent: Mapping[str, ChoiceType], observed: Choices, args: tuple[Any, ...]
) -> Callable[[Key[Array, ""]], dict[str, Array]]:
    """`key -> address -> unconstrained value` of the continuous choices of a model.

    Of 16 points, the one whose log-density, with that of the data and in unconstrained space, is
    highest; the origin if none is finite.
    """
    layout = Layout.of({a: c for a, c in latent.items() if is_continuous(c)})
    data = flat_choices(observed)
    whole = nest({a: v for a, v in data.items() if not isinstance(v, PartlyObserved)})
    partly = nest({a: v for a, v in data.items() if isinstance(v, PartlyObserved)})
    count = _DRAWS // 2

    @jax.jit
    def start(key: Key[Array, ""], whole: Choices, partly: Choices) -> dict[str, Array]:
        prior_key, noise_key = jax.random.split(key)

        def draw(key: Key[Array, ""]) -> dict[str, Any]:
            tr = seed(lambda: model.simulate(*args).get_choices())(key)
            return {a: v for a, v in flat_choices(tr).items() if a in latent}

        def log_density(flat: Float[Array, " size"], choices: dict[str, Any]) -> Float[Array, ""]:
            values, log_det = layout.constrain(flat)
            z = merge_observed(merge_observed(nest({**choices, **values}), partly), whole)
            return density(model)(z, *args) + log_det

        draws = jax.vmap(draw)(jax.random.split(prior_key, 2 * count))
        from_prior = jax.vmap(layout.unconstrain)(jax.tree.map(lambda x: x[:count], draws))
        shape = (count, layout.size)
        about_zero = jax.random.uniform(noise_key, shape, minval=-_RADIUS, maxval=_RADIUS)
        about_zero = about_zero.at[0].multiply(0.01)
        points = jnp.concatenate([from_prior, about_zero.astype(from_prior.dtype)])
        scores = jax.vmap(log_density)(points, draws)
        good = jnp.isfinite(scores) & jnp.all(jnp.isfinite(points), -1)
        best = points[jnp.argmax(jnp.where(good, scores, -jnp.inf))]
        return layout.split(jnp.where(good.any(), best, 0.0))

    return lambda key: start(key, whole, partly)
