"""Sides made with other systems, imported when first used: they need not be installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.task import Side


class Lazy:
    """A module that is imported when one of its names is asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


numpyro = Lazy("numpyro")
dist = Lazy("numpyro.distributions")
control_flow = Lazy("numpyro.contrib.control_flow")
enumeration = Lazy("numpyro.contrib.funsor")
adev = Lazy("genjax.adev")
genjax = Lazy("genjax")
pjax = Lazy("genjax.pjax")
tfp = Lazy("tensorflow_probability.substrates.jax")

TRACE, GRAPH, ENUM = "NumPyro Trace_ELBO", "NumPyro TraceGraph_ELBO", "NumPyro TraceEnum_ELBO"
GENJAX, TFP = "GenJAX", "TFP"


def by_numpyro(
    objective: str, model: Callable, guide: Callable, particles: int = 1, **options: Any
) -> Side:
    """A side by NumPyro's `SVI`: the loss of one of its objectives, and JAX's gradient of it.

    `model` and `guide` take the data; they get the parameters by `numpyro.param(name)`.
    """

    def side(data):
        if objective == ENUM:
            importlib.import_module("funsor")  # asked for here, to fail before any work
        infer = importlib.import_module("numpyro.infer")
        elbo = getattr(infer, objective.removeprefix("NumPyro "))(particles, **options)
        loss = lambda key, params, data: elbo.loss(key, params, model, guide, data)
        return jax.value_and_grad(loss, argnums=1)

    return side


def by_genjax(elbo: Callable[[Any, Any], Any], particles: int = 1) -> Side:
    """A side by GenJAX's gradient estimator of an expectation.

    Args:
        elbo: from parameters and data, with draws from `genjax.adev`'s distributions.
        particles: independent estimates that are averaged.
    """

    def side(data):
        def one(key, params, data):
            expectation = adev.expectation(lambda params: -elbo(params, data))
            value = lambda params: adev.invoke_closed_over(expectation, (params,))
            return pjax.seed(jax.value_and_grad(value))(key, params)

        def gradient(key, params, data):
            if particles == 1:
                return one(key, params, data)
            keys = jax.random.split(key, particles)
            estimates = jax.vmap(one, (0, None, None))(keys, params, data)
            return jax.tree.map(lambda x: jnp.mean(x, 0), estimates)

        return gradient

    return side


def by_tfp(
    log_joint: Callable[[Any], Callable], posterior: Callable[[Any], Any], particles: int = 1
) -> Side:
    """A side by `tfp.vi.monte_carlo_variational_loss`.

    Args:
        log_joint: from the data, a function of the latent variables.
        posterior: from the parameters, the surrogate distribution.
    """

    def side(data):
        def loss(key, params, data):
            return tfp.vi.monte_carlo_variational_loss(
                log_joint(data), posterior(params), sample_size=particles, seed=key
            )

        return jax.value_and_grad(loss, argnums=1)

    return side
