"""The no-U-turn sampler: of a log-density, and from a fit's posterior, to check the fit or to go on
from it. Needs the `bench` extra.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Key, PyTree

from ppl.lang.bind_params import bind_params
from ppl.lang.density import density
from ppl.lang.observed import flat_choices, merge_observed
from ppl.vi.guides._latents import Layout, latents, nest
from ppl.vi.summary import Summary, summarize


@dataclass(frozen=True)
class Chains:
    """Draws of NUTS.

    Attributes:
        draws: the model's choices, `[chains, draws, ...]`.
        rhat: potential scale reduction of each choice (Gelman and Rubin 1992), near 1 if the
            chains agree.
        ess: effective sample size of each choice, of all chains together.
        divergences: number of divergent transitions.
    """

    draws: PyTree[Array]
    rhat: PyTree[np.ndarray]
    ess: PyTree[np.ndarray]
    divergences: int

    @property
    def merged(self) -> PyTree[Array]:
        """All draws along one axis."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self.draws)

    def summary(self, *, max_entries: int = 20) -> Summary:
        """Moments and quantiles of all draws."""
        return summarize(self.merged, max_entries=max_entries)

    def __repr__(self) -> str:
        chains, draws = jax.tree.leaves(self.draws)[0].shape[:2]
        worst = max(float(np.max(x)) for x in jax.tree.leaves(self.rhat))
        return (
            f"<Chains: {chains} of {draws} draws, R-hat up to {worst:.3f}, "
            f"{self.divergences} divergences>"
        )


def nuts(
    key: Key[Array, ""],
    log_density: Callable[[Float[Array, " n"]], Array],
    start: Float[Array, " n"],
    *,
    num_warmup: int,
    num_samples: int,
    variances: Float[Array, " n"] | None = None,
) -> tuple[Float[Array, "draws n"], Bool[Array, " draws"]]:
    """One chain of the no-U-turn sampler (BlackJAX); a pure function, under `jit` and `vmap` too.

    Args:
        log_density: of real vectors, up to a constant.
        num_warmup: steps in which step size and mass matrix are adapted (by windows, as Stan
            does); they are not among the draws.
        variances: the first guess of the posterior's variances; ones if `None`.

    Returns:
        the draws, and which transitions diverged.

    Raises:
        ImportError: BlackJAX is not installed.
    """
    try:
        import blackjax
    except ImportError as error:
        raise ImportError(
            "NUTS needs BlackJAX: install the extra with `pip install 'ppl[bench]'` or "
            "`uv sync --extra bench`"
        ) from error
    warm_key, key = jax.random.split(key)
    adapt: Any = blackjax.window_adaptation(
        blackjax.nuts, log_density, initial_inverse_mass_matrix=variances
    )
    (state, tuned), _ = adapt.run(warm_key, start, num_warmup)
    kernel: Any = blackjax.nuts(log_density, **tuned)

    def step(state: Any, key: Key[Array, ""]) -> tuple[Any, tuple[Array, Array]]:
        info: Any
        state, info = kernel.step(key, state)
        return state, (state.position, info.is_divergent)

    return lax.scan(step, state, jax.random.split(key, num_samples))[1]


def nuts_of_model(
    model: Any,
    observed: Any,
    args: tuple[Any, ...],
    params: dict[str, Any],
    points: dict[str, Array],
    key: Key[Array, ""],
    *,
    chains: int,
    num_warmup: int,
    num_samples: int,
) -> Chains:
    """Chains of `nuts` over a model's unobserved choices.

    Args:
        params: values of the model's own parameters.
        points: choices, `[n, ...]`; the first ones start a chain each, and the spread of all is
            the first guess of the mass matrix.

    Raises:
        ImportError: BlackJAX is not installed.
        UnsupportedError: a choice is discrete.
    """
    layout = Layout.of(latents(model, observed, args))

    def log_density(flat: Array) -> Array:
        values, log_det = layout.constrain(flat)
        choices = merge_observed(nest(values), observed)
        return bind_params(density(model), params)(choices, *args) + log_det

    flat = flat_choices(points)
    guesses = jax.vmap(layout.unconstrain)(flat)
    starts, spread = guesses[:chains], jnp.var(guesses, 0) + 1e-6
    keys = jax.random.split(key, len(starts))

    def chain(key: Key[Array, ""], start: Array) -> tuple[Array, Array]:
        steps = {"num_warmup": num_warmup, "num_samples": num_samples}
        return nuts(key, log_density, start, variances=spread, **steps)

    positions, diverged = jax.jit(jax.vmap(chain))(keys, starts)
    from blackjax.diagnostics import effective_sample_size, potential_scale_reduction

    draws = jax.jit(jax.vmap(jax.vmap(lambda x: layout.constrain(x)[0])))(positions)
    return Chains(
        nest(draws),
        nest({a: np.asarray(potential_scale_reduction(x)) for a, x in draws.items()}),
        nest({a: np.asarray(effective_sample_size(x)) for a, x in draws.items()}),
        int(diverged.sum()),
    )
