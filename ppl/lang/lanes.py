"""`lane_by_lane`: say that a value's lanes depend on its inputs' lanes, one by one.

Under `vmap` each lane of a function depends on that lane's inputs only. The analysis of influence
sees it from the equations, but not in a batched `while_loop`, whose lanes share the condition that
ends it. This marker tells.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ppl import _compat


def lane_by_lane(values: PyTree, inputs: PyTree) -> Any:
    """The same values, known to be a function of the arrays in `inputs` and of nothing else."""
    ins = [x for x in jax.tree.leaves(inputs) if isinstance(x, jax.Array)]
    one = lambda x: lanes_p.bind(x, *ins, axes=((),) * len(ins))
    return jax.tree.map(one, values)


def _batch(size: int, args: Any, dims: Any, axes: tuple[tuple[int, ...], ...]) -> Any:
    if all(d is None for d in dims):
        return lanes_p.bind(*args, axes=axes), None
    front = lambda x, d: x if d is None else jnp.moveaxis(x, d, 0)
    value = jnp.broadcast_to(args[0], (size, *args[0].shape)) if dims[0] is None else args[0]
    value = value if dims[0] is None else front(value, dims[0])
    ins = [front(x, d) for x, d in zip(args[1:], dims[1:], strict=True)]
    moved = tuple(
        (*(() if d is None else (0,)), *(axis + 1 for axis in own))
        for own, d in zip(axes, dims[1:], strict=True)
    )
    return lanes_p.bind(value, *ins, axes=moved), 0


lanes_p = _compat.new_primitive(
    "lane_by_lane",
    lambda value, *ins, axes: _compat.ShapedArray(value.shape, value.dtype),
    lambda value, *ins, axes: jnp.asarray(value),
    jvp=lambda primals, tangents, **static: (lanes_p.bind(*primals, **static), tangents[0]),
    batch=_batch,
)
"""The first operand. `axes` says for each other one on which axes of the result its leading axes,
the lanes, run."""
