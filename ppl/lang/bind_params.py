"""`bind_params`: run a program with given parameter values."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ppl.errors import AddressError, suggestion
from ppl.lang.param import fixing


def bind_params(fun: Callable[..., Any], params: dict[str, Any]) -> Callable[..., Any]:
    """The same program, with the values `params` for its parameters.

    Combine with `seed`: `seed(bind_params(guide.simulate, fit.params))(key, *args)`.

    Raises (when run):
        AddressError: the program declares a parameter that `params` does not have.
    """

    @wraps(fun)
    def bound(*args: Any, **kwargs: Any) -> Any:
        def lookup(name: str) -> Any:
            if name not in params:
                raise AddressError(
                    f"no value was given for parameter {name!r}",
                    because=suggestion(name, params),
                    fix="pass the parameters of a fit of this program",
                )
            return params[name]

        with fixing(lookup):
            return fun(*args, **kwargs)

    return bound
