"""A plain draw, for choices that no parameter moves; the planner's, not for users to ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ppl.compiler.strategies.base import Choice, Kind
from ppl.compiler.tables import Val
from ppl.lang.staged import Eqn


@dataclass(frozen=True)
class Drawn:
    """Draw; nothing else is needed.

    The distribution's derivative with respect to every parameter is zero, so that the derivative of
    an expectation over it is the expectation of the derivative: there is no path to follow, and
    no log-probability to charge costs with. Not in the table of strategies, for only the planner
    can tell that it is right.
    """

    name: ClassVar[str] = "drawn"
    kind: ClassVar[Kind] = "path"
    draws_once: ClassVar[bool] = True

    @property
    def baseline(self) -> str:
        return "none"

    def refusal(self, eqn: Eqn) -> str | None:
        return None

    def lower(self, choice: Choice) -> Val:
        return choice.draw_path()
