"""Reparameterisation: the draw is a differentiable function of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val
from ppl.lang.staged import Eqn


@register
@dataclass(frozen=True)
class Reparam:
    """Differentiate along the draw's path (Kingma and Welling, arXiv 1312.6114).

    Explicit where the sampler is a smooth function of the parameters, implicit (Figurnov et
    al., arXiv 1805.08498) where its derivative comes from the distribution function. Unbiased
    if everything that follows is continuous in the draw.
    """

    name: ClassVar[str] = "reparam"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "path"
    draws_once: ClassVar[bool] = True

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        if family.reparam is None:
            kind = "discrete" if family.kind != "float" else "not differentiable in its parameters"
            return f"a draw from {family.name} is {kind}"
        return None

    def lower(self, choice: Choice) -> Val:
        return choice.draw_path()
