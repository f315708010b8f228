"""Measure-valued derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import Alternates
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.enumerate import support_size
from ppl.compiler.strategies.local import all_others, others
from ppl.compiler.tables import Val
from ppl.compiler.worlds import Request
from ppl.errors import StrategyError
from ppl.lang.family import Family, Params
from ppl.lang.keys import key_beside
from ppl.lang.staged import Atom, Eqn
from ppl.lang.weak_derivatives import WeakDerivative


@register
@dataclass(frozen=True)
class MeasureValued:
    """Measure-valued (weak) derivatives (Pflug 1996; Mohamed et al., arXiv 1906.10652, section 6).

    The derivative of a density in a parameter is a constant times a difference of two densities;
    the costs at a draw from each are compared. Later choices use common random numbers. Unbiased
    whatever the cost, which may jump. A distribution says in `Family.weak_derivatives` how; one
    with a finite support sums over it (as `local` does).

    Worlds: one or two for each parameter that moves, for each lane and step that a cost combines
    with others.
    """

    name: ClassVar[str] = "mvd"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"

    def refusal(self, eqn: Eqn) -> str | None:
        family: Family = eqn.params["family"]
        if family.weak_derivatives or support_size(eqn) is not None:
            return None
        return f"{family.name} declares no measure-valued derivatives (Family.weak_derivatives)"

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        rules = eqn.params["family"].weak_derivatives
        missing = [n for n in moving if n not in rules]
        if missing and support_size(eqn) is None:
            address, name = eqn.params["address"], eqn.params["family"].name
            raise StrategyError(
                f"{name} declares no measure-valued derivative in {', '.join(missing)}",
                address=address,
                where=eqn.where,
                because=f"there are rules for {', '.join(sorted(rules))} only, and the program's "
                f"parameters move {', '.join(missing)} too",
                fix=f"strategies={{'{address}': 'score'}}, or a rule in Family.weak_derivatives",
            )
        if not _declared(eqn, moving):
            return Request(others(eqn) if moving else 0, together=False)
        key = jax.eval_shape(lambda: jax.random.key(0))
        value = _struct(eqn.outs[0])
        params = {n: _struct(a) for n, a in zip(eqn.params["names"], eqn.ins, strict=True)}
        parts = jax.eval_shape(lambda k, x, p: _parts(eqn, moving, k, x, p), key, value, params)
        return Request(sum(len(p.values) for p in parts.values()), together=False)

    def lower(self, choice: Choice) -> Val:
        moving = choice.view.moving

        def alternates(key: jax.Array, actual: Array, params: Params) -> Alternates:
            if not _declared(choice.eqn, moving):
                return all_others(choice, key, actual, params)
            fixed = {n: lax.stop_gradient(p) for n, p in params.items()}
            parts = _parts(choice.eqn, moving, key, actual, fixed)
            shape = tuple(choice.eqn.params["shape"])
            values, charges, own = [], [], jnp.zeros(shape, params[moving[0]].dtype)
            for name, part in parts.items():
                axes = tuple(range(-choice.family.parameters[name], 0))
                slope = lambda w, name=name, axes=axes: jnp.broadcast_to(
                    jnp.sum(w * params[name], axes), shape
                )
                values += [jnp.broadcast_to(x, actual.shape) for x in part.values]
                charges += [slope(w) for w in part.weights]
                own = own + slope(part.actual)
            return Alternates(jnp.stack(values), jnp.stack(charges), own)

        return choice.draw_alternatives(choice.sample, alternates)


def _declared(eqn: Eqn, moving: Sequence[str]) -> bool:
    return bool(moving) and all(n in eqn.params["family"].weak_derivatives for n in moving)


def _parts(
    eqn: Eqn, moving: Sequence[str], key: jax.Array, value: Array, params: Params
) -> dict[str, WeakDerivative]:
    family, out = eqn.params["family"], {}
    for name in moving:
        out[name] = family.weak_derivatives[name](key_beside(key, name), value, **params)
    return out


def _struct(atom: Atom) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)
