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
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, Key, PyTree

from ppl.compiler.estimator import Estimator, Params

_BLOCK = 16
_CAPACITY = 65_536


class State(NamedTuple):
    """What a step changes.

    Attributes:
        params: values in unconstrained space.
        optimizer: the optimiser's state.
        baselines: the estimator's state: what its baselines remember and learn.
    """

    params: PyTree
    optimizer: PyTree
    baselines: PyTree


class Loop:
    """The compiled loop of one fit: minimises minus the objective.

    Attributes:
        block: the number of steps of a run is a multiple of it, or any number if it is 1.
        capacity: the most steps of a run.
    """

    def __init__(
        self,
        estimator: Estimator,
        optimizer: optax.GradientTransformation,
        key: Key[Array, ""],
        params: Params,
        data: tuple[Any, ...],
        *,
        steps: int,
        chunk: int | None = None,
    ):
        """`params`: start values; `chunk`: the steps of every run but the last, if known."""
        self._estimator, self._key = estimator, key
        self._optimizer = optax.with_extra_args_support(optimizer)
        arrays, self._static = eqx.partition((params, data), _is_array)
        # Arguments of the compiled programs: as constants they would be compiled in.
        self._inputs = key, jax.tree.map(jnp.asarray, arrays)
        self._set_sizes(steps, min(chunk or steps, steps))
        self._run = jax.jit(self._chunk)

    def _set_sizes(self, steps: int, chunk: int) -> None:
        common = math.gcd(steps, chunk)
        self._inner = max(d for d in range(1, _BLOCK + 1) if common % d == 0)
        # A fixed length is better, but not if it is tiny: then inner loops vary in length.
        self._varies = self._inner < min(5, steps)
        self._inner = _BLOCK if self._varies else self._inner
        self.block = 1 if self._varies else self._inner
        most = chunk if chunk < steps else min(steps, _CAPACITY)
        self.capacity = most - most % self.block
        self._rows = math.ceil(self.capacity / self._inner)

    def start(self) -> State:
        """The state before the first step."""
        params, data = eqx.combine(self._inputs[1], self._static)
        params = self._estimator.unconstrain(params, *data)
        # A weakly typed leaf would come back strongly typed, and compile everything twice.
        params = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), params)
        return State(params, self._optimizer.init(params), self._estimator.init_state(*data))

    def constrain(self, state: State) -> Params:
        """The parameters in their supports."""
        return eqx.filter_jit(lambda inputs, params: self._bind(inputs, params)[0])(
            self._inputs, state.params
        )

    def compile(self, state: State) -> None:
        """Compile `run` for states like this one."""
        jax.block_until_ready(self.run(state, 0, 0))

    def run(self, state: State, first: int, count: int) -> tuple[State, Array, Array]:
        """Make `count` steps from step number `first`.

        Returns:
            the state after them; the losses, of which the first `count` are valid; whether the
            parameters are finite.
        """
        return self._run(self._inputs, state, jnp.int32(first), jnp.int32(count))

    def locate(self, state: State, first: int, stop: int) -> tuple[int, State]:
        """The first step whose loss or result is not finite (or `stop`), and the state before."""
        args = self._inputs, state, jnp.int32(first), jnp.int32(stop)
        index, before = jax.jit(self._until_failure)(*args)
        return int(index), before

    def loss_and_gradient(self, state: State, index: int) -> tuple[Array, PyTree]:
        """Of one step, with respect to the unconstrained parameters."""
        run = jax.jit(lambda *args: self._loss_and_gradient(*args)[:2])
        (loss, _), gradient = run(self._inputs, state, jnp.int32(index))
        return loss, gradient

    def step_key(self, index: int) -> Key[Array, ""]:
        """The key of a step."""
        return jax.random.fold_in(self._key, index)

    def _bind(self, inputs: Any, unconstrained: PyTree) -> tuple[Params, tuple[Any, ...]]:
        """The parameters in their supports, and the data."""
        like, data = eqx.combine(inputs[1], self._static)
        return self._estimator.constrain(unconstrained, like, *data), data

    def _loss_and_gradient(self, inputs, state, index):
        """((loss, baselines after), gradient), and the loss as a function of parameters."""
        key = jax.random.fold_in(inputs[0], index)
        estimator, (_, data) = self._estimator, self._bind(inputs, state.params)

        def loss(unconstrained, learned):
            params, data = self._bind(inputs, unconstrained)
            before = estimator.with_learned(state.baselines, learned)
            value, baselines = estimator.surrogate_and_state(key, params, before, *data)
            return -value, baselines

        learned = estimator.learned(state.baselines, *data)
        both = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (value, after), (gradient, by_learned) = both(state.params, learned)
        after = estimator.learn(after, by_learned, *data)
        return (value, after), gradient, lambda p: loss(p, learned)[0]

    def _step(self, inputs: Any, state: State, index: Int[Array, ""]) -> tuple[State, Array]:
        (value, baselines), grad, loss = self._loss_and_gradient(inputs, state, index)
        updates, optimizer = self._optimizer.update(
            grad, state.optimizer, state.params, value=value, grad=grad, value_fn=loss
        )
        return State(optax.apply_updates(state.params, updates), optimizer, baselines), value

    def _chunk(self, inputs, state, first, count):
        size, dtype = self._inner, jnp.result_type(float)

        def block(number, carry):
            state, losses = carry
            offset = number * size

            def step(i, carry):
                state, values = carry
                state, value = self._step(inputs, state, first + offset + i)
                return state, values.at[i].set(value.astype(dtype))

            length = jnp.minimum(size, count - offset) if self._varies else size
            state, values = lax.fori_loop(0, length, step, (state, jnp.zeros(size, dtype)))
            return state, losses.at[number].set(values)

        blocks = (count + size - 1) // size
        losses = jnp.zeros((self._rows, size), dtype)
        state, losses = lax.fori_loop(0, blocks, block, (state, losses))
        return state, losses.reshape(-1), _is_finite(state.params)

    def _until_failure(self, inputs, state, first, stop):
        def goes_on(carry):
            index, _, is_finite = carry
            return is_finite & (index < stop)

        def step(carry):
            index, old, _ = carry
            new, value = self._step(inputs, old, index)
            is_finite = jnp.isfinite(value) & _is_finite(new.params)
            state = jax.tree.map(lambda a, b: jnp.where(is_finite, a, b), new, old)
            return index + is_finite, state, is_finite

        index, state, _ = lax.while_loop(goes_on, step, (first, state, jnp.array(True)))
        return index, state


def _is_finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]).all()


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array) or (
        isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "biufc"
    )
