"""Amortised guides: a network from each row of the data to the law of that row's choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array, Float, Key

from ppl.errors import AddressError, ShapeError
from ppl.lang import flip, param, plate
from ppl.lang.distributions import categorical
from ppl.lang.observed import Choices
from ppl.lang.trace_type import ChoiceType
from ppl.vi.guides._latents import Layout, check_addresses, is_continuous, latents, nest
from ppl.vi.guides._start import starting_points
from ppl.vi.guides.mean_field import (
    SCALE,
    MadeGuide,
    factor_leaves,
    finite_size,
    program_of,
    pushforward,
    start_factors,
    with_start,
)

MakeNetwork = Callable[[Key[Array, ""], int, int], Callable[[Array], Array]]
"""From a key, the length of a row and the number of outputs to a network (an Equinox module)."""


def mlp(key: Key[Array, ""], inputs: int, outputs: int) -> eqx.nn.MLP:
    """Two hidden layers of 64 units."""
    return eqx.nn.MLP(inputs, outputs, 64, 2, key=key)


def amortised(
    model: GFI,
    *,
    guide_args: tuple[Any, ...],
    local: Sequence[str] | None = None,
    total: float | None = None,
    network: MakeNetwork = mlp,
    observed: Choices = None,
    args: tuple[Any, ...] = (),
) -> MadeGuide:
    """A guide whose choices for each row of the data come from a network that reads the row.

    A row's continuous choices get normals in unconstrained space, its discrete ones a `flip` or a
    `categorical`, with parameters that the network (parameter `amortised.network`) computes.
    Choices that do not belong to rows have factors of their own, as in `mean_field`. With
    minibatches (`vi.fit(..., batch_size=)`) the network sees the batch's rows only:

        vi.elbo(model, functools.partial(vi.amortised, total=len(xs)), observed={...},
                args=(xs,), guide_args=(features,))

    Args:
        guide_args: the guide's argument: one array, whose rows (of any shape) the network reads.
        local: addresses of the choices that belong to rows; those with as many entries in front
            as there are rows if `None`.
        total: rows of the whole data, if the model's plate has a `total`.
        network: makes the network.

    Raises:
        AddressError: `local` names no latent choice, or there is none that belongs to rows.
        ShapeError: a local choice has not one entry per row.

    Source: Kingma and Welling (arXiv 1312.6114); Gershman and Goodman (2014).
    """
    (features,) = guide_args
    rows = len(features)
    latent = latents(model, observed, args)
    if local is None:
        local = [a for a, c in latent.items() if c.shape[:1] == (rows,)]
    check_addresses(local, latent, "amortised")
    if not local:
        raise AddressError(
            "amortised: no latent choice belongs to rows of the data",
            because=f"there are {rows} rows, and the choices have the shapes "
            + ", ".join(f"{a} {c.shape}" for a, c in latent.items()),
            fix="use vi.mean_field or another guide",
        )
    for address in local:
        if latent[address].shape[:1] != (rows,):
            raise ShapeError(
                "amortised: a local choice has not one entry per row",
                address=address,
                because=f"there are {rows} rows, and its shape is {latent[address].shape}",
            )
    each = {a: _Row(a, latent[a]) for a in local}
    others = {a: c for a, c in latent.items() if a not in each}
    outputs = sum(row.outputs for row in each.values())

    def raw(features: Float[Array, "rows ..."]) -> dict[str, Array]:
        """What the network says of each local choice."""
        flat = jnp.reshape(features, (len(features), -1))
        width = flat.shape[-1]
        net = param("amortised.network", lambda key: network(key, width, outputs))
        out = jax.vmap(net)(flat.astype(float))
        ends = [sum(r.outputs for r in [*each.values()][: i + 1]) for i in range(len(each))]
        return dict(zip(each, jnp.split(out, ends[:-1], -1), strict=True))

    def leaf(row: _Row) -> Callable[..., Any]:
        def choose(features: Array) -> Any:
            distribution, params = row.law(raw(features)[row.address])
            return plate(distribution, total=total)(*params)

        return choose

    leaves = {a: leaf(row) for a, row in each.items()} | factor_leaves(others, {})
    points = starting_points(model, latent, observed, args)
    program = program_of(nest(leaves), "amortised")
    return with_start(program, lambda key: start_factors(others, points(key)))


class _Row(eqx.Module):
    """A local choice: how many numbers the network gives for a row, and what they mean."""

    address: str
    choice: ChoiceType
    inner: tuple[int, ...]
    outputs: int

    def __init__(self, address: str, choice: ChoiceType):
        self.address = address
        one = ChoiceType(
            choice.shape[1:], choice.dtype, choice.support, choice.distribution, choice.where
        )
        self.choice = one
        size = finite_size(one)
        if is_continuous(one):
            (part,) = Layout.of({address: one}).parts
            self.inner, self.outputs = part.shape, 2 * part.size
        else:
            self.inner = one.shape if size is None else (*one.shape, size)
            self.outputs = math.prod(self.inner)

    def law(self, raw: Float[Array, "rows outputs"]) -> tuple[Any, tuple[Array, ...]]:
        """The distribution of a row's choice, and its parameters for all rows."""
        if not is_continuous(self.choice):
            logits = raw.reshape(len(raw), *self.inner)
            if self.choice.kind == "bool":
                return flip, (jax.nn.sigmoid(logits),)
            return categorical, (logits,)
        loc, scale = jnp.split(raw, 2, -1)
        shape = (len(raw), *self.inner)
        # Scales start near those of the other guides, whatever the network's first outputs.
        scale = jax.nn.softplus(scale + math.log(math.expm1(SCALE)))
        return pushforward(self.choice), (loc.reshape(shape), scale.reshape(shape))
