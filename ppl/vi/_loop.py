"""The optimisation loop on the device.

Two nested loops inside one `jit`. The outer one's number of steps is an argument, so that any
number of steps runs without another compilation. The inner one makes up to 16 steps and keeps
their losses in a small array: XLA compiles such a small loop to one native function, which makes
the steps of a tiny model 2.5 times as fast as one long `lax.scan` does (CPU, jax 0.11), and on
a GPU an inner loop of known length needs no word from the host after each step.

There is no check inside a step, so it costs what a hand-written loop's costs. A run only says
whether its last parameters are finite; the losses show the rest. The states are not donated: a
run's start stays valid (the price is one more copy of parameters and optimiser state), and if
the run went wrong, `locate` repeats it from there, step by step, to the exact step. Keys depend
on the step's number alone, so the repetition, and any other chunking, draws the same.

A `Loop` holds no data, only the program: `loop_for` makes one, or finds the one of an earlier fit
with the same estimator, optimiser and sizes, compiled already.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, Key, PyTree

from ppl.compiler.estimator import Estimator, Params
from ppl.errors import UnsupportedError
from ppl.vi._batches import Rows
from ppl.vi._mesh import replicated, spread_rows
from ppl.vi.natural_gradient import fisher_product, wants_fisher

_BLOCK = 16
_CAPACITY = 65_536
_KEPT = 8  # loops kept for one estimator


class State(NamedTuple):
    """What a step changes.

    With restarts, all but `order` have a leading axis of them.

    Attributes:
        params: values in unconstrained space.
        optimizer: the optimiser's state.
        baselines: the estimator's state: what its baselines remember and learn.
        order: the order of the rows in this epoch, with minibatches from memory.
    """

    params: PyTree
    optimizer: PyTree
    baselines: PyTree
    order: Int[Array, " rows"] | None = None


class Inputs(NamedTuple):
    """What the steps see and do not change; arguments of the compiled program.

    Attributes:
        key: of the steps; with restarts, one for each.
        params: arrays of the start values; those that do not train are taken from here.
        data: arrays of the data, or the batches of a run, one after the other.
    """

    key: Key[Array, ...]
    params: PyTree
    data: PyTree


class Moments(NamedTuple):
    """Sums over the iterates of a run, of their differences from its start."""

    sum: PyTree
    squares: PyTree


class Made(NamedTuple):
    """What a run made.

    Attributes:
        state: after the run.
        losses: of which as many are valid as there were steps; with restarts `[steps, restarts]`.
        finite: whether the parameters are finite.
        moments: of the iterates, if asked for.
    """

    state: State
    losses: Array
    finite: Bool[Array, ...]
    moments: Moments | None


class Sizes(NamedTuple):
    """How many steps a run makes.

    Attributes:
        inner: steps of the inner loop, at most.
        varies: whether they may be fewer.
        rows: inner loops of one run, at most.
        block: the number of steps of a run is a multiple of it, or any number if it is 1.
        capacity: the most steps of a run.
    """

    inner: int
    varies: bool
    rows: int
    block: int
    capacity: int

    @staticmethod
    def of(steps: int, chunk: int | None) -> Sizes:
        """`chunk`: the steps of every run but the last, if known."""
        chunk = min(chunk or steps, steps)
        common = math.gcd(steps, chunk)
        inner = max(d for d in range(1, _BLOCK + 1) if common % d == 0)
        # A fixed length is better, but not if it is tiny: then inner loops vary in length.
        varies = inner < min(5, steps)
        inner = _BLOCK if varies else inner
        block = 1 if varies else inner
        most = chunk if chunk < steps else min(steps, _CAPACITY)
        capacity = most - most % block
        return Sizes(inner, varies, math.ceil(capacity / inner), block, capacity)


def loop_for(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    static: Any,
    sizes: Sizes,
    **options: Any,
) -> Loop:
    """The loop for these, from an earlier fit if there was one."""
    leaves, tree = jax.tree.flatten(static)
    name = (optimizer, *leaves, tree, sizes, *sorted(options.items()))
    loop = lambda: Loop(estimator, optimizer, static, sizes, **options)
    if not all(isinstance(part, Hashable) for part in name):
        return loop()
    kept = estimator.compiled
    try:
        kept[name] = kept.pop(name, None) or loop()  # the last used one comes last
    except TypeError:  # a tuple or an optimiser with something in it that has no hash
        return loop()
    while len(kept) > _KEPT:
        del kept[next(iter(kept))]
    return kept[name]


class Loop:
    """The compiled loop of a fit: minimises minus the objective.

    Args:
        static: what is no array of the start values and of the data.
        rows: how the data splits into batches, if it does.
        stream: whether the data come batch by batch.
        restarts: number of fits side by side, if more than one.
        track: whether runs return the moments of their iterates.
        place: `jax.sharding.Mesh` over which rows and samples are spread, if any.
    """

    def __init__(
        self,
        estimator: Estimator,
        optimizer: optax.GradientTransformation,
        static: Any,
        sizes: Sizes,
        *,
        rows: Rows | None = None,
        stream: bool = False,
        restarts: int | None = None,
        track: bool = False,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.sizes = sizes
        self._estimator, self._static = estimator, static
        self._optimizer = optax.with_extra_args_support(optimizer)
        self._rows, self._stream, self._restarts = rows, stream, restarts
        self._track, self._mesh = track, mesh
        self._run = jax.jit(self._chunk)
        self._locate = jax.jit(self._until_failure)
        self._bound = jax.jit(self._constrain)
        self._gradient = jax.jit(lambda *args: self._loss_and_gradient(*args)[:2])

    def start(self, inputs: Inputs, params: list[Params], data: tuple[Any, ...]) -> State:
        """The state before the first step.

        Args:
            params: start values of each restart.
            data: of one step.
        """
        unconstrained = [self._estimator.unconstrain(p, *data) for p in params]
        # A weakly typed leaf would come back strongly typed, and compile everything twice.
        unconstrained = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), unconstrained)
        states = [
            State(p, self._optimizer.init(p), self._estimator.init_state(*data))
            for p in unconstrained
        ]
        state = states[0]
        if self._restarts is not None:
            state = jax.tree.map(lambda *xs: jnp.stack(xs), *states)
        return state._replace(order=self._first_order(inputs))

    def _first_order(self, inputs: Inputs) -> Array | None:
        return None if self._rows is None else self._rows.order(self._shared_key(inputs), 0)

    def _shared_key(self, inputs: Inputs) -> Key[Array, ""]:
        """The key of what all restarts share: the order of the rows."""
        return inputs.key if self._restarts is None else inputs.key[0]

    def constrain(self, inputs: Inputs, unconstrained: PyTree) -> Params:
        """The parameters in their supports; without an axis of restarts."""
        params = self._bound(inputs, unconstrained)
        return eqx.combine(params, self._static[0])

    def _constrain(self, inputs: Inputs, unconstrained: PyTree) -> PyTree:
        data = self._data(inputs, self._first_order(inputs), 0, 0)
        return eqx.filter(self._bind(inputs, unconstrained, data), eqx.is_array)

    def run(self, inputs: Inputs, state: State, first: int, count: int) -> Made:
        """Make `count` steps from step number `first`."""
        # NumPy's numbers belong to no device, and so go along with arrays on any mesh.
        return self._run(inputs, state, np.int32(first), np.int32(count))

    def locate(self, inputs: Inputs, state: State, first: int, stop: int) -> tuple[int, State]:
        """The first step whose loss or result is not finite (or `stop`), and the state before."""
        index, before = self._locate(inputs, state, np.int32(first), np.int32(stop))
        return int(index), before

    def loss_and_gradient(
        self, inputs: Inputs, state: State, index: int, first: int
    ) -> tuple[Array, PyTree]:
        """Of one step, with respect to the unconstrained parameters.

        Args:
            first: the first step of the run.
        """
        state, data = self._prepare(inputs, state, jnp.int32(index), jnp.int32(first))
        key = self.step_key(inputs, index)
        (loss, _), gradient = self._gradient(key, inputs, state, data)
        return loss, gradient

    def step_key(self, inputs: Inputs, index: int) -> Key[Array, ""]:
        """The key of a step."""
        return jax.random.fold_in(inputs.key, index)

    def data(self, inputs: Inputs, state: State, index: int, first: int) -> tuple[Any, ...]:
        """What a step sees of the data."""
        return self._prepare(inputs, state, jnp.int32(index), jnp.int32(first))[1]

    # ------------------------------------------------------------------------------ one step

    def _prepare(
        self, inputs: Inputs, state: State, index: Array, first: Array
    ) -> tuple[State, tuple[Any, ...]]:
        """The state with the order of the step's epoch, and the step's data."""
        if self._rows is not None:
            rows, key = self._rows, self._shared_key(inputs)
            epoch, place = index // rows.per_epoch, index % rows.per_epoch
            order = lax.cond(place == 0, lambda: rows.order(key, epoch), lambda: state.order)
            state = state._replace(order=order)
        return state, self._data(inputs, state.order, index, first)

    def _data(self, inputs: Inputs, order: Array | None, index: Any, first: Any) -> tuple[Any, ...]:
        arrays = inputs.data
        if self._stream:
            arrays = jax.tree.map(lambda x: x[index - first], arrays)
        data = eqx.combine(arrays, self._static[1])
        if self._rows is not None and order is not None:
            data = self._rows.step(data, order, index)
        if self._mesh is not None and (self._rows is not None or self._stream):
            data = spread_rows(data, self._mesh)
        return data

    def _bind(self, inputs: Inputs, unconstrained: PyTree, data: tuple[Any, ...]) -> Params:
        like = eqx.combine(inputs.params, self._static[0])
        return self._estimator.constrain(unconstrained, like, *data)

    def _loss_and_gradient(self, key: Array, inputs: Inputs, state: State, data: tuple[Any, ...]):
        """((loss, baselines after), gradient), and the loss as a function of parameters."""

        def loss(unconstrained, learned):
            params = self._bind(inputs, unconstrained, data)
            before = self._estimator.with_learned(state.baselines, learned)
            value, baselines = self._estimator.surrogate_and_state(key, params, before, *data)
            return -value, baselines

        learned = self._estimator.learned(state.baselines, *data)
        both = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (value, after), (gradient, by_learned) = both(state.params, learned)
        after = self._estimator.learn(after, by_learned, *data)
        return (value, after), gradient, lambda p: loss(p, learned)[0]

    def _update(self, key: Array, inputs: Inputs, state: State, data: tuple[Any, ...]):
        """The state after a step of one fit, and the loss."""
        (value, baselines), grad, loss = self._loss_and_gradient(key, inputs, state, data)
        extra: dict[str, Any] = {"value": value, "grad": grad, "value_fn": loss}
        if wants_fisher(state.optimizer):
            extra["fisher"] = lambda: self._fisher(key, inputs, state, data)
        updates, optimizer = self._optimizer.update(grad, state.optimizer, state.params, **extra)
        return State(optax.apply_updates(state.params, updates), optimizer, baselines), value

    def _fisher(self, key: Array, inputs: Inputs, state: State, data: tuple[Any, ...]):
        """The product with the guide's Fisher matrix, for optimisers that ask for it."""
        objective = self._estimator.objective
        if objective.guide is None:
            raise UnsupportedError(
                f"{objective.name} has no guide whose Fisher matrix a natural gradient could use",
                fix="use vi.elbo or another objective of vi, or another optimiser",
            )
        args = objective.guide_args if objective.model is None else data[-1]
        constrain = lambda p: self._bind(inputs, p, data)
        return fisher_product(objective.guide, tuple(args), key, state.params, constrain)

    def _step(self, inputs: Inputs, state: State, index: Array, first: Array):
        state, data = self._prepare(inputs, state, index, first)
        each = state._replace(order=None)
        if self._restarts is None:
            key = jax.random.fold_in(inputs.key, index)
            new, value = self._update(key, inputs, each, data)
        else:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(inputs.key)
            update = lambda key, state: self._update(key, inputs, state, data)
            new, value = jax.vmap(update)(keys, each)
        return new._replace(order=state.order), value

    # ----------------------------------------------------------------------------- many steps

    def _chunk(self, inputs: Inputs, state: State, first: Array, count: Array) -> Made:
        size, varies, rows = self.sizes[:3]
        dtype = jnp.result_type(float)
        shape = () if self._restarts is None else (self._restarts,)
        start = state.params

        def block(number, carry):
            state, losses, moments = carry
            offset = number * size

            def step(i, carry):
                state, values, moments = carry
                state, value = self._step(inputs, state, first + offset + i, first)
                if moments is not None:
                    moments = _add(moments, start, state.params)
                return state, values.at[i].set(value.astype(dtype)), moments

            length = jnp.minimum(size, count - offset) if varies else size
            carry = state, jnp.zeros((size, *shape), dtype), moments
            state, values, moments = lax.fori_loop(0, length, step, carry)
            return state, losses.at[number].set(values), moments

        blocks = (count + size - 1) // size
        zeros = jax.tree.map(jnp.zeros_like, start)
        carry = (
            state,
            jnp.zeros((rows, size, *shape), dtype),
            Moments(zeros, zeros) if self._track else None,
        )
        state, losses, moments = lax.fori_loop(0, blocks, block, carry)
        finite = _is_finite(state.params) if not shape else jax.vmap(_is_finite)(state.params)
        made = Made(state, losses.reshape(-1, *shape), finite, moments)
        return made if self._mesh is None else replicated(made, self._mesh)

    def _until_failure(self, inputs: Inputs, state: State, first: Array, stop: Array):
        def goes_on(carry):
            index, _, is_finite = carry
            return is_finite & (index < stop)

        def step(carry):
            index, old, _ = carry
            new, value = self._step(inputs, old, index, first)
            is_finite = jnp.isfinite(value) & _is_finite(new.params)
            state = jax.tree.map(lambda a, b: jnp.where(is_finite, a, b), new, old)
            return index + is_finite, state, is_finite

        index, state, _ = lax.while_loop(goes_on, step, (first, state, jnp.array(True)))
        return index, state


def _add(moments: Moments, start: PyTree, params: PyTree) -> Moments:
    moved = jax.tree.map(lambda x, x0: x - x0, params, start)
    return Moments(
        jax.tree.map(jnp.add, moments.sum, moved),
        jax.tree.map(lambda total, d: total + d * d, moments.squares, moved),
    )


def _is_finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]).all()


def is_array(x: Any) -> bool:
    """Whether a leaf of parameters or data is an argument of the compiled program."""
    return isinstance(x, jax.Array) or (
        isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "biufc"
    )
