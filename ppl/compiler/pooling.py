"""The noise of many choices is drawn at once.

XLA writes out the random generator for every call, which is most of the work of compiling a program
of many small choices, and runs each alone. So the choices of one block whose draws are made of the
same noise (`Family.noise`) share one call, with the key that each has anyway: the numbers are those
that it would draw alone.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl.compiler.plan import Plan
from ppl.compiler.strategies.base import draws_once
from ppl.lang.keys import is_counter_based, marked
from ppl.lang.seed import Keys
from ppl.lang.staged import Block, Eqn
from ppl.lang.standard_noise import Ready, StandardNoise

_MOST = 1024
"""Numbers in a draw: larger ones are as fast alone, and are made where they are used."""


@dataclass(frozen=True)
class _Kind:
    noise: StandardNoise
    shape: tuple[int, ...]
    dtype: Any


@dataclass(eq=False)
class _Pool:
    kind: _Kind
    key: jax.Array
    marks: Sequence[Callable[[], Any]]

    @functools.cached_property
    def values(self) -> list[Array]:
        marks = [mark() for mark in self.marks]
        numpy: Any = np if all(isinstance(m, np.ndarray) for m in marks) else jnp
        keys = marked(self.key, numpy.stack(marks))
        noise, shape, dtype = self.kind.noise, self.kind.shape, self.kind.dtype
        drawn = jax.vmap(lambda key: noise(key, shape, dtype))(keys)
        return [jnp.squeeze(x, 0) for x in jnp.split(drawn, len(marks))]


def pooled(block: Block, keys: Keys, plan: Plan) -> dict[Eqn, Callable[[], Ready]]:
    """For each choice that shares its draw with others, what makes its noise."""
    if not is_counter_based(keys.key):
        return {}
    members: dict[_Kind, list[tuple[Eqn, Callable[[], Any]]]] = defaultdict(list)
    for eqn, mark in keys.ahead(block):
        if (kind := _kind(eqn, plan)) is not None:
            members[kind].append((eqn, mark))
    sources = {}
    for kind, group in members.items():
        if len(group) > 1:
            pool = _Pool(kind, keys.key, [mark for _, mark in group])
            for i, (eqn, _) in enumerate(group):
                sources[eqn] = lambda pool=pool, i=i: Ready(pool.values[i])
    return sources


def _kind(eqn: Eqn, plan: Plan) -> _Kind | None:
    """What noise a choice takes, if it can be drawn ahead."""
    family = eqn.params["family"]
    if family.noise is None or eqn.outs[0] not in plan.region.plain:
        return None
    params = {n: a.aval for n, a in zip(eqn.params["names"], eqn.ins, strict=True)}
    aval = family.noise_aval(tuple(eqn.params["shape"]), params)
    alike = all(p.dtype == aval.dtype for p in params.values())
    if not alike or math.prod(aval.shape) > _MOST or not draws_once(plan.strategies[eqn]):
        return None
    return _Kind(family.noise, aval.shape, aval.dtype)
