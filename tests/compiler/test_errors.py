"""Every mistake is refused, with what is wrong, where, why, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl import vi
from ppl.compiler import compile
from ppl.compiler.strategies import Score
from ppl.errors import (
    AddressError,
    DataError,
    ExpectationError,
    KeyRequiredError,
    PplError,
    ShapeError,
    StrategyError,
    SupportError,
    UnsupportedError,
)
from ppl.lang import (
    E,
    categorical,
    density,
    flip,
    gen,
    half_normal,
    normal,
    param,
    plate,
    positive,
    sim,
)


def theta():
    return param("theta", 0.3)


def number(bit):
    return jnp.asarray(bit).astype(float)


@gen
def model():
    z = normal(0.0, 1.0) @ "z"
    s = half_normal(1.0) @ "s"
    normal(z, s) @ "y"


@gen
def guide():
    normal(theta(), 1.0) @ "z"
    half_normal(1.0) @ "s"


def elbo(guide: Any = guide, observed: Any = None) -> Any:
    return vi.elbo(model, guide, observed={"y": 0.5} if observed is None else observed)


def guide_with(**sites: Any) -> Any:
    """The guide with some of its choices replaced, added, or (`None`) left out."""

    @gen
    def other():
        known = {"z": lambda: normal(theta(), 1.0), "s": lambda: half_normal(1.0)}
        for address, site in {**known, **sites}.items():
            if site is not None:
                site() @ address

    return other


@dataclass
class Wrong:
    """A program that must be refused, and parts of the error's fields."""

    error: type[PplError]
    run: Callable[[], Any]
    what: str
    address: str | None = None
    because: str = ""
    fix: str = ""
    here: bool = True
    """whether the source line is in this file"""


def plan(objective: Callable[..., Any], **options: Any) -> Callable[[], Any]:
    return lambda: compile(objective, **options).plan()


def init(objective: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: compile(objective).init(jax.random.key(0))


def value(objective: Callable[..., Any], params: dict[str, Any]) -> Callable[[], Any]:
    return lambda: compile(objective).value(jax.random.key(0), params)


def in_while():
    p = theta()
    return lax.while_loop(lambda s: ~s[1], lambda s: (s[0] + 1.0, flip.score(p)), (0.0, False))[0]


def param_in_while():
    return lax.while_loop(lambda s: s < 3.0, lambda s: s + param("rate", 1.0), 0.0)


def param_in_scan():
    """Its initial value is the loop's state."""
    return lax.scan(lambda c, _: (c + param("rate", c), None), 0.0, None, length=2)[0]


def in_linear_solve():
    solve = lambda matvec, b: b + normal(0.0, 1.0)
    return lax.custom_linear_solve(lambda x: 2.0 * x, theta(), solve)


def in_root():
    f = lambda x: x - normal(0.0, 1.0)
    return lax.custom_root(f, theta(), lambda f, x: f(x), lambda g, y: y)


def param_in_root():
    f = lambda x: x - theta()
    return lax.custom_root(f, 1.0, lambda f, x: x - f(x), lambda g, y: y / g(1.0))


def remembered():
    def step(total, _):
        total = total + number(flip.enum(theta()))
        return total, total**2

    return jnp.sum(lax.scan(step, 0.0, None, length=5)[1])


def pair_of_steps():
    """A chain's neighbours meet after a shift: two steps of one choice in one cost."""

    def step(before, _):
        now = flip.enum(jnp.where(before, theta(), 0.5))
        return now, number(now)

    bits = lax.scan(step, True, None, length=3)[1]
    return jnp.sum(jnp.exp(bits[1:] * bits[:-1]))


def declared(first: Any, second: Any) -> Callable[[], Any]:
    total = lambda tree: sum(jnp.sum(x) for x in jax.tree.leaves(tree))
    return plan(lambda: total(param("w", *first)) + total(param("w", *second)))


def squared_expectation():
    e = E(lambda: normal(theta(), 1.0))
    return e * e


def expectation() -> Any:
    return E(lambda: normal(theta(), 1.0))


# fmt: off
WRONG = {
    # ---------------------------------------------------------------------------- addresses
    "unknown address in the guide": Wrong(
        AddressError, lambda: elbo(guide_with(zz=lambda: normal(0.0, 1.0))),
        "has a choice that the model has not", "zz", "did you mean 'z'?", "correct the address",
    ),
    "missing address in the guide": Wrong(
        AddressError, lambda: elbo(guide_with(s=None)), "misses a choice", "s", "half_normal",
        '@ "s"',
    ),
    "duplicate address": Wrong(
        AddressError, lambda: elbo(gen(lambda: [normal(0.0, 1.0) @ "z" for _ in range(2)])),
        "used twice", "z", "", "plate/scan", here=False,
    ),
    "observed address in the guide": Wrong(
        AddressError, lambda: elbo(guide_with(y=lambda: normal(0.0, 1.0))), "is observed", "y",
        "fixes", "remove it",
    ),
    "unknown observed address": Wrong(
        AddressError, lambda: elbo(observed={"yy": 0.5}), "is not a choice of the model", "yy",
        "did you mean 'y'?", "correct the address", here=False,
    ),
    "missing address in a density": Wrong(
        AddressError, plan(lambda: density(model)({"z": theta(), "s": 1.0})), "no value was given",
        "model/y", "", "add it", here=False,
    ),
    "unknown address in a density": Wrong(
        AddressError, plan(lambda: density(guide)({"z": theta(), "s": 1.0, "zs": 2.0})),
        "has no choice 'zs'", "guide/zs", "did you mean", "remove", here=False,
    ),
    # ------------------------------------------------------------------------------- shapes
    "shape of a guide's choice": Wrong(
        ShapeError, lambda: elbo(guide_with(z=lambda: normal(jnp.zeros(3), 1.0))),
        "of another type", "z", "float[3]", "same shape",
    ),
    "kind of a guide's choice": Wrong(
        ShapeError, lambda: elbo(guide_with(z=lambda: flip(0.5))), "of another type", "z",
        "flip (bool)", "kind of values",
    ),
    "shape of data": Wrong(
        ShapeError, lambda: elbo(observed={"y": np.zeros(4)}), "wrong shape", "y",
        "expected (), found (4,)", "one value for each",
    ),
    "shape of a value": Wrong(
        ShapeError, plan(lambda: density(guide)({"z": jnp.ones(3) * theta(), "s": 1.0})),
        "wrong shape", "guide/z", "expected (), found (3,)", "shape", here=False,
    ),
    "shape of a parameter": Wrong(
        ShapeError, value(lambda: normal(theta(), 1.0), {"theta": jnp.zeros(3)}), "wrong shape",
        None, "expected [()], found [(3,)]", "est.init",
    ),
    "missing parameter": Wrong(
        AddressError, value(lambda: normal(theta(), 1.0), {"thta": 0.3}), "no value was given",
        None, "did you mean 'thta'?", "est.init",
    ),
    # ----------------------------------------------------------------------------- supports
    "support of the guide": Wrong(
        SupportError, lambda: elbo(guide_with(s=lambda: normal(0.0, 1.0))),
        "not inside the model's", "s", "real", "nonnegative",
    ),
    "data outside of the support": Wrong(
        SupportError, lambda: vi.elbo(model, gen(lambda: normal(0.0, 1.0) @ "z"),
                                      observed={"y": 0.5, "s": -1.0}),
        "outside of the support", "s", "-1.0", "correct the data",
    ),
    "NaN in the data": Wrong(
        DataError, lambda: elbo(observed={"y": np.nan}), "NaN", "y", "1 of 1", "masked",
        here=False,
    ),
    "initial value outside of its support": Wrong(
        DataError, init(lambda: param("scale", -1.0, support=positive)), "not in its support",
        None, "positive", "inside",
    ),
    # -------------------------------------------------------------------------- strategies
    "strategy that the distribution has not": Wrong(
        StrategyError, plan(lambda: normal.enum(theta(), 1.0)), "normal has no 'enum' strategy",
        "normal", "finite support", "normal.reparam(...)",
    ),
    "discrete choice, reparameterised": Wrong(
        StrategyError, plan(lambda: number(flip(theta())), strategies={"flip": "reparam"}),
        "flip has no 'reparam' strategy", "flip", "discrete", "flip.enum(...)",
    ),
    "unknown strategy": Wrong(
        StrategyError, plan(lambda: normal.via("scor")(theta(), 1.0)), "no strategy 'scor'",
        "normal", "did you mean 'score'?", "use one of",
    ),
    "a strategy that is none": Wrong(
        StrategyError, plan(lambda: normal(theta(), 1.0), strategies={"*": 3}), "3 is no strategy",
        "normal", "", "use a strategy object",
    ),
    "unknown baseline": Wrong(
        StrategyError, lambda: Score(baseline="running"), "no baseline 'running'", None,
        "did you mean 'running_mean'?", here=False,
    ),
    "pattern that matches nothing": Wrong(
        StrategyError, lambda: compile(elbo(), strategies={"guide/x": "score"}).plan(),
        "'guide/x' matches no choice", None, "did you mean 'guide/z'?", "'guide/*'", here=False,
    ),
    "a remembered choice, enumerated": Wrong(
        StrategyError, plan(remembered), "cannot be enumerated", "flip",
        "remembers it over many steps", "'score'",
    ),
    "a remembered choice, enumerated by the caller": Wrong(
        StrategyError, plan(lambda: remembered_by(flip), strategies={"flip": "enum"}),
        "cannot be enumerated", "flip", "remembers", "'score'",
    ),
    "two steps of a chain in one cost": Wrong(
        StrategyError, plan(pair_of_steps), "cannot be enumerated", "flip", "combines its lanes",
        "'score'",
    ),
    "mixed lanes with too many states": Wrong(
        StrategyError, plan(lambda: jnp.exp(jnp.sum(number(flip.enum(theta() * jnp.ones(30)))))),
        "cannot be enumerated", "flip", "combines its lanes", "'score'",
    ),
    # --------------------------------------------------------------------------- objectives
    "objective of several numbers": Wrong(
        ShapeError, plan(lambda: normal(theta() * jnp.ones(3), 1.0)), "one real number", None,
        "float32[3]", "jnp.sum", here=False,
    ),
    "objective of a pair": Wrong(
        ShapeError, plan(lambda: (theta(), theta())), "one real number", None, "float32[]",
        here=False,
    ),
    "objective of an integer": Wrong(
        ShapeError, plan(lambda: flip(theta()).astype(int)), "one real number", None, "int32",
        here=False,
    ),
    "objective of nothing": Wrong(
        ShapeError, plan(lambda: None), "one real number", None, "nothing", "return a scalar",
        here=False,
    ),
    # --------------------------------------------------------------------------- parameters
    "parameter of two shapes": Wrong(
        ShapeError, declared([1.0], [jnp.zeros(2)]), "declared twice", None,
        "float32[2] on real; at", "another name",
    ),
    "parameter of two supports": Wrong(
        ShapeError, declared([1.0], [1.0, positive]), "declared twice", None, "on positive",
        "support",
    ),
    "parameter of two structures": Wrong(
        ShapeError, declared([1.0], [{"a": 1.0}]), "declared twice", None, "{'a': *}",
        "structure",
    ),
    "initial value from a choice": Wrong(
        UnsupportedError, init(lambda: param("w", normal(0.0, 1.0))), "not known before the run",
        None, "random choice", "key -> value",
    ),
    "initial value from a parameter": Wrong(
        UnsupportedError, init(lambda: param("w", 2 * theta())), "not known before the run",
        None, "another parameter", "key -> value",
    ),
    "initial value from a loop": Wrong(
        UnsupportedError, init(param_in_scan), "not known before the run", None, "loop's state",
        "key -> value",
    ),
    "parameter per lane": Wrong(
        ShapeError, plan(lambda: jnp.sum(jax.vmap(lambda x: param("w", x))(jnp.ones(3)))),
        "differs from lane to lane", None, "shared by all lanes", "outside of the plate",
    ),
    "parameter in a while loop": Wrong(
        UnsupportedError, plan(param_in_while), "a parameter stands inside 'while'", "rate", "",
        "before it",
    ),
    # ------------------------------------------------------------------ unknown constructs
    "choice in a while loop": Wrong(
        UnsupportedError, plan(in_while), "a random choice stands inside 'while'", "flip",
        "same in every run", "lax.scan",
    ),
    "choice in a linear solve": Wrong(
        UnsupportedError, plan(in_linear_solve), "inside 'custom_linear_solve'", "normal",
        "no rule", "move it out",
    ),
    "choice in a root finder": Wrong(
        UnsupportedError, plan(in_root), "inside 'CustomRoot'", "normal", "no rule", "move it out",
    ),
    "parameter in a root finder": Wrong(
        UnsupportedError, plan(param_in_root), "a parameter stands inside 'CustomRoot'", "theta",
        "no rule", "call param before it",
    ),
    "gradient inside the objective": Wrong(
        UnsupportedError, plan(lambda: jax.grad(lambda t: normal(t, 1.0) ** 2)(theta())),
        "differentiated before it was compiled", "normal", "jax.grad", "vi.compile",
    ),
    "GenJAX's sampler without an address": Wrong(
        UnsupportedError, plan(lambda: genjax.normal.sample(theta(), 1.0)), "without an address",
        None, "no log-density", '@ "x"',
    ),
    "choice without a compiler": Wrong(
        KeyRequiredError, lambda: normal(0.0, 1.0), "without a key", "normal", "", "seed(f)",
    ),
    # -------------------------------------------------------------------------- expectations
    "logarithm of an expectation": Wrong(
        ExpectationError, plan(lambda: jnp.log(expectation())), "a non-linear function", None,
        "not the function of the mean", "E(lambda: f(...))", here=False,
    ),
    "division by an expectation": Wrong(
        ExpectationError, plan(lambda: 1.0 / expectation()), "division", None, "mean", "E(",
        here=False,
    ),
    "quotient of expectations": Wrong(
        ExpectationError, plan(lambda: expectation() / expectation()), "division", here=False,
    ),
    "square of an expectation": Wrong(
        ExpectationError, plan(lambda: expectation() ** 2), "power", None, "", "E(", here=False,
    ),
    "expectation times itself": Wrong(
        ExpectationError, plan(squared_expectation), "shares its draws", None, "E[x**2]",
        "E(f) * E(f)", here=False,
    ),
    "branch on an expectation": Wrong(
        ExpectationError, plan(lambda: 1.0 if expectation() > 0 else 0.0), "comparison",
        here=False,
    ),
    "expectation as a parameter": Wrong(
        ExpectationError, plan(lambda: normal(expectation(), 1.0)), "a non-linear function",
        here=False,
    ),
}
# fmt: on


def remembered_by(site):
    def step(total, _):
        total = total + number(site(theta()))
        return total, total**2

    return jnp.sum(lax.scan(step, 0.0, None, length=5)[1])


@pytest.mark.parametrize("name", WRONG)
def test_is_refused(name):
    wrong = WRONG[name]
    with pytest.raises(wrong.error) as info:
        wrong.run()
    error = info.value
    assert wrong.what in error.what, error
    assert error.address == wrong.address, error
    assert wrong.because in (error.because or ""), error
    assert wrong.fix in (error.fix or ""), error
    if wrong.here:
        assert error.where and re.search(r"test_errors\.py:\d+", error.where), error
    assert all(line in str(error) for line in filter(None, [error.what, error.because, error.fix]))
    assert error.fix or error.because, "an error says why, or what to do"


WRONG_ARGUMENTS = {
    "a number for an objective": (lambda: compile(3), TypeError, "expected an objective program"),
    "a program for an objective": (lambda: compile(model), TypeError, r"vi\.elbo\(model, guide"),
    "no samples": (lambda: compile(theta, num_samples=0), ValueError, "at least 1, not 0"),
    "half a sample": (lambda: compile(theta, num_samples=2.5), ValueError, "whole number"),
    "one strategy": (lambda: compile(theta, strategies="score"), TypeError, "dictionary"),
    "no particles": (
        lambda: vi.iwelbo(model, guide, particles=0, observed={"y": 0.5}), ValueError, "particles"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_wrong_argument_is_refused(name):
    run, error, message = WRONG_ARGUMENTS[name]
    with pytest.raises(error, match=message):
        run()


def test_a_choice_in_a_callback_needs_a_key():
    """The callback's Python runs outside of the program: its choice cannot be baked in."""
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    objective = lambda: jax.pure_callback(lambda: np.float32(normal(0.0, 1.0)), shape) + theta()
    with pytest.raises(Exception, match="was run without a key"):
        compile(objective).value(jax.random.key(0), {"theta": 0.3})


def test_prints_are_no_error(capfd):
    def objective():
        x = normal.score(theta(), 1.0)
        b = flip.enum(0.5)
        jax.debug.print("x={x} b={b}", x=x, b=b)
        return x + number(b)

    est = compile(objective, num_samples=1)
    est.value(jax.random.key(0), {"theta": 0.3})
    jax.effects_barrier()
    assert capfd.readouterr().out.count("x=") == 2  # one for each value of b


def test_plates_name_the_choice():
    @gen
    def lane():
        normal.enum(0.0, 1.0) @ "z"

    @gen
    def program():
        plate(lane, size=3)() @ "rows"

    with pytest.raises(StrategyError) as error:
        compile(lambda: jnp.sum(sim(program)()[0]["rows"]["z"])).plan()
    assert error.value.address == "program/rows/z"
    assert "strategies={'program/rows/z'" in error.value.fix


def test_categorical_strategies_are_suggested():
    with pytest.raises(StrategyError) as error:
        compile(lambda: number(categorical.reparam(jnp.zeros(3) * theta()))).plan()
    assert "categorical.enum(...) or categorical.score(...)" in error.value.fix
