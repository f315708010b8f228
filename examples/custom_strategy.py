"""A distribution and a gradient strategy of one's own, in a few lines each.

`kumaraswamy` is a distribution on (0, 1) whose draws have a simple path. `blend` is a strategy for
every distribution with a path and a density: a share of the gradient along the path, the rest by
the score function. Both parts are unbiased, so any blend is; the path has less variance where
costs are smooth, the score where they are steep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from rich.table import Table

from examples._report import arguments
from ppl import param, unit_interval, vi
from ppl.lang.supports import unit_interval as on_unit_interval
from ppl.vi.extend import Choice, Family, Val, make_distribution, register_strategy
from stdlib.report import console

# ------------------------------------------------------------------------------ a distribution


def sample(key, shape, a, b):
    """By the inverse of the distribution function, 1 - (1 - x^a)^b."""
    u = jax.random.uniform(key, shape, minval=1e-6, maxval=1 - 1e-6)
    return (1 - u ** (1 / b)) ** (1 / a)


def log_density(value, a, b):
    return jnp.log(a * b) + (a - 1) * jnp.log(value) + (b - 1) * jnp.log1p(-(value**a))


kumaraswamy = make_distribution(
    Family(
        "kumaraswamy",
        {"a": 0, "b": 0},
        sample,
        log_density,
        support=on_unit_interval,
        reparam="explicit",
    )
)

# ---------------------------------------------------------------------------------- a strategy


@register_strategy
@dataclass(frozen=True)
class Blend:
    """A share of the gradient along the path, the rest by the score function."""

    share: float = 0.5
    baseline: str = "leave_one_out"
    name: ClassVar[str] = "blend"
    kind: ClassVar[str] = "score"  # costs are charged with a log-probability,
    follows_path: ClassVar[bool] = True  # and the value moves with the parameters

    def refusal(self, eqn) -> str | None:
        family = eqn.params["family"]
        return None if family.reparam else f"a draw from {family.name} follows no path"

    def lower(self, choice: Choice) -> Val:
        path = choice.draw()
        still = lax.stop_gradient(path.array)
        logp = choice.log_density(Val(still, path.axes))
        choice.logp(Val((1 - self.share) * logp.array, logp.axes))
        return Val(still + self.share * (path.array - still), path.axes)


# ------------------------------------------------------------------------------------- the use


def objective(steepness: float, strategy):
    """E of a wave in a Kumaraswamy draw."""

    def cost():
        x = kumaraswamy.via(strategy)(param("a", 2.0), 1 + param("b", 0.5, support=unit_interval))
        return jnp.sin(steepness * x)

    return cost


def main(quick: bool = False) -> dict[tuple[float, str], tuple[float, float]]:
    """Mean and standard deviation of the gradient in `a`, by steepness and strategy."""
    strategies = {"reparam": "reparam", "blend": Blend(0.5), "score": "score"}
    keys = jax.random.split(jax.random.key(0), 2_000 if quick else 50_000)
    table = Table("steepness", "strategy", "gradient", "sd", title="A strategy of one's own")
    found = {}
    for steepness in (1.0, 30.0):
        for name, strategy in strategies.items():
            est = vi.compile(objective(steepness, strategy), num_samples=4)
            params = est.init(jax.random.key(0))
            draw = jax.jit(jax.vmap(lambda key, e=est, p=params: e.grad(key, p)["a"]))
            grads = draw(keys)
            found[steepness, name] = float(grads.mean()), float(grads.std())
            table.add_row(f"{steepness:g}", name, *(f"{x:.4f}" for x in found[steepness, name]))
    console.print(table)
    return found


if __name__ == "__main__":
    main(quick=arguments(__doc__).parse_args().quick)
