"""A draw whose log-probability is dropped from the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import lax

from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val
from ppl.lang.staged import Eqn


@register
@dataclass(frozen=True)
class Dropped:
    """Draw, and differentiate as if the draw's probabilities did not depend on any parameter.

    Biased, and so only by request: the derivative of the probabilities is missing. Particle
    filters are often trained this way, without the score terms of their resampling (Maddison et
    al., arXiv 1705.09279), as those have much variance.
    """

    name: ClassVar[str] = "dropped"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "path"
    draws_once: ClassVar[bool] = True
    biased: ClassVar[str] = "the derivative of its probabilities is dropped"

    def refusal(self, eqn: Eqn) -> str | None:
        return None

    def lower(self, choice: Choice) -> Val:
        value = choice.draw()
        return Val(lax.stop_gradient(value.array), value.axes)
