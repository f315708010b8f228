"""What a program is, in lines of text: to tell whether a saved state belongs to it, and if not,
why not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ppl import _compat
from ppl.compiler.estimator import Estimator

Identity = dict[str, Any]
"""From what is described to text, or to a list of lines."""


def describe_params(params: dict[str, Any]) -> dict[str, str]:
    """Type and shape of all arrays of each parameter."""
    arrays = {n: jax.tree.leaves(eqx.filter(p, eqx.is_array)) for n, p in params.items()}
    return {n: ", ".join(jax.typeof(x).str_short() for x in xs) for n, xs in sorted(arrays.items())}


def identity(
    estimator: Estimator, data: tuple[Any, ...], params: dict[str, Any], **more: Any
) -> Identity:
    """A description of a program at its data.

    Args:
        data: with the shapes of one step; only its types and shapes are described, unless `values`
            are among `more`.
        params: start values.
        more: other things that must be the same, by name.
    """
    plan = estimator.plan(*data)
    choices = {
        e.params["address"]: f"{e.params['family']} {list(e.outs[0].aval.shape)} by {s.name}"
        for e, s in plan.strategies.items()
    }
    described = {f"parameter {n!r}": d for n, d in describe_params(params).items()}
    described |= {f"choice {a!r}": d for a, d in sorted(choices.items())}
    described |= {
        f"data{jax.tree_util.keystr(path)}": _type(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(data)
    }
    for r in plan.rewritten:
        described[f"rewrite {r.rewrite!r} of {r.address!r}"] = "applied"
    described |= {name: str(value) for name, value in more.items()}
    return {
        **described,
        "samples": str(estimator.num_samples(*data)),
        "program": _lines(estimator, data),
    }


def digest(tree: Any) -> str:
    """A short fingerprint of all arrays of a tree."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array_like)):
        found.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return found.hexdigest()[:16]


def differences(saved: Identity, now: Identity) -> list[str]:
    """What is not the same, in words; the programs' lines only if nothing else differs."""
    found = []
    for name in dict.fromkeys([*saved, *now]):
        if name == "program":
            continue
        if name not in now:
            found.append(f"{name}: {saved[name]}; not there now")
        elif name not in saved:
            found.append(f"{name}: was not there; {now[name]} now")
        elif saved[name] != now[name]:
            found.append(f"{name}: was {saved[name]}; {now[name]} now")
    if found:
        return found
    pairs = zip(saved["program"], now["program"], strict=False)
    found = [f"the program computed {a}; {b} now" for a, b in pairs if a != b]
    if len(saved["program"]) != len(now["program"]):
        before, after = len(saved["program"]), len(now["program"])
        found.append(f"the program had {before} operations; {after} now")
    return found


def _type(leaf: Any) -> str:
    return jax.typeof(leaf).str_short() if eqx.is_array_like(leaf) else repr(leaf)


def _lines(estimator: Estimator, data: tuple[Any, ...]) -> list[str]:
    """The program's operations, with their constants."""
    arrays, static = eqx.partition(data, eqx.is_array)
    jaxpr, _, _ = _compat.stage(
        lambda arrays: estimator.objective(*eqx.combine(arrays, static)), arrays
    )
    return operations(jaxpr)


def operations(jaxpr: Any) -> list[str]:
    """The equations of a jaxpr and of those inside, one line each, the same in every process."""
    return [re.sub(r"0x[0-9a-f]+", "", line) for line in _operations(jaxpr)]


def _operations(jaxpr: Any) -> Iterator[str]:
    for eqn in jaxpr.eqns:
        ins = [
            str(v.val) if isinstance(v, _compat.Literal) else v.aval.str_short() for v in eqn.invars
        ]
        outs = [v.aval.str_short() for v in eqn.outvars]
        name = eqn.params.get("name") or eqn.params.get("family") or ""
        yield f"{_compat.primitive_name(eqn)} {name}({', '.join(ins)}) -> {', '.join(outs)}"
        for inner in _compat.sub_jaxprs(eqn.params):
            yield from _operations(inner)
