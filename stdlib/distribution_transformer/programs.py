"""The guide and the objective: q(x | z, prior) trained on what a simulator draws.

    maximise  E log q(x | z, φ) + E log q(x | φ)    over  φ, x, z ~ p(φ) p(x | φ) p(z | x)

The first term's maximum is the posterior, whatever the prior φ (an inclusive divergence, averaged
over priors and data); the second reads the prior back out of its tokens, and so ties priors and
posteriors to one language of tokens. No parameter reaches the simulator, so that its choices need
no gradient strategy; `vi.fit(objective, num_samples=B)` draws B new problems in each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ppl import (
    bind_params,
    categorical,
    density,
    enumeration,
    gen,
    marginal,
    multivariate_normal_tri,
    param,
    pushforward,
    scan,
    sim,
    vi,
)
from stdlib.distribution_transformer.mixture import Mixture, gmm, predict
from stdlib.distribution_transformer.network import (
    DistributionTransformer,
    FamilyPrior,
    MixturePrior,
    NoPrior,
)
from stdlib.distribution_transformer.tasks import Task

Init = Callable[[Key[Array, ""]], DistributionTransformer]


def network(
    task: Task, components: int, *, blind: bool = False, relative: bool = False, **sizes: int
) -> Init:
    """How a network for a task is made, from a random key.

    Args:
        components: k, of the posterior (and of a mixture prior).
        blind: the network is not told the prior.
        relative: a mixture is read out in the coordinates of the prior's components.
        sizes: `width`, `heads`, `layers`, `hidden` of `DistributionTransformer`.
    """
    width = sizes.get("width", 32)

    @eqx.filter_jit  # compiled as a whole: else each kind of array is
    def make(key: Key[Array, ""]) -> DistributionTransformer:
        prior_key, key = jax.random.split(key)
        if blind:
            prior: Any = NoPrior(components, width, key=prior_key)
        elif task.features:
            prior = FamilyPrior(task.features, components, width, key=prior_key)
        else:
            prior = MixturePrior(task.size, width, relative=relative, key=prior_key)
        return DistributionTransformer(
            prior, task.sources, task.size, forecast=task.forecast, key=key, **sizes
        )

    return lambda key: make(key)


def guides(task: Task, init: Init) -> tuple[Any, Any]:
    """The programs q(x | z, φ), called with the prior and the data, and q(x | φ)."""
    law = pushforward(gmm, task.through)

    @gen
    def posterior(prior, data):
        net = param("network", init)
        law(*net(prior, *data)) @ "x"

    @gen
    def reconstruction(prior):
        net = param("network", init)
        law(*net.prior_mixture(prior)) @ "x"

    return posterior, reconstruction


def amortised(task: Task, init: Init) -> vi.Objective:
    """The objective, for one problem drawn at random.

    Source: Whittle et al. (arXiv 2502.02463), section 3: minus the sum of the posterior loss and
    the prior loss.
    """
    posterior, reconstruction = guides(task, init)

    @vi.objective
    def distribution_transformer():
        c, _ = sim(task.joint)()
        x, prior = {"x": task.latent(c)}, task.prior(c)
        return density(posterior)(x, prior, task.data(c)) + density(reconstruction)(x, prior)

    return distribution_transformer


@gen
def labelled(mixture):
    """A mixture spelled out: a component's label, then a draw from the component."""
    label = categorical(mixture.logits) @ "label"
    multivariate_normal_tri(mixture.loc[label], mixture.scale_tril[label]) @ "x"


summed = marginal(labelled, keep="x", by=enumeration())
"""The same law as `gmm`, with the labels summed out by the language."""


def filtering(
    init: Init,
    transition: Float[Array, "n n"],
    noise: Float[Array, "n n"],
    features: Callable[[Any], tuple[Array, ...]],
) -> Any:
    """A filter: each posterior, moved one step on, is the next prior. A program over the states.

    It is called with the first prior and the observations `[steps, ...]`; its density is the
    product of all filtering densities at the states, `{"x": [steps, n]}`, and it returns the
    last prediction and every step's posterior: the scan carries a distribution.

    Args:
        features: from an observation to what the network sees.
    """

    @gen
    def step(prior: Mixture, z: Any):
        posterior = param("network", init)(prior, *features(z))
        gmm(*posterior) @ "x"
        return predict(posterior, transition, noise), posterior

    return scan(step)


def recycled(
    program: Any, prior: Mixture, joint: Any, seen: Callable[[Any], tuple[Array, Any]]
) -> vi.Objective:
    """The objective of a filter as a whole, for one sequence drawn at random.

        maximise  E sum_t log q(x_t | z_1, ..., z_t)   over  x, z ~ joint

    `amortised` learns posteriors for priors of a family; here the priors are those that the filter
    itself makes, so that each posterior is also learned for what the later ones make of it.

    Args:
        program: made by `filtering`.
        prior: the first.
        joint: a program that draws the states and the observations.
        seen: from its choices to the states `[steps, n]` and the observations `[steps, ...]`.
    """

    @vi.objective
    def recycled_filter():
        c, _ = sim(joint)()
        states, z = seen(c)
        return density(program)({"x": states}, prior, z)

    return recycled_filter


def run_filter(
    program: Any, params: dict[str, Any], prior: Mixture, z: Any, states: Float[Array, "steps n"]
) -> tuple[Float[Array, " steps"], Mixture]:
    """Log-densities of the true states, step by step, and the posteriors."""
    assess = bind_params(program.assess, params)
    _, (_, posteriors) = assess({"x": states}, prior, z)
    return gmm.log_prob(states, *posteriors), posteriors


def initial_prior(loc: Float[Array, " n"], scale_tril: Float[Array, "n n"], k: int) -> Mixture:
    """k copies of one normal law, with weights proportional to 1, ..., k.

    Equal tokens would stay equal for ever: the network treats them alike.
    """
    copies = lambda x: jnp.broadcast_to(x, (k, *jnp.shape(x)))
    weights = jnp.arange(1.0, k + 1)
    return Mixture(jnp.log(weights / weights.sum()), copies(loc), copies(scale_tril))
