"""`frozen`: run a program with its parameters held constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jax import lax
from jaxtyping import Array

_frozen: ContextVar[bool] = ContextVar("ppl_frozen", default=False)


@contextmanager
def _freezing() -> Iterator[None]:
    token = _frozen.set(True)
    try:
        yield
    finally:
        _frozen.reset(token)


def frozen[F: Callable[..., Any]](fun: F) -> F:
    """The same function, with the parameters that it declares held constant.

    Values are the same; no derivative is taken with respect to those parameters, neither along
    reparameterised draws nor through log-probabilities. It is for objectives that train one program
    with draws from another one, as the phases of wake-sleep do:
    `z, log_q = frozen(sim(guide))(xs)`.

    The objective is then no function whose gradient is estimated: the estimate is of the derivative
    with respect to the parameters outside of `frozen` alone.
    """

    @wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _freezing():
            return fun(*args, **kwargs)

    return run  # type: ignore[return-value]


def as_declared(leaf: Array) -> Array:
    """A parameter's leaf, constant inside of `frozen`."""
    return lax.stop_gradient(leaf) if _frozen.get() else leaf
