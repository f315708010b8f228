"""`assume_continuous`: vouch for a function that branches but does not jump."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ppl.lang.staged import TRUSTED_CALL


def assume_continuous[F: Callable[..., Any]](fun: F) -> F:
    """The same function, exempt from the smoothness check.

    Use it for a function of reparameterised draws that is continuous although it compares or
    branches, e.g. `assume_continuous(lambda x: jnp.where(x > 0, x, 0.1 * x))(z)`. If the
    function does jump, gradients through it are biased without a warning.
    """

    def vouched(*args: Any, **kwargs: Any) -> Any:
        return fun(*args, **kwargs)

    vouched.__name__ = vouched.__qualname__ = TRUSTED_CALL
    return jax.jit(vouched)  # type: ignore[return-value]
