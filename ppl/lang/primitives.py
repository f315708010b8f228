"""The three primitives of the language: a random choice, a log-density, a parameter.

They stay symbolic in a staged jaxpr until a compiler pass (or `seed`) replaces them:

* `site_p`: a draw of shape `shape + event_shape` from `family`. The batch axes `shape` are
  *lanes*: independent draws. It has no meaning without a key, so running or compiling it as it
  is raises an error; no draw is ever baked in.
* `log_density_p`: the log-density of a value, one number per lane. An ordinary differentiable
  function, kept symbolic so that passes can recognise it.
* `param_p`: a trainable parameter's value; the operand is its initial value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl import _compat
from ppl.errors import KeyRequiredError, ShapeError, UnsupportedError
from ppl.lang.family import Family

# ------------------------------------------------------------------------------------ lanes


def add_lane(x: Array, dim: int | None, event_ndims: int, rank: int) -> Array:
    """Move a mapped axis to the front, in front of `rank` batch axes.

    Parameters broadcast from the right, so a mapped `[N]` beside an unmapped `[3]` must become
    `[N, 1]`: one value per lane, not one per entry.
    """
    if dim is None:
        return x
    x = jnp.moveaxis(x, dim, 0)
    missing = rank - (x.ndim - 1 - event_ndims)
    return lax.reshape(x, (x.shape[0], *(1,) * missing, *x.shape[1:]))


def _ranks(family: Family, names: tuple[str, ...]) -> list[int]:
    return [family.parameters[n] for n in names]


# ------------------------------------------------------------------------------------- site


def site_aval(*params, family: Family, names, shape, **_):
    """Shape and dtype of a draw."""
    shapes = {n: p.shape for n, p in zip(names, params, strict=True)}
    event = tuple(family.event_shape(shapes))
    dtype = family.dtype(dict(zip(names, params, strict=True)))
    return _compat.ShapedArray((*shape, *event), dtype)


def _site_without_key(*_, family: Family, address, source, **__):
    raise KeyRequiredError(
        f"a random choice from {family.name} was run without a key",
        address=address,
        where=_compat.source_line(source),
        because="a draw made while JAX traces would be the same in every run",
        fix="seed(f)(key, *args) runs a program; vi.compile(objective) makes its gradient",
    )


def _site_jvp(*_, family: Family = None, address="", source=None, **__):  # type: ignore[assignment]
    raise UnsupportedError(
        f"a random choice from {family.name} was differentiated before it was compiled",
        address=address,
        where=_compat.source_line(source),
        because="jax.grad, jax.jvp or a custom derivative inside the program reached the choice",
        fix="differentiate the compiled objective: vi.compile(objective).value_and_grad(...)",
    )


def _site_batch(size, params, dims, *, family: Family, names, shape, **static):
    ranks = _ranks(family, names)
    params = [add_lane(p, d, r, len(shape)) for p, d, r in zip(params, dims, ranks, strict=True)]
    out = site_p.bind(*params, family=family, names=names, shape=(size, *shape), **static)
    return out, 0


site_p = _compat.new_primitive(
    "site", site_aval, _site_without_key, jvp=_site_jvp, batch=_site_batch
)


def draw(key: Array, params: list[Array], *, family: Family, names, shape, **_: Any) -> Array:
    """Draw the value of a `site_p` equation."""
    return family.sample(key, tuple(shape), **_named(names, params))


def draw_with_log_density(
    key: Array, params: list[Array], *, family: Family, names, shape, **_: Any
) -> tuple[Array, Array]:
    """The value of a `site_p` equation and its log-density, one number per lane."""
    assert family.sample_with_log_density is not None
    value, log_density = family.sample_with_log_density(key, tuple(shape), **_named(names, params))
    return value, jnp.broadcast_to(log_density, tuple(shape))


def _named(names: tuple[str, ...], params: list[Array]) -> dict[str, Array]:
    return {n: jnp.asarray(p) for n, p in zip(names, params, strict=True)}  # constants are NumPy's


# -------------------------------------------------------------------------------- open draws


def _open_draw_batch(size, args, dims, *, family: Family, names, shape, **static):
    static = {"family": family, "names": names, **static}
    if all(d is None for d in dims):
        return open_draw_p.bind(*args, shape=shape, **static), None
    key = args[0] if dims[0] is None else jnp.moveaxis(args[0], dims[0], 0)
    ranks = _ranks(family, names)
    params = [
        add_lane(p, d, r, len(shape)) for p, d, r in zip(args[1:], dims[1:], ranks, strict=True)
    ]
    return open_draw_p.bind(key, *params, shape=(size, *shape), **static), 0


def _open_draw_run(*_, address, **__):
    raise KeyRequiredError("a draw left open was run", address=address)


open_draw_p = _compat.new_primitive(
    "open_draw",
    lambda key, *params, **static: site_aval(*params, **static),
    _open_draw_run,
    batch=_open_draw_batch,
)
"""The draw of a compiled estimator, left open so that its values can be put in one by one. Its key
is an operand, for passes that ask what depends on a loop's step; draws with the same key and
parameters are the same draw, and all others are independent."""


# ------------------------------------------------------------------------------ log-density


def _batch_shape(value_shape, param_shapes, family: Family, names, event_ndims):
    batch = value_shape[: len(value_shape) - event_ndims]
    params = family.batch_shape(dict(zip(names, param_shapes, strict=True)))
    return np.broadcast_shapes(batch, params)


def _log_density_abstract(value, *params, family: Family, names, event_ndims, **_):
    shape = _batch_shape(value.shape, [p.shape for p in params], family, names, event_ndims)
    dtypes = [p.dtype for p in params]
    if jnp.issubdtype(value.dtype, jnp.inexact):
        dtypes.append(value.dtype)
    return _compat.ShapedArray(shape, jnp.result_type(*dtypes) if dtypes else jnp.float32)


def log_density_values(value: Array, *params: Array, family: Family, names, event_ndims, **_):
    """What a `log_density_p` equation computes."""
    # JAX hands over literals as floats
    value, arrays = jnp.asarray(value), [jnp.asarray(p) for p in params]
    shape = _batch_shape(value.shape, [p.shape for p in arrays], family, names, event_ndims)
    out = family.log_density(value, **dict(zip(names, arrays, strict=True)))
    return jnp.broadcast_to(out, shape)


def _log_density_jvp(primals, tangents, **static):
    # Only along the inputs that move: the derivative along another one may be infinite (that of
    # Beta(a, b) in a, at 0), and 0 * inf would be NaN.
    moving = [i for i, t in enumerate(tangents) if not _compat.is_zero_tangent(t)]

    def function(*values):
        args = list(primals)
        for i, x in zip(moving, values, strict=True):
            args[i] = x
        return log_density_values(*args, **static)

    return jax.jvp(function, [primals[i] for i in moving], [tangents[i] for i in moving])


def _log_density_batch(size, args, dims, *, family: Family, names, event_ndims, **static):
    static = dict(family=family, names=names, event_ndims=event_ndims, **static)
    if all(d is None for d in dims):
        return log_density_p.bind(*args, **static), None
    ranks = [event_ndims, *_ranks(family, names)]
    rank = max(np.ndim(x) - (d is not None) - r for x, d, r in zip(args, dims, ranks, strict=True))
    args = [add_lane(x, d, r, rank) for x, d, r in zip(args, dims, ranks, strict=True)]
    return log_density_p.bind(*args, **static), 0


log_density_p = _compat.new_primitive(
    "log_density",
    _log_density_abstract,
    log_density_values,
    jvp=_log_density_jvp,
    batch=_log_density_batch,
)


# -------------------------------------------------------------------------------- parameter


def _param_batch(size, args, dims, *, name, source, **static):
    if any(d is not None for d in dims):
        raise ShapeError(
            f"the initial value of parameter {name!r} differs from lane to lane",
            where=_compat.source_line(source),
            because="a parameter is shared by all lanes of a vmap or plate",
            fix="declare it outside of the plate with a leading axis, and pass its rows in",
        )
    return param_p.bind(*args, name=name, source=source, **static), None


param_p = _compat.new_primitive(
    "param",
    lambda init, **_: _compat.ShapedArray(init.shape, init.dtype),
    lambda init, **_: init,
    jvp=lambda primals, tangents, **_: (primals[0], tangents[0]),
    batch=_param_batch,
)


# -------------------------------------------------------------------------------- interface


def bind_site(family: Family, params: dict[str, Array], *, strategy: Any, address: str) -> Array:
    """Make a random choice; `strategy` is `None` for "let the planner decide"."""
    names = tuple(params)
    shape = family.batch_shape({n: p.shape for n, p in params.items()})
    return site_p.bind(
        *params.values(),
        family=family,
        names=names,
        shape=shape,
        strategy=strategy,
        address=address,
        source=_compat.current_source(),
    )


_replacement: ContextVar[Callable[..., Array] | None] = ContextVar("ppl_density", default=None)


@contextmanager
def replacing_log_densities(rule: Callable[..., Array]) -> Iterator[None]:
    """Let `rule(family, value, params, address)` stand in for the log-densities of choices.

    The programs that run inside then add up something else, one number per lane: divergences, for
    example.
    """
    token = _replacement.set(rule)
    try:
        yield
    finally:
        _replacement.reset(token)


def bind_log_density(family: Family, value: Array, params: dict[str, Array], *, address: str):
    """The log-density of `value`, one number per lane."""
    if (rule := _replacement.get()) is not None:
        return rule(family, value, params, address)
    event = tuple(family.event_shape({n: p.shape for n, p in params.items()}))
    return log_density_p.bind(
        value,
        *params.values(),
        family=family,
        names=tuple(params),
        event_ndims=len(event),
        address=address,
        source=_compat.current_source(),
    )
