"""What a baseline is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from jax import lax
from jaxtyping import Array

from ppl.compiler import boxes
from ppl.errors import StrategyError, suggestion


@dataclass(frozen=True, eq=False)
class Charged:
    """A cost on its way to the draws that it is charged to, as a baseline sees it.

    Attributes:
        cost: a constant; averaged over the enumerated choices made after those draws.
        num_samples: how many independent samples one estimate averages.
        state: the baseline's memory of earlier steps (of this cost).
        observe: call with what the next state depends on (a pytree of arrays); its mean over
            samples and over the steps of loops reaches `Baseline.update`.
    """

    cost: Array
    num_samples: int
    state: Any
    observe: Callable[[Any], None]

    def mean_of_others(self, x: Array) -> Array:
        """The mean of a constant over the other samples; needs at least two samples."""
        return boxes.leave_one_out(lax.stop_gradient(x), self.num_samples)


class Baseline:
    """What is subtracted from a cost; make subclasses frozen dataclasses.

    Attributes:
        name: as users write it.
        biased: why the gradient is biased with this baseline, or `None`.
    """

    name: ClassVar[str]

    @property
    def biased(self) -> str | None:
        return None

    def init(self) -> Any:
        """The state (a pytree of arrays) before the first step; `None` if there is none."""
        return None

    def value(self, charged: Charged) -> Array:
        """What to subtract; broadcasts against `charged.cost`, depends on none of its draws."""
        raise NotImplementedError

    def update(self, state: Any, observed: Any) -> Any:
        """The state after a step that observed this."""
        raise NotImplementedError


baselines: dict[str, Any] = {}
"""All baselines, and learned control variates used as such, by name."""


def register_baseline[T](kind: type[T]) -> type[T]:
    """Add a class to the table, with its default options (class decorator)."""
    baselines[kind.name] = kind()  # type: ignore[attr-defined]
    return kind


def baseline(given: Any) -> Any:
    """A baseline given by name or as an object.

    Raises:
        StrategyError: there is none of this name.
    """
    if not isinstance(given, str):
        return given
    if given not in baselines:
        raise StrategyError(
            f"there is no baseline {given!r}", because=suggestion(given, list(baselines))
        )
    return baselines[given]
