"""The operators and functions of the text language in JAX."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln, logsumexp

from ppl.lang import assume_continuous


def _numeric(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operator on numbers: truth values count as 0 and 1, as in Python."""

    def apply(a: Any, b: Any) -> Any:
        return op(_as_number(a), _as_number(b))

    return apply


def _as_number(x: Any) -> Any:
    if isinstance(x, bool):
        return int(x)
    return x.astype(int) if isinstance(x, jax.Array) and x.dtype == bool else x


def _log_mean_exp(x: Any, axis: int | None = None) -> Any:
    count = jnp.size(x) if axis is None else jnp.shape(x)[axis]
    return logsumexp(x, axis) - jnp.log(count)


def _prod(x: Any, axis: int | None = None) -> Any:
    return jnp.prod(x, axis)


JAX: dict[str, Callable[..., Any]] = {
    "+": _numeric(operator.add),
    "-": _numeric(operator.sub),
    "*": _numeric(operator.mul),
    "/": _numeric(operator.truediv),
    "^": _numeric(operator.pow),
    "@": jnp.matmul,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "and": jnp.logical_and,
    "or": jnp.logical_or,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
    "square": jnp.square,
    "abs": jnp.abs,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "logit": jax.scipy.special.logit,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "log_gamma": gammaln,
    "floor": jnp.floor,
    "stop_gradient": lax.stop_gradient,
    "assume_continuous": assume_continuous,
    "minimum": jnp.minimum,
    "maximum": jnp.maximum,
    "sum": jnp.sum,
    "prod": _prod,
    "mean": jnp.mean,
    "max": jnp.max,
    "min": jnp.min,
    "any": jnp.any,
    "all": jnp.all,
    "logsumexp": logsumexp,
    "log_mean_exp": _log_mean_exp,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "cumsum": lambda x: jnp.cumsum(x, -1),
    "zeros": lambda *sizes: jnp.zeros(sizes),
    "ones": lambda *sizes: jnp.ones(sizes),
    "eye": jnp.eye,
    "arange": jnp.arange,
    "len": lambda x: jnp.shape(x)[0],
    "fill": lambda x, *sizes: jnp.broadcast_to(jnp.asarray(x), (*sizes, *jnp.shape(x))),
    "one_hot": jax.nn.one_hot,
    "dot": jnp.dot,
    "transpose": jnp.transpose,
    "diagonal": jnp.diagonal,
    "cholesky": jnp.linalg.cholesky,
    "real": lambda x: jnp.asarray(x, jnp.result_type(float)),
    "concat": lambda *xs: jnp.concatenate(xs),
}
"""By name, as in `ppl.syntax.functions`."""
