"""Everything that depends on JAX's internals or on its version, in one place (jax 0.11).

The rest of the project imports JAX's internals from here only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import core
from jax._src import core as _core
from jax._src import source_info_util as _source_info
from jax._src.interpreters import batching as _batching
from jax.extend.core import Jaxpr as Jaxpr
from jax.extend.core import JaxprEqn as JaxprEqn
from jax.extend.core import Literal as Literal
from jax.extend.core import Primitive as Primitive
from jax.extend.core import Var as Var
from jax.interpreters import ad, mlir

ShapedArray = core.ShapedArray


def hide_frames_of(path: str) -> None:
    """Leave files under `path` out of the user's source lines."""
    _source_info.register_exclusion(path)


def source_line(source_info: Any, *callers: Any) -> str:
    """`file:line:column (function)` of the user's code that made an equation.

    Where only library code did (a guide made for a model, say), it is the library's line.

    Args:
        callers: those of the calls around it, innermost first: JAX traces a jitted function once,
            perhaps for a caller that is no user.
    """
    lines = map(_source_info.summarize, (source_info, *callers))
    line = next(filter(None, lines), "")
    if line or source_info.traceback is None:
        return line or "unknown"
    frames = source_info.traceback.frames
    return next(
        (f"{f.file_name}:{f.line_num} ({f.function_name})" for f in frames if _is_ours(f)),
        "library code",
    )


def _is_ours(frame: Any) -> bool:
    ours = "/ppl/" in frame.file_name
    return ours and not frame.file_name.endswith(("_compat.py", "primitives.py", "distribution.py"))


def current_source() -> Any:
    """The source information of the caller, as equations carry it."""
    return _source_info.current()


def frames(source_info: Any) -> Iterator[tuple[str, str, bool]]:
    """(file, function, whether it is the user's) of the calls that made an equation, innermost
    first."""
    codes, _ = source_info.traceback.raw_frames() if source_info.traceback else ([], [])
    for code in codes:
        yield code.co_filename, code.co_name, _source_info.is_user_filename(code.co_filename)


def stage(fun: Callable, *args: Any, **kwargs: Any) -> tuple[Jaxpr, Any, list[Any]]:
    """Trace `fun` once with the abstract values of `args`.

    Returns:
        the jaxpr over the flattened `(args, kwargs)`, the tree of `jax.ShapeDtypeStruct`s of
        the result, and the flattened arguments.
    """
    flat, tree = jax.tree.flatten((args, kwargs))

    def flat_fun(*leaves):
        args, kwargs = jax.tree.unflatten(tree, leaves)
        return fun(*args, **kwargs)

    jaxpr, out = jax.make_jaxpr(flat_fun, return_shape=True)(*flat)
    return jaxpr, out, flat


def new_primitive(
    name: str,
    abstract_eval: Callable,
    impl: Callable,
    *,
    jvp: Callable | None = None,
    lowering: Callable | None = None,
    batch: Callable | None = None,
) -> Primitive:
    """A primitive with one result.

    Args:
        lowering: the JAX function that the primitive compiles to; `impl` if `None`.
        batch: called with `(axis_size, args, dims, **params)` under *every* `vmap`, also when
            no argument is mapped: a random choice must draw independently per lane even then.
            JAX's ordinary batching table skips a primitive without mapped arguments.
    """
    prim = Primitive(name)
    prim.def_abstract_eval(abstract_eval)
    prim.def_impl(impl)
    if jvp is not None:
        ad.primitive_jvps[prim] = jvp
    mlir.register_lowering(prim, mlir.lower_fun(lowering or impl, multiple_results=False))
    if batch is not None:
        _batching.fancy_primitive_batchers[prim] = lambda axis, args, dims, **params: batch(
            axis.size, args, dims, **params
        )
    return prim


def bind_eqn(eqn: Any, args: Sequence[Any]) -> list[Any]:
    """Run one equation as it is."""
    params = eqn.primitive.get_bind_params(eqn.params)
    outs = eqn.primitive.bind(*args, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def jaxpr_as_fun(jaxpr: Jaxpr) -> Callable:
    return _core.jaxpr_as_fun(jaxpr)


def scan_arity(params: dict[str, Any]) -> tuple[int, int]:
    """(number of constants, number of carries) of a `scan` equation."""
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def sub_jaxprs(params: dict[str, Any]) -> list[Jaxpr]:
    """All jaxprs held in an equation's parameters."""
    hidden = getattr(params.get("_prim"), "params", {})  # those of JAX's new kind of primitive
    return [*_core.jaxprs_in_params(params), *_core.jaxprs_in_params(hidden)]


def has_side_effects(eqn: JaxprEqn) -> bool:
    """Whether an equation does more than compute; naming a mapped axis is no such effect."""
    return any(not isinstance(e, _core.NamedAxisEffect) for e in eqn.effects)


def primitive_name(eqn: JaxprEqn) -> str:
    """The name of an equation's primitive, as users know it."""
    inner = eqn.params.get("_prim")
    return eqn.primitive.name if inner is None else type(inner).__name__


def is_zero_tangent(tangent: Any) -> bool:
    """Whether a derivative rule is told that an input does not move."""
    return isinstance(tangent, ad.Zero)


def is_concrete(x: Any) -> bool:
    return not isinstance(x, core.Tracer)
