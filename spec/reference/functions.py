"""Operators and functions of the language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from spec.reference.analytic import absolute, log, number


def _reals(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: compare(np.real(a), np.real(b))


def _numeric(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: op(number(a), number(b))[()]


def _power(a: Any, b: Any) -> Any:
    a, b = number(a), number(b)
    return np.power(a if np.all(np.real(b) >= 0) and b.dtype.kind == "i" else a * 1.0, b)[()]


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": _numeric(np.add),
    "-": _numeric(np.subtract),
    "*": _numeric(np.multiply),
    "/": _numeric(np.true_divide),
    "^": _power,
    "@": np.matmul,
    "==": _reals(np.equal),
    "!=": _reals(np.not_equal),
    "<": _reals(np.less),
    "<=": _reals(np.less_equal),
    ">": _reals(np.greater),
    ">=": _reals(np.greater_equal),
    "and": _reals(np.logical_and),
    "or": _reals(np.logical_or),
}


def _larger(a: Any, b: Any) -> Any:
    return np.where(np.real(a) >= np.real(b), a, b)[()]


def _extreme(pick: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Any, axis: int | None = None) -> Any:
        x = np.ravel(x) if axis is None else np.asarray(x)
        axis = 0 if axis is None else axis
        index = np.expand_dims(pick(np.real(x), axis=axis), axis)
        return np.take_along_axis(x, index, axis).squeeze(axis)[()]

    return reduce


def _logsumexp(x: Any, axis: int | None = None) -> Any:
    top = np.max(np.real(x))
    return log(np.sum(np.exp(x - top), axis)) + top


def _log_mean_exp(x: Any, axis: int | None = None) -> Any:
    return _logsumexp(x, axis) - np.log(np.size(x) if axis is None else np.shape(x)[axis])


def _softmax(x: Any) -> Any:
    e = np.exp(x - np.max(np.real(x), -1, keepdims=True))
    return e / np.sum(e, -1, keepdims=True)


def _stop(x: Any) -> Any:
    """Without the derivative: the imaginary part."""
    return np.real(x)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "square": lambda x: x * x,
    "abs": absolute,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "logit": lambda x: log(x) - log(1 - x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "relu": lambda x: _larger(x, 0.0),
    "sin": np.sin,
    "cos": np.cos,
    "log_gamma": special.loggamma,
    "floor": lambda x: np.floor(np.real(x)),
    "stop_gradient": _stop,
    "assume_continuous": lambda x: x,
    "minimum": lambda a, b: -_larger(-a, -b),
    "maximum": _larger,
    "sum": lambda x, axis=None: np.sum(x, axis),
    "prod": lambda x, axis=None: np.prod(x, axis),
    "mean": lambda x, axis=None: np.mean(x, axis),
    "max": _extreme(np.argmax),
    "min": _extreme(np.argmin),
    "any": lambda x, axis=None: np.any(np.real(x), axis),
    "all": lambda x, axis=None: np.all(np.real(x), axis),
    "logsumexp": _logsumexp,
    "log_mean_exp": _log_mean_exp,
    "softmax": _softmax,
    "log_softmax": lambda x: log(_softmax(x)),
    "cumsum": lambda x: np.cumsum(x, -1),
    "zeros": lambda *sizes: np.zeros(sizes),
    "ones": lambda *sizes: np.ones(sizes),
    "eye": np.eye,
    "arange": np.arange,
    "len": lambda x: np.shape(x)[0],
    "fill": lambda x, *sizes: np.broadcast_to(x, (*sizes, *np.shape(x))),
    "one_hot": lambda i, n: np.eye(n)[np.asarray(np.real(i), int)],
    "dot": np.dot,
    "transpose": np.transpose,
    "diagonal": np.diagonal,
    "cholesky": np.linalg.cholesky,
    "real": lambda x: np.asarray(number(x)) * 1.0,
    "concat": lambda *xs: np.concatenate(xs),
}
