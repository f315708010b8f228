"""Natural gradients: steps measured by how much the guide changes, not its parameters.

The Fisher matrix of a guide is the curvature, at the same parameters, of the divergence between
the guide and itself with other parameters. Given the values of all earlier choices, a choice's own
divergence is a closed form of its family (TFP's `kl_divergence`), so the sum of these is too where
no choice's parameters depend on another choice (mean-field and full-rank guides), and an unbiased
estimate, from one draw, where they do. Its products with vectors come from `jax.jvp`; the matrix
itself is made only for small guides.

Source: Amari (1998); Khan and Nielsen (arXiv 1807.04489); Martens (arXiv 1412.1193).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree
from tensorflow_probability.substrates import jax as tfp

from ppl.errors import UnsupportedError
from ppl.lang.bind_params import bind_params
from ppl.lang.density import density, sim
from ppl.lang.family import Family
from ppl.lang.primitives import replacing_log_densities
from ppl.lang.seed import seed

_DENSE = 256
"""Up to so many parameters the Fisher matrix is made, and solved directly."""


def divergence(
    family: Family, old: dict[str, Array], new: dict[str, Array], address: str = ""
) -> Float[Array, "*lanes"]:
    """KL(old || new) of a family, in nats, one number per lane.

    Raises:
        UnsupportedError: no closed form is known.
    """
    base = family.tfp
    if base is None and family.name.startswith("normal on "):  # a bijection changes no divergence
        rank = family.parameters["loc"]
        lanes = divergence(_normal(), old, new, address)
        return jnp.sum(lanes, tuple(range(-rank, 0))) if rank else lanes
    if base is not None:
        try:
            return tfp.distributions.kl_divergence(base(**old), base(**new))
        except NotImplementedError:
            pass
    raise UnsupportedError(
        f"no closed form of the divergence of {family.name} is known",
        address=address,
        because="natural gradients need the Fisher matrix of each family of the guide",
        fix="use an optimiser that needs none (optax.adam), or a guide of normals, flips, "
        "categoricals and other families that TFP has a divergence for",
    )


def _normal() -> Family:
    from ppl.lang.distributions import normal

    return normal.family.value


def fisher_product(
    guide: Any,
    args: tuple[Any, ...],
    key: Key[Array, ""],
    params: PyTree,
    constrain: Callable[[PyTree], dict[str, Any]],
) -> Callable[[PyTree], PyTree]:
    """`v -> F v`, with F the Fisher matrix of a guide at `params`.

    Args:
        key: of the draw at which choices that depend on other choices are looked at.
        params: unconstrained; `constrain` maps them to values by name.
    """
    at = constrain(jax.lax.stop_gradient(params))
    choices = seed(bind_params(lambda: sim(guide)(*args)[0], at))(key)
    choices = jax.lax.stop_gradient(choices)

    def total(new: PyTree) -> Float[Array, ""]:
        """The divergence, at these choices, of the guide with parameters `new` from itself."""
        seen: list[str] = []

        def own(family: Family, value: Array, params: dict[str, Array], address: str) -> Array:
            del value
            seen.append(address)
            # The curvature is that of the second argument alone: the first has no derivative.
            return divergence(family, jax.lax.stop_gradient(params), params, address)

        with replacing_log_densities(own):
            result = bind_params(density(guide), constrain(new))(choices, *args)
        if not seen:
            raise UnsupportedError(
                "natural gradients need a guide whose choices are families of the language",
                fix="use another optimiser, optax.adam(1e-2)",
            )
        return result

    return lambda v: jax.jvp(jax.grad(total), (params,), (v,))[1]


class NaturalGradientState(NamedTuple):
    """Nothing; by its type an optimiser's state says that it wants the guide's Fisher matrix."""


def wants_fisher(optimizer_state: Any) -> bool:
    """Whether a natural gradient is part of an optimiser, by the optimiser's state."""
    is_ours = lambda x: isinstance(x, NaturalGradientState)
    return any(map(is_ours, jax.tree.leaves(optimizer_state, is_leaf=is_ours)))


def natural_gradient(
    learning_rate: float = 0.1,
    *,
    damping: float = 1e-4,
    trust: float = 0.1,
    iterations: int = 50,
) -> optax.GradientTransformationExtraArgs:
    """Steps along the natural gradient, `-learning_rate (F + damping I)^-1 gradient`.

    For the optimiser of `vi.fit`, whose objective must know its guide (`vi.elbo`, ...). For
    decreasing rates or clipped steps give `learning_rate=1.0`, and chain it:
    `optax.chain(vi.natural_gradient(1.0), optax.scale_by_schedule(...))`.

    Args:
        learning_rate: 1 would jump to the optimum of a conjugate model, were there no noise.
        damping: keeps steps finite in directions that hardly change the guide.
        trust: no step changes the guide by more than so many nats for each parameter, to second
            order: far from the optimum a whole step could be of any length.
        iterations: of conjugate gradients at each step, for guides of more than 256 parameters;
            for smaller ones the equations are solved directly.

    Raises (when run):
        UnsupportedError: the objective has no guide, or a family of it has no known divergence.
    """

    def update(updates: Any, state: Any, params: Any = None, *, fisher: Any = None, **_: Any):
        if fisher is None:
            raise TypeError("natural_gradient is an optimiser for vi.fit, which gives it the guide")
        product = fisher()
        flat, unravel = ravel_pytree(updates)
        times = lambda v: ravel_pytree(product(unravel(v)))[0] + damping * v
        if flat.size <= _DENSE:
            matrix = jax.vmap(times)(jnp.eye(flat.size, dtype=flat.dtype))
            step = jax.scipy.linalg.solve(matrix, flat, assume_a="pos")
        else:
            step = jax.scipy.sparse.linalg.cg(times, flat, maxiter=iterations)[0]
        moved = 0.5 * learning_rate**2 * jnp.vdot(step, flat)  # divergence of the step, nearly
        rate = learning_rate * jnp.minimum(1, jnp.sqrt(trust * flat.size / (moved + 1e-30)))
        return unravel(-rate * step), state

    return optax.GradientTransformationExtraArgs(lambda params: NaturalGradientState(), update)
