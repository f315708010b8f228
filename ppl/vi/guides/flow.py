"""Normalising flows as guides, from FlowJAX. Needs the `flows` extra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array, Float, Key

from ppl.lang import normal, param
from ppl.lang.observed import Choices
from ppl.lang.supports import positive
from ppl.vi.guides._joint import JointGuide, joint_guide
from ppl.vi.guides._latents import is_continuous
from ppl.vi.guides.mean_field import SCALE

MakeFlow = Callable[[Key[Array, ""], int], Any]
"""From a key and a size to a FlowJAX distribution, a transformed standard normal of that size."""


@dataclass(frozen=True)
class Flow:
    """`loc + scale * flow(noise)`: parameters `loc`, `scale` and `flow`."""

    make: MakeFlow

    def _parts(self, name: str, size: int) -> tuple[Any, Array, Array]:
        flow = param(f"{name}.flow", lambda key: self.make(key, size))
        scale = param(f"{name}.scale", jnp.full(size, SCALE), support=positive)
        return _unwrap(flow), param(f"{name}.loc", jnp.zeros(size)), scale

    def draw(self, name: str, size: int) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        flow, loc, scale = self._parts(name, size)
        noise = normal.sample(jnp.zeros(size), jnp.ones(size))
        log_density = normal.logpdf(noise, jnp.zeros(size), jnp.ones(size))
        x, log_det = flow.bijection.transform_and_log_det(noise)
        return loc + scale * x, log_density - log_det - jnp.sum(jnp.log(scale))

    def log_density(self, name: str, flat: Float[Array, " size"]) -> Float[Array, ""]:
        flow, loc, scale = self._parts(name, flat.shape[-1])
        return flow.log_prob((flat - loc) / scale) - jnp.sum(jnp.log(scale))

    def start(self, name: str, loc: Float[Array, " size"]) -> dict[str, Any]:
        return {f"{name}.loc": loc}


def _unwrap(flow: Any) -> Any:
    import paramax

    return paramax.unwrap(flow)


def coupling(key: Key[Array, ""], size: int, *, layers: int = 4, width: int = 32) -> Any:
    """Coupling layers (Dinh et al., arXiv 1605.08803), fast both to draw and to evaluate.

    For a single number, which cannot be split in two, a spline of that number.
    """
    from flowjax import bijections, distributions, flows

    base = distributions.StandardNormal((size,))
    if size == 1:
        spline = bijections.RationalQuadraticSpline(knots=8, interval=4)
        return distributions.Transformed(base, eqx.filter_vmap(lambda: spline, axis_size=1)())
    return flows.coupling_flow(
        key, base_dist=base, flow_layers=layers, nn_width=width, invert=False
    )


def flow(
    model: GFI,
    *,
    make: MakeFlow = coupling,
    observed: Choices = None,
    args: tuple[Any, ...] = (),
) -> JointGuide:
    """A guide with a normalising flow over all continuous choices of a model.

    Args:
        make: from a key and a size to a FlowJAX distribution (a transformed standard normal):
            `coupling` if not given, or another of FlowJAX's flows,
            `lambda key, n: flows.masked_autoregressive_flow(key, base_dist=..., invert=False)`.
            A draw runs the flow forwards: `invert=False` makes that the fast direction.

    Raises:
        ImportError: FlowJAX is not installed.
        UnsupportedError: as for `full_rank`.

    Source: Rezende and Mohamed (arXiv 1505.05770); flows by FlowJAX (Ward 2023).
    """
    try:
        import flowjax  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "flow guides need FlowJAX: install the extra with `pip install 'ppl[flows]'` or "
            "`uv sync --extra flows`"
        ) from error
    law = Flow(make)
    return joint_guide(
        model,
        "flow",
        lambda free: {"flow": ([a for a, c in free.items() if is_continuous(c)], law)},
        observed,
        args,
    )
