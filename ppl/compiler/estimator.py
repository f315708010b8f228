"""`compile`: from an objective program to a gradient estimator."""

from __future__ import annotations

import copy
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler import boxes
from ppl.compiler.explain import Explanation, explain
from ppl.compiler.influence import site_of
from ppl.compiler.lower import Lowering
from ppl.compiler.noise import NOISE, Noise
from ppl.compiler.objective import Objective, as_objective
from ppl.compiler.plan import CannotEnumerate, Plan, make_plan
from ppl.compiler.rewrites import apply, check_names
from ppl.compiler.variance import gradient_variance
from ppl.errors import AddressError, BiasWarning, ShapeError, StrategyError, suggestion
from ppl.lang.keys import sample_keys
from ppl.lang.seed import param_leaves
from ppl.lang.staged import ParamDecl, Staged, initial_params, stage
from ppl.lang.supports import unconstrain_all

DEFAULT_SAMPLES = 4
"""Samples for a plan with score choices, whose leave-one-out baseline needs others."""

Params = dict[str, Any]
State = dict[str, Any]


class Estimator:
    """An unbiased estimator of an objective and of its gradient.

    Made by `compile`. Its methods are pure: jit, vmap, scan them. `params` is a dictionary from
    parameter name to value (array, pytree or Equinox module) in the parameters' own supports;
    `data` are the objective's arguments, and may be left out if the objective has its own.
    """

    def __init__(
        self,
        objective: Objective,
        strategies: Mapping[str, Any],
        num_samples: int | None,
        strict: bool,
        rewrites: Sequence[str] = (),
    ):
        self.objective = objective
        self.strict = strict
        self._strategies, self._rewrites = dict(strategies), tuple(rewrites)
        self._num_samples = num_samples
        self._programs: dict[Any, tuple[Staged, Plan]] = {}
        self.compiled: dict[Any, Any] = {}
        """what others compiled of it and may use again (`vi.fit` its loops), by their own names"""
        self._noise = NOISE

    def with_noise(self, noise: Noise) -> Estimator:
        """The same estimator with its random numbers from elsewhere (see `Noise`)."""
        other = copy.copy(self)  # shares what is planned
        other._noise, other.compiled = noise, {}
        return other

    # ------------------------------------------------------------------------------- staging

    def _program(self, data: tuple[Any, ...]) -> tuple[Staged, Plan]:
        """The staged program and its plan at the shapes of the data.

        Numbers that are no arrays (sizes, flags) are part of the program, as are strings and
        functions.
        """
        name = _shapes(data)
        if name not in self._programs:
            arrays, static = _split(data)
            staged = stage(lambda arrays: self.objective(*eqx.combine(arrays, static)), arrays)
            _check_scalar(self.objective.name, staged)
            plan = make_plan(staged, self._strategies)
            if self._rewrites:
                apply(staged, self._rewrites, plan.strategies)
                plan = make_plan(staged, self._strategies)
            self._report_kinks(plan)
            self._report_biased(plan)
            self._programs[name] = staged, plan
        return self._programs[name]

    def _replan(self, data: tuple[Any, ...], error: CannotEnumerate) -> None:
        """Plan again without a planned enumeration that turned out to be impossible."""
        staged, plan = self._program(data)
        if error.site in plan.asked:
            raise error
        refused = {**plan.refused, error.site: f"not enumerated: {error.because}"}
        self._programs[_shapes(data)] = staged, make_plan(staged, self._strategies, refused)

    def _report_kinks(self, plan: Plan) -> None:
        for kink in plan.kinks:
            address = kink.site.params["address"]
            fix = (
                f"strategies={{'{address}': 'score'}}"
                if kink.can_score
                else "compare a score choice that moves with the parameter with a constant, "
                "normal.score(theta, 1.0) > 0"
            )
            error = StrategyError(
                "the gradient of a discontinuous function of a random choice is biased",
                address=address,
                where=kink.where,
                because=f"'{kink.operation}' jumps, and a pathwise derivative does not see jumps",
                fix=f"{fix}; or assume_continuous(f) around it, if the function as a whole is "
                "continuous",
            )
            if self.strict:
                raise error
            warnings.warn(str(error), BiasWarning, stacklevel=5)

    def _report_biased(self, plan: Plan) -> None:
        """Strategies that are biased were asked for by name: an error only if strict."""
        if self.strict and plan.biased:
            eqn, because = next(iter(plan.biased.items()))
            raise StrategyError(
                f"the gradient of {plan.strategies[eqn].name!r} is biased",
                address=eqn.params["address"],
                where=eqn.where,
                because=because,
                fix="an unbiased strategy, or strict=False",
            )

    def plan(self, *data: Any) -> Plan:
        """The plan at the shapes of the data."""
        return self._program(data or self.objective.data)[1]

    def params(self, *data: Any) -> dict[str, ParamDecl]:
        """The declared parameters by name, with their supports and source lines."""
        return self._program(data or self.objective.data)[0].params

    def num_samples(self, *data: Any) -> int:
        """How many independent samples one estimate averages."""
        if self._num_samples is not None:
            return self._num_samples
        plan = self.plan(*data)
        scored = any(plan.strategies[site_of(s)].kind == "score" for s in plan.charged)
        return DEFAULT_SAMPLES if scored else 1

    def biased(self, *data: Any) -> list[str]:
        """Addresses of the choices whose gradient is, or may be, biased."""
        plan = self.plan(*data)
        sites = [*(k.site for k in plan.kinks), *plan.biased]
        return list(dict.fromkeys(e.params["address"] for e in sites))

    def explain(
        self,
        *data: Any,
        variance: bool = False,
        params: Params | None = None,
        key: jax.Array | None = None,
        draws: int = 1024,
    ) -> Explanation:
        """What the compiler does with the objective, and why; prints as text.

        Args:
            variance: measure the gradient's variance, and the part that each choice has in it
                (see `GradientVariance`).
            params: where to measure; the initial parameters if `None`.
            key: for the measurement; `jax.random.key(0)` if `None`.
            draws: gradients to measure with, about; each takes one more for each address.
        """
        data = data or self.objective.data
        measured = None
        if variance:
            key = jax.random.key(0) if key is None else key
            params = self.init(key, *data) if params is None else params
            measured = gradient_variance(self, params, data, key, draws)
        return explain(self.objective.name, self.plan(*data), self.num_samples(*data), measured)

    # ---------------------------------------------------------------------------- parameters

    def init(self, key: jax.Array, *data: Any) -> Params:
        """Initial values of all parameters.

        Raises:
            UnsupportedError: an initial value depends on a random choice or a loop's state.
            DataError: an initial value is not in its support.
        """
        data = data or self.objective.data
        staged, _ = self._program(data)
        return initial_params(staged, key, jax.tree.leaves(_split(data)[0]))

    def unconstrain(self, params: Params, *data: Any) -> Params:
        """The trainable part of the parameters, mapped to unconstrained reals.

        What does not train (integers, functions, sizes) is left out: `None` in its place.
        """
        decls = self.params(*data)
        trainable = {name: eqx.filter(p, eqx.is_inexact_array) for name, p in params.items()}
        supports = [
            decls[name].info.support for name, p in trainable.items() for _ in jax.tree.leaves(p)
        ]
        leaves = [x for p in trainable.values() for x in jax.tree.leaves(p)]
        values = iter(unconstrain_all(tuple(supports), leaves))
        return {name: jax.tree.map(lambda _: next(values), p) for name, p in trainable.items()}

    def constrain(self, unconstrained: Params, like: Params, *data: Any) -> Params:
        """The inverse of `unconstrain`; what does not train is taken from `like`."""
        decls = self.params(*data)
        values = {
            name: jax.tree.map(decls[name].info.support.constrain, p)
            for name, p in unconstrained.items()
        }
        return eqx.combine(values, eqx.partition(like, eqx.is_inexact_array)[1])

    # ------------------------------------------------------------------------------ estimates

    def init_state(self, *data: Any) -> State:
        """The first state of all that remembers or learns from step to step: baselines by cost,
        control variates by choice. Empty if there is none."""
        data = data or self.objective.data
        plan = self.plan(*data)
        state: State = {name: b.init() for (_, b), name in plan.memories.items()}
        for name, (eqn, control) in plan.controls.items():
            key = jax.random.key(zlib.crc32(name.encode()))
            state[name] = control.init(key, eqn, data)
        return state

    def surrogate(
        self, key: jax.Array, params: Params, *data: Any, state: State | None = None
    ) -> Array:
        """A scalar whose value and `jax.grad` are unbiased estimates.

        Baselines that remember and control variates that learn are as in `state`, or new.
        """
        return self.surrogate_and_state(key, params, state, *data)[0]

    def surrogate_and_state(
        self, key: jax.Array, params: Params, state: State | None, *data: Any
    ) -> tuple[Array, State]:
        """`surrogate`, and the state after it.

        What learns by gradients is still as it was: its gradient is that of the surrogate with
        respect to `learned(state)`, and `learn` makes the step (`value_grad_and_state` and
        `vi.fit` do both).
        """
        data = data or self.objective.data
        state = self.init_state(*data) if state is None else state
        value, seen = self._run(key, params, data, state)
        memories = self.plan(*data).memories.items()
        after = {n: b.update(state[n], seen[n]) for (_, b), n in memories}
        return value, {**state, **after}

    def learned(self, state: State, *data: Any) -> State:
        """The part of a state that learns by gradients; empty if nothing does."""
        return {n: state[n]["learned"] for n in self.plan(*data).controls}

    def with_learned(self, state: State, learned: State) -> State:
        """A state with another part that learns."""
        new = {n: {**state[n], "learned": part} for n, part in learned.items()}
        return {**state, **new}

    def learn(self, state: State, gradient: State, *data: Any) -> State:
        """A step of all that learns, by the surrogate's gradient with respect to it."""
        controls = self.plan(*data).controls.items()
        return {**state, **{n: c.update(state[n], gradient[n]) for n, (_, c) in controls}}

    def _run(
        self,
        key: jax.Array,
        params: Params,
        data: tuple[Any, ...],
        state: State,
        probe: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        while True:
            try:
                return self._lower(key, params, data, state, probe)
            except CannotEnumerate as error:
                self._replan(data, error)

    def _lower(
        self, key: jax.Array, params: Params, data: tuple[Any, ...], state: State, probe: bool
    ) -> tuple[Array, dict[str, Any]]:
        staged, plan = self._program(data)
        params = _with_arrays(params)
        _check_params(staged, params)
        arrays = [jnp.asarray(x) for x in jax.tree.leaves(_split(data)[0])]
        env = dict(zip(staged.block.ins, arrays, strict=True))
        env.update(param_leaves(staged, params))
        n = self.num_samples(*data)

        def once(key: jax.Array) -> tuple[Array, dict[str, Any]]:
            run = Lowering(plan, env, n, state, _split(data)[0], probe, self._noise)
            return run.run(key)[0], run.seen

        if n == 1:
            return once(key)
        each = jax.vmap(once, axis_name=boxes.SAMPLES)(_spread(sample_keys(key, n)))
        return jax.tree.map(lambda x: jnp.mean(x, 0), each)

    def value(self, key: jax.Array, params: Params, *data: Any) -> Array:
        """An unbiased estimate of the objective."""
        return self.surrogate(key, params, *data)

    def value_and_grad(self, key: jax.Array, params: Params, *data: Any) -> tuple[Array, Params]:
        """Unbiased estimates of the objective and of its gradient.

        The gradient is with respect to the parameters in their own supports; it has `None` for
        what does not train.
        """
        dynamic, static = eqx.partition(_with_arrays(params), eqx.is_inexact_array)

        def surrogate(dynamic: Params) -> Array:
            return self.surrogate(key, eqx.combine(dynamic, static), *data)

        return jax.value_and_grad(surrogate)(dynamic)

    def value_grad_and_state(
        self, key: jax.Array, params: Params, state: State, *data: Any
    ) -> tuple[Array, Params, State]:
        """`value_and_grad` with the state of what remembers and learns, and the state after it."""
        dynamic, static = eqx.partition(_with_arrays(params), eqx.is_inexact_array)

        def surrogate(dynamic: Params, learned: State) -> tuple[Array, State]:
            params = eqx.combine(dynamic, static)
            return self.surrogate_and_state(key, params, self.with_learned(state, learned), *data)

        both = jax.value_and_grad(surrogate, (0, 1), has_aux=True)
        (value, after), (grad, by_learned) = both(dynamic, self.learned(state, *data))
        return value, grad, self.learn(after, by_learned, *data)

    def grad(self, key: jax.Array, params: Params, *data: Any) -> Params:
        """An unbiased estimate of the gradient."""
        return self.value_and_grad(key, params, *data)[1]

    def check_finite(self, key: jax.Array, params: Params, *data: Any) -> str | None:
        """The first log-density (its address) or cost that is not finite with this key."""
        data = data or self.objective.data
        state = self.init_state(*data)
        _, seen = self._run(key, params, data, state, probe=True)
        shares = {n: float(x) for n, x in seen.items() if n not in state}
        return next((n for n, share in shares.items() if not share == 0), None)


def _spread(keys: Array) -> Array:
    """Spread the samples over the axis `samples` of the mesh that is set, if there is one."""
    size = jax.sharding.get_abstract_mesh().shape.get("samples", 1)
    if size == 1 or len(keys) % size:
        return keys
    return jax.lax.with_sharding_constraint(keys, jax.sharding.PartitionSpec("samples"))


def _split(data: tuple[Any, ...]) -> tuple[Any, Any]:
    """Arrays and real numbers, and all else, each with `None` in place of the other."""
    return eqx.partition(data, lambda x: eqx.is_array_like(x) and not isinstance(x, bool | int))


def _shapes(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """All of the data that a plan depends on."""
    arrays, static = _split(data)
    leaves, tree = jax.tree.flatten(arrays)
    others, other_tree = jax.tree.flatten(static)
    shapes = ((jnp.shape(x), jnp.result_type(x)) for x in leaves)
    return (tree, *shapes, other_tree, *others)


def _check_scalar(name: str, staged: Staged) -> None:
    outs = staged.block.outs
    real = len(outs) == 1 and jnp.issubdtype(outs[0].aval.dtype, jnp.floating)
    if not real or outs[0].aval.shape != ():
        found = ", ".join(o.aval.str_short() for o in outs) or "nothing"
        raise ShapeError(
            f"the objective {name!r} must return one real number",
            because=f"it returns {found}",
            fix="return a scalar, e.g. jnp.sum(...) or jnp.mean(...)",
        )


def _with_arrays(params: Params) -> Params:
    """The parameters with Python numbers, which users may give, as arrays.

    As `param` declares them: a number in an Equinox module (a dropout rate) is no parameter.
    """
    number = jnp.result_type(float)
    array = lambda x: jnp.asarray(x, number) if isinstance(x, float) else x
    return {
        name: p if isinstance(p, eqx.Module) else jax.tree.map(array, p)
        for name, p in params.items()
    }


def _check_params(staged: Staged, params: Params) -> None:
    for name, decl in staged.params.items():
        if name not in params:
            raise AddressError(
                f"no value was given for parameter {name!r}",
                where=decl.where,
                because=suggestion(name, params),
                fix="start from params = est.init(key, ...)",
            )
        found = [jnp.shape(x) for x in jax.tree.leaves(eqx.filter(params[name], eqx.is_array))]
        declared = {i: v.aval.shape for i, v in decl.leaves.items()}
        if len(found) != decl.info.treedef.num_leaves or any(
            found[i] != shape for i, shape in declared.items()
        ):
            raise ShapeError(
                f"the value of parameter {name!r} has the wrong shape",
                where=decl.where,
                because=f"expected {list(declared.values())}, found {found}",
                fix="start from params = est.init(key, ...)",
            )


def compile(
    objective: Any,
    *,
    strategies: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
    strict: bool = False,
    rewrites: str | Sequence[str] = (),
) -> Estimator:
    """Compile an objective program into an unbiased gradient estimator.

    Args:
        objective: a function of data (or what `vi.objective`, `vi.elbo`, ... return).
        strategies: gradient strategy by address pattern, e.g. `{"guide/k": "enum"}`; the first
            pattern that matches wins, and beats what the program says.
        num_samples: independent samples averaged in one estimate; by default 4 if the plan has
            score choices (the leave-one-out baseline needs others), else 1.
        strict: make a `BiasWarning` an error, and refuse strategies that are biased.
        rewrites: of log-densities, by name; none by default, as none always lowers the variance:
            `"closed_form"`: the expectation of a log-density over the choices it is a function of,
            where there is a formula (Kullback-Leibler divergences; Gaussian hierarchies).
            `"stl"`: sticking the landing, for reparameterised choices and the ELBO.
            `"dreg"`: doubly reparameterised gradients, for multi-sample bounds.

    Errors in the program are raised when its shapes are known: by `init`, `plan`, `value`, ...

    Raises:
        StrategyError: there is no rewrite of that name.
    """
    if num_samples is not None and (not isinstance(num_samples, int) or num_samples < 1):
        raise ValueError(
            f"compile: num_samples must be a whole number of at least 1, not {num_samples}"
        )
    if strategies is not None and not isinstance(strategies, Mapping):
        raise TypeError(
            "compile: strategies is a dictionary from address pattern to strategy, "
            f"{{'guide/*': 'score'}}, not {strategies!r}"
        )
    if isinstance(rewrites, str):
        rewrites = (rewrites,)
    check_names(rewrites)
    return Estimator(as_objective(objective), strategies or {}, num_samples, strict, rewrites)
