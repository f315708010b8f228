"""`seed`: run a program with an explicit key; and the keys of random choices.

A choice's key depends on its address and on how many choices at that address came before it, and
on nothing else: adding a choice does not reshuffle the others, and a loop draws the same whether
it is scanned or unrolled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ppl import _compat
from ppl.lang.keys import choice_mark, marked
from ppl.lang.primitives import draw
from ppl.lang.staged import Atom, Block, Eqn, Lit, Var, initial_params, stage


def address_of(eqn: Eqn) -> str:
    """The address of a choice's equation."""
    return eqn.params["address"] if eqn.kind == "site" else "genjax"


def draw_counts(block: Block) -> Counter[str]:
    """How many draws one run of a block makes at each address."""
    total: Counter[str] = Counter()
    for eqn in block.eqns:
        total.update(_draws(eqn))
    return total


def _draws(eqn: Eqn) -> Counter[str]:
    if eqn.kind in ("site", "foreign_site"):
        return Counter([address_of(eqn)])
    inner: Counter[str] = Counter()
    for block in eqn.blocks:
        inner |= draw_counts(block)  # branches: the larger number
    times = eqn.params["length"] if eqn.kind == "scan" else 1
    return Counter({a: n * times for a, n in inner.items()})


class Keys:
    """Hands each random choice its key.

    It is made from the base key, the choice's address and n, the number of draws before it at
    that address. Inside a loop, n is the loop's first n plus the step times the draws per step.
    """

    def __init__(
        self,
        key: jax.Array,
        offsets: dict[str, Any] | None = None,
        mark: Callable[[str, Any], Any] = choice_mark,
    ):
        """`mark(address, n)`: what makes the base key that of the n-th draw at an address."""
        self.key, self.mark = key, mark
        self.offsets: dict[str, Any] = offsets or {}

    def next(self, eqn: Eqn) -> Callable[[], jax.Array]:
        """Count a choice, in program order; returns a function that makes its key."""
        address = address_of(eqn)
        n = self.offsets.get(address, 0)
        self.offsets[address] = n + 1

        return lambda: marked(self.key, self.mark(address, n))

    def ahead(self, block: Block) -> Iterator[tuple[Eqn, Callable[[], Any]]]:
        """The choices of a block, but for those in inner blocks, and what makes their marks."""
        walk = Keys(self.key, dict(self.offsets), self.mark)
        for eqn in block.eqns:
            if eqn.kind == "site":
                address = address_of(eqn)
                yield eqn, partial(self.mark, address, walk.offsets.get(address, 0))
            walk.skip(eqn)

    def inside(self, eqn: Eqn, step: Any = 0) -> Keys:
        """The keys inside a block of `eqn`, at a loop's step."""
        per_step = Counter[str]()
        for block in eqn.blocks:
            per_step |= draw_counts(block)
        return Keys(
            self.key,
            {**self.offsets, **{a: self.offsets.get(a, 0) + step * n for a, n in per_step.items()}},
            self.mark,
        )

    def skip(self, eqn: Eqn) -> None:
        """Move past all draws of `eqn`."""
        for address, n in _draws(eqn).items():
            self.offsets[address] = self.offsets.get(address, 0) + n


def draw_foreign(key: jax.Array, params: Sequence[Any], eqn: Eqn) -> list[Any]:
    """Draw what GenJAX's own `sample` primitive would."""
    inner = eqn.jax_eqn.primitive.params
    out = inner["flat_keyful_sampler"](key, *params, **inner)
    return list(out) if isinstance(out, tuple | list) else [out]


def seed(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a program that makes random choices into a function of a key.

    Works for any function: `seed(model.simulate)(key, *args)`, GenJAX's MCMC and SMC over our
    programs, `jax.vmap` and control flow inside. Parameters have their initial values.

    Args:
        fun: `fun(*args, **kwargs)`, with choices anywhere but in a `while_loop`.

    Returns:
        `(key, *args, **kwargs) -> result`, an ordinary JAX function: jit, vmap, scan, grad it.
    """

    @wraps(fun)
    def seeded(key: jax.Array, *args: Any, **kwargs: Any) -> Any:
        # What is no array (a network's functions, a name) passes by the side, both in and out.
        arrays, rest = eqx.partition((args, kwargs), eqx.is_array_like)
        rest_out = None

        def arrays_only(arrays: Any) -> Any:
            nonlocal rest_out
            args, kwargs = eqx.combine(arrays, rest)
            out, rest_out = eqx.partition(fun(*args, **kwargs), eqx.is_array_like)
            return out

        staged = stage(arrays_only, arrays)
        flat = [jnp.asarray(x) for x in jax.tree.leaves(arrays)]
        env: dict[Var, Any] = dict(zip(staged.block.ins, flat, strict=True))
        if staged.params:
            env.update(_initial_leaves(staged, key, flat))
        outs = _Runner(env).block(staged.block, Keys(key))
        return eqx.combine(jax.tree.unflatten(staged.out_tree, outs), rest_out)

    return seeded


def _initial_leaves(staged: Any, key: jax.Array, flat: Sequence[Any]) -> dict[Var, Any]:
    return param_leaves(staged, initial_params(staged, key, flat))


def param_leaves(staged: Any, params: dict[str, Any]) -> dict[Var, Any]:
    """The variables of all parameters and their values."""
    env = {}
    for name, decl in staged.params.items():
        leaves = jax.tree.leaves(eqx.filter(params[name], eqx.is_array))
        env.update((var, leaves[i]) for i, var in decl.leaves.items())
    return env


class _Runner:
    """Runs a staged program, drawing each choice with its key."""

    def __init__(self, env: dict[Var, Any]):
        self.env = env

    def read(self, atom: Atom) -> Any:
        return atom.val if isinstance(atom, Lit) else self.env[atom]

    def block(self, block: Block, keys: Keys) -> list[Any]:
        for eqn in block.eqns:
            ins = [self.read(a) for a in eqn.ins]
            outs = _run_rules.get(eqn.kind, _Runner.plain)(self, eqn, ins, keys)
            self.env.update(zip(eqn.outs, outs, strict=True))
        return [self.read(a) for a in block.outs]

    def plain(self, eqn: Eqn, ins: list[Any], keys: Keys) -> Sequence[Any]:
        return _compat.bind_eqn(eqn.jax_eqn, ins)

    def site(self, eqn: Eqn, ins: list[Any], keys: Keys) -> Sequence[Any]:
        return [draw(keys.next(eqn)(), ins, **eqn.params)]

    def foreign_site(self, eqn: Eqn, ins: list[Any], keys: Keys) -> Sequence[Any]:
        return draw_foreign(keys.next(eqn)(), ins, eqn)

    def scan(self, eqn: Eqn, ins: list[Any], keys: Keys) -> Sequence[Any]:
        body, num_carry = eqn.blocks[0], eqn.params["num_carry"]

        def step(carry, x):
            index, slices = x
            self.env.update(zip(body.ins, [*carry, *slices], strict=True))
            outs = self.block(body, keys.inside(eqn, index))
            return outs[:num_carry], outs[num_carry:]

        carry, ys = lax.scan(
            step,
            list(ins[:num_carry]),
            (_steps(eqn), list(ins[num_carry:])),
            length=eqn.params["length"],
            reverse=eqn.params["reverse"],
            unroll=eqn.params["unroll"],
        )
        keys.skip(eqn)
        return [*carry, *ys]

    def cond(self, eqn: Eqn, ins: list[Any], keys: Keys) -> Sequence[Any]:
        branches = [lambda b=b: self.block(b, keys.inside(eqn)) for b in eqn.blocks]
        outs = lax.switch(ins[0], branches)
        keys.skip(eqn)
        return outs

    def checkpoint(self, eqn: Eqn, ins: list[Any], keys: Keys) -> Sequence[Any]:
        outs = jax.checkpoint(lambda: self.block(eqn.blocks[0], keys.inside(eqn)))()
        keys.skip(eqn)
        return outs


def _steps(eqn: Eqn) -> jax.Array:
    """The order in which a scan's steps run, beside its scanned arrays."""
    steps = jnp.arange(eqn.params["length"])
    return steps[::-1] if eqn.params["reverse"] else steps


_run_rules: dict[str, Callable[[_Runner, Eqn, list[Any], Keys], Sequence[Any]]] = {
    "site": _Runner.site,
    "foreign_site": _Runner.foreign_site,
    "scan": _Runner.scan,
    "cond": _Runner.cond,
    "checkpoint": _Runner.checkpoint,
}
