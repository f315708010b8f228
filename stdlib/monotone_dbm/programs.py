"""Model, guides and objectives of monotone Boltzmann machines, as programs.

The machine is an unnormalised program. Its mean-field guide has no parameters of its own: they are
the model's, through an equilibrium. The inner objective is the ELBO, which that guide maximises;
the outer one trains the guide's marginals directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ppl import categorical, density, factor, flip, gen, param, positive, sim, vi
from ppl.vi import Objective
from stdlib.monotone_dbm.coupling import Convolution, Dense, Rows, monotone
from stdlib.monotone_dbm.equilibrium import Clamp, Energy, mean_field
from stdlib.monotone_dbm.layers import Layer, Layers


@gen
def machine(energy: Energy):
    """A Boltzmann machine: log p(x) = 1/2 x^T Phi x + b^T x - log Z, without its log Z."""
    layers = energy.layers.items()
    x = {name: categorical(jnp.zeros((l.nodes, l.states))) @ name for name, l in layers}
    factor(energy(energy.layers.one_hot(x)) + energy.layers.log_states) @ "energy"


@gen
def equilibrium(energy: Energy, clamp: Clamp):
    """Its mean-field guide: independent nodes, with the marginals of the fixed point."""
    q = mean_field(energy, clamp, max_steps=10_000).value
    for name, marginals in energy.layers.split(q).items():
        categorical.enum(probs=marginals) @ name


@gen
def free(energy: Energy, clamp: Clamp):
    """The same family with parameters of its own."""
    values, seen = map(energy.layers.split, clamp)
    for name, layer in energy.layers.items():
        logits = param(f"logits of {name}", jnp.zeros((layer.nodes, layer.states)))
        probs = jnp.where(seen[name], values[name], jax.nn.softmax(logits))
        categorical.enum(probs=probs) @ name


def inner(energy: Energy, clamp: Clamp | None = None, guide: Any = equilibrium) -> Objective:
    """The ELBO of the unobserved nodes; its best product guide is the equilibrium."""
    clamp = energy.layers.clamp({}) if clamp is None else clamp
    return vi.elbo(machine, guide, observed={}, args=(energy,), guide_args=(energy, clamp))


# ------------------------------------------------------------------------ completing images

PIXELS, HIDDEN, LABEL = "pixels", "hidden", "label"


def dense(hidden: int, pixels: int = 64, labels: int = 10) -> tuple[Layers, Callable]:
    """Layers and start of a machine in which every node meets every other one."""
    layers = Layers({PIXELS: Layer(pixels, 2), HIDDEN: Layer(hidden, 2), LABEL: Layer(1, labels)})
    return layers, lambda key: (_dense(key, layers.size, layers),)


def convolutional(
    side: int = 8, groups: int = 3, states: int = 2, features: int = 12, shared: int = 32
) -> tuple[Layers, Callable]:
    """Layers and start of a machine with hidden nodes on the image's grid.

    Convolutions of 3 by 3 couple neighbouring nodes, also within a layer; `shared` rows see all
    nodes, the label among them.
    """
    grid = (side, side)
    layers = Layers(
        {
            PIXELS: Layer(side * side, 2, grid),
            HIDDEN: Layer(side * side * groups, states, grid),
            LABEL: Layer(1, 10),
        }
    )

    def init(key: Array) -> tuple[Rows, ...]:
        one, two, three = jax.random.split(key, 3)
        kernel = lambda key, c: 0.1 * jax.random.normal(key, (features, c, 3, 3))
        local = Convolution({PIXELS: kernel(one, 2), HIDDEN: kernel(two, groups * states)})
        return local, _dense(three, shared, layers)

    return layers, init


def _dense(key: Array, rows: int, layers: Layers) -> Dense:
    return Dense(0.05 * jax.random.normal(key, (rows, layers.size)))


@gen
def corruption(shape: tuple[int, int], keep: float):
    """Which pixels are seen."""
    return flip.score(jnp.full(shape, keep)) @ "seen"


@gen
def completion(fields: Float[Array, "images pixels 2"], seen: Array):
    """The pixels that are not seen, by their marginals."""
    temperature = param("pixel temperature", 10.0, support=positive)
    categorical.mask(~seen)(temperature * fields) @ PIXELS


@gen
def classification(fields: Float[Array, "images labels"]):
    """The labels, by their marginals."""
    temperature = param("label temperature", 4.0, support=positive)
    categorical(temperature * fields) @ LABEL


def outer(
    layers: Layers,
    init: Callable[[Array], tuple[Rows, ...]],
    *,
    margin: float = 0.05,
    tangent: bool = False,
    keep: float = 0.4,
    weight: float = 0.5,
    **solver: Any,
) -> Objective:
    """The pseudo-marginal objective: log-density, under the mean-field marginals given a random
    part of the pixels, of the other pixels and of the label (section 5 of the paper), in nats per
    pixel and per label.

    Args:
        layers, init: of the machine.
        margin, tangent: of its coupling.
        keep: probability that a pixel is seen.
        weight: of the labels; 1 - weight of the pixels.
        solver: options of `ppl.fixed_point`.
    """

    @vi.objective
    def completion_and_classification(images: Array, labels: Array) -> Array:
        energy = parametrised(layers, init, margin, tangent)
        seen = sim(corruption)(images.shape, keep)[0]["seen"]
        fields = jax.vmap(lambda image, seen: field(energy, image, seen, **solver)[0])(images, seen)
        pixels = density(completion)({PIXELS: images}, fields[PIXELS], seen)
        label = density(classification)({LABEL: labels}, fields[LABEL][:, 0])
        per_pixel = pixels / ((1 - keep) * images.size)
        return (1 - weight) * per_pixel + weight * label / len(labels)

    return completion_and_classification


def parametrised(layers: Layers, init: Callable, margin: float, tangent: bool) -> Energy:
    """The energy of the parameters `rows` and `bias`."""
    rows, bias = param("rows", init), param("bias", jnp.zeros(layers.size))
    return Energy.of(monotone(rows, layers, margin, tangent=tangent), bias, layers)


def field(energy: Energy, image: Array, seen: Array, **solver: Any):
    """The logits of all nodes at the equilibrium given the pixels that are seen, and the
    equilibrium."""
    found = mean_field(energy, energy.layers.clamp({PIXELS: image}, {PIXELS: seen}), **solver)
    return energy.layers.split(energy.field(found.value)), found
