"""A random program's compiled value and gradient against the reference interpreter."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.compiler import compile
from ppl.compiler.plan import CannotEnumerate
from ppl.errors import BiasWarning
from ppl.syntax import ast, show
from ppl.syntax.text import loads
from ppl.testing.programs import PARAMS
from spec.reference import value_and_gradient

Z_BOUND = 5.5
QUICK = {"xla_backend_optimization_level": 0}
TOLERANCE = 1e-3
"""Of what has no variance: float32 sums, and quadrature with 20 nodes, of up to 256 outcomes."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a program was checked: `exact`, `z` (with draws), or `refused`; and the largest |z|."""

    kind: str
    z: float = 0.0


def params_of(file: ast.File) -> dict[str, Any]:
    """The parameters that a file's programs declare."""
    names = {n.name for n in ast.walk(file.declarations) if isinstance(n, ast.Param)}
    return {n: PARAMS[n][1] for n in PARAMS if n in names}


def estimates(file: ast.File, draws: int, seed: int, **options: Any) -> Any:
    """Values and gradients of the compiled objective, `draws` of each."""
    estimator = compile(loads(show(file)).objectives["cost"], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BiasWarning)
        params = estimator.init(jax.random.key(0))
    run = jax.vmap(lambda key: estimator.value_and_grad(key, params))
    keys = jax.random.split(jax.random.key(seed), draws)
    values, grads = jax.jit(run, compiler_options=QUICK)(keys)
    return np.asarray(values, float), {n: np.asarray(g, float) for n, g in grads.items()}


def compare(file: ast.File, *, draws: int = 2_000, seed: int = 0, **options: Any) -> Outcome:
    """Check a file's objective; the mean of `draws` estimates, |z| < 5.5 or equal to float32.

    Raises:
        AssertionError: value or gradient disagree.
    """
    try:
        values, grads = estimates(file, draws, seed, **options)
    except CannotEnumerate:
        return Outcome("refused")
    value, grad = value_and_gradient(file, "cost", {}, params_of(file))
    pairs = [("value", values, value)]
    pairs += [(n, grads[n], float(grad[n])) for n in grads]
    constant, largest = True, 0.0
    for name, draw, exact in pairs:
        z, varies = z_score(draw, exact)
        assert z < Z_BOUND, f"{name}: {draw.mean()} for {exact}, z = {z:.1f}\n{show(file)}"
        constant, largest = constant and not varies, max(largest, z)
    unused = {n: g for n, g in grad.items() if n not in grads}
    assert all(abs(float(g)) < 1e-9 for g in unused.values()), f"no gradient for {unused}"
    return Outcome("exact" if constant else "z", largest)


def z_score(draws: np.ndarray, exact: float) -> tuple[float, bool]:
    """|z| of the mean, 0 if it is exact to float32; and whether the draws vary."""
    assert np.all(np.isfinite(draws)), f"{np.sum(~np.isfinite(draws))} draws are not finite"
    scale = max(1.0, abs(exact), np.abs(draws).max() * 1e-2)
    error, sd = abs(draws.mean() - exact), draws.std()
    varies = bool(sd > 1e-5 * max(1.0, np.abs(draws).max()))
    if error < TOLERANCE * scale:
        return 0.0, varies
    return (error / (sd / np.sqrt(len(draws))) if varies else np.inf), varies


def constant_zero(_: Any) -> Any:
    return jnp.zeros(())
