"""`sim` and `density`: how objectives run programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array, Float

from ppl.errors import AddressError, ShapeError
from ppl.lang.gfi import name_of, takes_value
from ppl.lang.interop import as_program
from ppl.lang.observed import Choices, PartlyObserved, flat_choices
from ppl.lang.scope import address_of_choice, current_address, scope


def sim(program: GFI) -> Callable[..., tuple[Choices, Float[Array, ""]]]:
    """Simulate a program: `sim(program)(*args) -> (choices, log_q)`.

    `choices` are nested dictionaries from address to value (for a distribution: just the value),
    and `log_q` is their joint log-density under the program, in nats.

    >>> z, log_q = sim(guide)(xs)  # doctest: +SKIP
    """
    program = as_program(program)

    def run(*args: Any, **kwargs: Any) -> tuple[Choices, Float[Array, ""]]:
        with scope(name_of(program)):
            tr = program.simulate(*args, **kwargs)
        return tr.get_choices(), -tr.get_score()

    return run


def density(program: GFI) -> Callable[..., Float[Array, ""]]:
    """The log-density of a program's choices: `density(program)(choices, *args) -> log p`.

    Args:
        program: a generative function.

    Returns:
        a function of the choices, as `sim` returns them, and of the program's arguments. It gives
        the joint log-density in nats, a scalar.

    Raises (the returned function):
        AddressError: the choices miss an address of the program, or have one that it has not.
        ShapeError: a choice has not the shape that the program draws.

    >>> density(model)(z | {"y": ys}, xs)  # doctest: +SKIP
    """
    program = as_program(program)

    def log_density(choices: Choices, *args: Any, **kwargs: Any) -> Float[Array, ""]:
        with scope(name_of(program)):
            _check_choices(program, choices)
            log_p, _ = program.assess(choices, *args, **kwargs)
        if jnp.shape(log_p):
            raise ShapeError(
                "the log-density of a program is not a scalar",
                address=name_of(program),
                because=f"its assess returned an array of shape {jnp.shape(log_p)}",
                fix="sum the log-density over all lanes in assess",
            )
        return log_p

    return log_density


def _check_choices(program: GFI, choices: Choices) -> None:
    if not takes_value(program) and not isinstance(choices, dict):
        raise AddressError(
            "the choices of a program are a dictionary from address to value",
            address=current_address(),
            because=f"found a {type(choices).__name__}",
            fix="choices, log_q = sim(guide)(*args); density(model)(choices, *args)",
        )
    for address, value in flat_choices(choices).items():
        leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, PartlyObserved))
        if any(isinstance(x, PartlyObserved) for x in leaves):
            raise AddressError(
                "data that is observed in part must be completed first",
                address=address_of_choice(address),
                because="its unobserved entries are latent, and need values",
                fix="density(model)(merge_choices(choices, observed), *args)",
            )
