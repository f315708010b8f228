"""Biased, low-variance gradients of discrete choices: only where they are asked for by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.learned.relaxed import relaxations
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val, batched
from ppl.errors import StrategyError
from ppl.lang.distributions.categorical import log_probs_of
from ppl.lang.keys import key_beside
from ppl.lang.primitives import draw
from ppl.lang.staged import Eqn


class _Relaxed:
    """A path strategy of a discrete choice, whose value is a float (`ppl.compiler.relaxing`)."""

    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "path"
    relaxes: ClassVar[bool] = True

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        if family.name == "categorical":
            return "an index cannot be relaxed; one_hot_categorical's vectors can"
        return None if family.relaxation else f"{family.name} has no continuous relaxation"

    def lower(self, choice: Choice) -> Val:
        key, static = choice.new_key(), choice.eqn.params

        def value(*params: Array) -> list[Array]:
            hard = draw(key, list(params), **static)
            return [self.value(static, dict(zip(static["names"], params, strict=True)), hard, key)]

        return batched(value, choice.params)[0]

    def value(self, static: Any, params: dict[str, Array], hard: Array, key: Array) -> Array:
        raise NotImplementedError


def _soft(static: Any, params: dict[str, Array], hard: Array, key: Array, scale: float) -> Array:
    """The relaxed choice, in the shape of the hard one that it rounds to."""
    relax = relaxations[static["family"].name]
    z, _ = relax(params, hard, key_beside(key, "relaxation"))
    soft = jax.nn.sigmoid(z / scale) if z.shape[-1] == 1 else jax.nn.softmax(z / scale, -1)
    return soft.reshape(hard.shape)


def _check_temperature(temperature: float | None) -> None:
    if temperature is not None and not temperature > 0:
        raise StrategyError(f"a temperature must be positive, not {temperature}")


@register
@dataclass(frozen=True)
class GumbelSoftmax(_Relaxed):
    """The Concrete or Gumbel-softmax relaxation (Maddison, Mnih and Teh, arXiv 1611.00712; Jang,
    Gu and Poole, arXiv 1611.01144), for flips, Bernoulli and one-hot choices.

    **Biased**: value and gradient are those of a program whose choice is a number between 0 and 1.
    The lower the temperature, the smaller the bias and the larger the variance.
    """

    temperature: float = 0.5
    name: ClassVar[str] = "gumbel_softmax"

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    @property
    def biased(self) -> str:
        return f"'gumbel_softmax' relaxes the choice at temperature {self.temperature:g}"

    def value(self, static: Any, params: dict[str, Array], hard: Array, key: Array) -> Array:
        return _soft(static, params, hard, key, self.temperature)


@register
@dataclass(frozen=True)
class StraightThrough(_Relaxed):
    """The value is drawn, the derivative is another one's: that of its probability (Bengio,
    Leonard and Courville, arXiv 1308.3432), or, with a temperature, that of the Gumbel-softmax
    relaxation which rounds to the value drawn (Jang, Gu and Poole, arXiv 1611.01144).

    **Biased**: the gradient is right only for costs that are linear in the choice, with
    `temperature=None`, and for none otherwise. The value is not biased.
    """

    temperature: float | None = None
    name: ClassVar[str] = "straight_through"

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    @property
    def biased(self) -> str:
        soft = self.temperature
        of = "the probability" if soft is None else f"a relaxation at temperature {soft:g}"
        return f"'straight_through' takes the derivative of {of} for the choice's"

    def value(self, static: Any, params: dict[str, Array], hard: Array, key: Array) -> Array:
        if self.temperature is not None:
            soft = _soft(static, params, hard, key, self.temperature)
        elif static["family"].name == "one_hot_categorical":
            soft = jnp.exp(log_probs_of(params.get("logits"), params.get("probs")))
        else:
            soft = jax.nn.sigmoid(params["logits"]) if "logits" in params else _probability(params)
        return lax.stop_gradient(hard.astype(soft.dtype) - soft) + soft


def _probability(params: dict[str, Array]) -> Array:
    return params["p"] if "p" in params else params["probs"]
