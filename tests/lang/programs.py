"""Programs that several tests share: every combinator, alone and inside others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import genjax
import jax.numpy as jnp
import numpy as np

from ppl.compiler.enumeration import enumeration
from ppl.lang.branch import cond, switch
from ppl.lang.condition import condition
from ppl.lang.distributions.categorical import categorical
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.normal import normal
from ppl.lang.factor import factor
from ppl.lang.inference import importance, sir
from ppl.lang.loop import scan
from ppl.lang.marginal import marginal
from ppl.lang.mask import mask
from ppl.lang.normalize import normalize
from ppl.lang.observed import masked
from ppl.lang.plate import plate
from ppl.lang.program import gen


@gen
def point(x, scale):
    z = normal(x, scale) @ "z"
    return normal(z, 1.0) @ "y"


@gen
def step(carry, x):
    z = normal(0.5 * carry + x, 1.0) @ "z"
    return z, 2.0 * z


@gen
def two(m):
    z = normal(m, 1.0) @ "z"
    return normal(z, 2.0) @ "w"


@gen
def one(m):
    return normal(-m, 0.5) @ "z"


@gen
def weighted(x):
    z = normal(x, 1.0) @ "z"
    factor(-(z**2)) @ "penalty"
    return z


@gen
def only_a_factor(x):
    factor(x) @ "weight"


@gen
def everything(xs):
    p = plate(point, in_axes=(0, None))(xs, 1.0) @ "points"
    last, outs = scan(step)(0.0, xs) @ "steps"
    f = flip(0.4) @ "f"
    d = cond(two, one)(f, last) @ "either"
    only_a_factor(d) @ "no_choice"
    factor(-(d**2)) @ "penalty"
    normal.mask(jnp.array([True, False, True]))(p, 1.0) @ "m"
    return outs


@gen
def plate_of_steps(x):
    _, outs = scan(step, length=2)(x, jnp.zeros(2)) @ "steps"
    return jnp.sum(outs)


@gen
def step_of_plates(carry, x):
    z = plate(one)(carry + x) @ "each"
    return z, None


@gen
def step_of_branches(carry, x):
    z = switch(one, two, one)(x, carry) @ "either"
    return z, z


@gen
def lane_of_branches(flag, x):
    return cond(two, one)(flag, x) @ "either"


@gen
def masked_step(carry, x):
    flag, x = x
    return step.mask(flag)(carry, x) @ "inner"


xs = jnp.array([0.1, -0.4, 0.7])
data = np.array([0.3, np.nan, -0.2], np.float32)


@gen
def posterior(kept, x, scale):
    """Of `point`'s z given y: with it as proposal, importance weights do not vary."""
    precision = 1 / scale**2 + 1
    normal((x / scale**2 + kept["y"]) / precision, precision**-0.5) @ "z"


integrated = marginal(point, keep="y", by=importance(posterior, 2))


@gen
def mixture(x, scale):
    return normal(x + categorical(jnp.array([0.3, -0.2, 0.5])) @ "k", scale) @ "y"


summed_out = marginal(mixture, keep="y", by=enumeration())


@gen
def posterior_of_one(x, scale):
    precision = 1 / scale**2 + 1
    normal((x / scale**2 + 1.0) / precision, precision**-0.5) @ "z"


resampled = normalize(condition(point, {"y": 1.0}), by=sir(posterior_of_one, 3))


@gen
def integrated_step(carry, x):
    y = integrated(carry + x, 1.0) @ "m"
    return y["y"], y["y"]


@gen
def only_y(x, scale):
    return {"y": normal(x, scale) @ "y"}


@dataclass
class Case:
    """A program, its arguments, other arguments of the same shapes, and some of its choices."""

    program: Any
    args: tuple[Any, ...]
    new_args: tuple[Any, ...]
    some: Any
    normalised: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)


@gen
def three(x):
    return normal(x * jnp.ones(3), 1.0) @ "y"


@gen
def named(carry, x, scale):
    z = normal(carry, scale) @ "z"
    return z, z


CASES = {
    "gen": Case(point, (0.3, 1.0), (-0.2, 2.0), {"y": jnp.array(1.5)}),
    "plate": Case(
        plate(point, in_axes=(0, None)), (xs, 1.0), (-xs, 2.0), {"y": jnp.array([1.0, 2.0, 3.0])}
    ),
    "plate of a distribution": Case(plate(normal), (xs, xs**2 + 1), (-xs, xs**2 + 2), 2 * xs),
    "repeat": Case(normal.repeat(4), (0.3, 1.0), (0.1, 2.0), jnp.arange(4.0)),
    "subsampled plate": Case(
        plate(weighted, total=30), (xs,), (-xs,), {"z": 2 * xs}, normalised=False
    ),
    "plate by name": Case(
        plate(point), (xs,), (-xs,), {"y": 2 * xs}, kwargs={"scale": jnp.array(2.0)}
    ),
    "scan": Case(scan(step), (0.2, xs), (0.4, -xs), {"z": 2 * xs}),
    "scan by length": Case(
        scan(named, length=2), (0.2,), (0.4,), {"z": jnp.ones(2)}, kwargs={"scale": 2.0}
    ),
    "cond": Case(cond(two, one), (True, 0.3), (False, 0.5), {"z": jnp.array(0.7)}),
    "cond not taken": Case(cond(two, one), (False, 0.3), (True, 0.5), {"w": jnp.array(0.7)}),
    "cond of distributions": Case(
        cond(normal, normal), (True, 0.3, 1.0), (False, 0.5, 2.0), jnp.array(0.7)
    ),
    "switch": Case(switch(one, two, one), (1, 0.3), (7, 0.4), {"z": jnp.array(0.7)}),
    "mask": Case(mask(point, False), (0.3, 1.0), (0.1, 2.0), {"y": jnp.array(0.7)}),
    "mask of a distribution": Case(
        normal.mask(jnp.array([True, False, True])), (xs, 1.0), (-xs, 2.0), 2 * xs
    ),
    "mask of a plate": Case(
        mask(plate(point, in_axes=(0, None)), True), (xs, 1.0), (-xs, 2.0), {"y": 2 * xs}
    ),
    "mask of a scan": Case(mask(scan(step), True), (0.2, xs), (0.4, -xs), {"z": 2 * xs}),
    "mask of a cond": Case(
        mask(cond(two, one), True), (True, 0.3), (False, 0.5), {"z": jnp.array(0.7)}
    ),
    "factor": Case(weighted, (0.3,), (0.1,), {"z": jnp.array(0.7)}, normalised=False),
    "only a factor": Case(only_a_factor, (0.3,), (0.1,), {}, normalised=False),
    "condition": Case(
        condition(point, {"y": 1.0}),
        (0.3, 1.0),
        (0.1, 2.0),
        {"z": jnp.array(0.7)},
        normalised=False,
    ),
    "condition in part": Case(
        condition(three, {"y": masked(data, ~np.isnan(data))}),
        (0.3,),
        (0.1,),
        {},
        normalised=False,
    ),
    "marginal": Case(integrated, (0.3, 1.0), (-0.2, 2.0), {"y": jnp.array(1.5)}),
    "marginal by enumeration": Case(summed_out, (0.3, 1.0), (-0.2, 2.0), {"y": jnp.array(1.5)}),
    "plate of marginal by enumeration": Case(
        plate(summed_out, in_axes=(0, None)), (xs, 1.0), (-xs, 2.0), {"y": 2 * xs}
    ),
    "normalize": Case(resampled, (0.3, 1.0), (-0.2, 2.0), {"z": jnp.array(1.5)}),
    "plate of marginal": Case(
        plate(integrated, in_axes=(0, None)), (xs, 1.0), (-xs, 2.0), {"y": 2 * xs}
    ),
    "scan of marginal": Case(scan(integrated_step), (0.2, xs), (0.4, -xs), {"m": {"y": 2 * xs}}),
    "cond of marginal": Case(
        cond(integrated, only_y), (True, 0.3, 1.0), (True, 0.2, 1.5), {"y": jnp.array(0.7)}
    ),
    "mask of normalize": Case(mask(resampled, False), (0.3, 1.0), (0.1, 2.0), {"z": 0.4}),
    "everything": Case(
        everything,
        (xs,),
        (-xs,),
        {"f": jnp.array(True), "either": {"w": jnp.array(0.5)}, "points": {"y": xs}},
        normalised=False,
    ),
    "condition of everything": Case(
        condition(everything, {"points": {"y": xs}, "f": True, "steps": {"z": xs}}),
        (xs,),
        (-xs,),
        {"either": {"w": jnp.array(0.5)}},
        normalised=False,
    ),
    "plate of scan": Case(plate(plate_of_steps), (xs,), (-xs,), {"steps": {"z": jnp.ones((3, 2))}}),
    "scan of plate": Case(
        scan(step_of_plates),
        (xs, jnp.ones(2)),
        (-xs, jnp.ones(2)),
        {"each": {"z": jnp.ones((2, 3))}},
    ),
    "scan of switch": Case(
        scan(step_of_branches),
        (0.1, jnp.array([0, 1, 2])),
        (0.1, jnp.array([1, 1, 0])),
        {"either": {"w": xs}},
    ),
    "plate of cond": Case(
        plate(lane_of_branches),
        (jnp.array([True, False]), jnp.ones(2)),
        (jnp.array([False, False]), jnp.ones(2)),
        {"either": {"w": jnp.ones(2)}},
    ),
    "scan of mask": Case(
        scan(masked_step),
        (0.1, (jnp.array([True, False, True]), xs)),
        (0.2, (jnp.array([True, True, False]), xs)),
        {"inner": {"z": xs}},
    ),
    "genjax Vmap": Case(
        genjax.gen(lambda xs: point.vmap(in_axes=(0, None))(xs, 1.0) @ "v"),
        (xs,),
        (-xs,),
        {"v": {"y": xs}},
    ),
}
