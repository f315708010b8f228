"""A model fitted by stochastic gradients, in several ways.

A side of a task is made from the data and is one function `(key, params, data) -> (loss, gradient)`
of unconstrained parameters; loss and gradient are unbiased estimates for minus the objective. All
sides of a task take the same tree of parameters, so that they start alike and any of them can judge
what another one reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from ppl import vi

Gradient = Callable[[Any, Any, Any], tuple[Any, Any]]
Side = Callable[[Any], Gradient]

OURS, BY_HAND, MATRIX_WORK = "ours", "by hand", "matrix work"
PLANNED = "ours, planned"
"""The same programs with the planner's strategies, where `OURS` has others."""


@dataclass(frozen=True)
class Task:
    """A model, its data, and the ways to fit it.

    Attributes:
        sides: by name; `OURS` and `BY_HAND` are among them.
        start: unconstrained parameters.
        learning_rate: of Adam.
        fit_steps: steps after which the objectives reached are compared; 0: they are not.
        batch: what one step sees of the data, `(key, data) -> batch`; `None`: all.
        matrix_work: the bare matrix products of one gradient, as a side: no step can be faster.
        remarks: by name of a peer that is no side, why it is none.
    """

    name: str
    sides: dict[str, Side]
    start: Any
    data: Any
    learning_rate: float = 0.01
    fit_steps: int = 0
    batch: Callable[[Any, Any], Any] | None = None
    matrix_work: Side | None = None
    remarks: dict[str, str] = field(default_factory=dict)

    def seen(self, key: Any, data: Any) -> Any:
        """The data of the step with this key."""
        return data if self.batch is None else self.batch(jax.random.fold_in(key, 0), data)

    def only(self, *names: str) -> Task:
        """The task with these sides alone."""
        return replace(self, sides={name: self.sides[name] for name in names if name in self.sides})


def by_hand(loss: Callable[[Any, Any, Any], Any]) -> Side:
    """A side from a loss whose derivative is the gradient's estimate."""
    return lambda data: jax.value_and_grad(loss, argnums=1)


def ours(
    objective: Callable[[Any], vi.Objective], split: Callable[[Any], Any], **options: Any
) -> Side:
    """Our side.

    Args:
        objective: makes the objective from the data.
        split: the objective's arguments, from the data.
        options: of `vi.compile`.
    """

    def side(data: Any) -> Gradient:
        estimator = vi.compile(objective(data), **options)
        like = estimator.init(jax.random.key(0), *split(data))

        def loss(key, unconstrained, data):
            arguments = split(data)
            params = estimator.constrain(unconstrained, like, *arguments)
            return -estimator.surrogate(key, params, *arguments)

        return jax.value_and_grad(loss, argnums=1)

    return side


def our_elbo(model: Any, guide: Any, split: Callable[[Any], Any], **options: Any) -> Side:
    """Our side, of the evidence lower bound; `split` gives what is observed, and the arguments."""

    def objective(data):
        observed, args = split(data)
        return vi.elbo(model, guide, observed=observed, args=args)

    return ours(objective, split, **options)
