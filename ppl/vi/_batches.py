"""Minibatches: which arrays of the data are rows, and which rows a step takes.

In memory, each epoch goes once through all rows in a new random order, and a step takes the next
`size` of them; where `size` does not divide the number of rows, those left over sit the epoch out.
Every row is as likely as any other to be in a step's batch, so the estimate is unbiased if the
program scales what it sums over rows: `plate(..., total=N)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from ppl.compiler.objective import Objective
from ppl.errors import DataError, ShapeError
from ppl.lang.plate import recording_totals


class Rows(NamedTuple):
    """How the data splits into batches.

    Attributes:
        size: rows of one batch.
        total: rows of the data.
        batched: for each leaf of the data, whether its leading axis are the rows.
    """

    size: int
    total: int
    batched: tuple[bool, ...]

    @property
    def per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.total // self.size

    def order(self, key: Key[Array, ""], epoch: Any) -> Int[Array, " rows"]:
        """The order of the rows in an epoch."""
        # No step has this number: the steps' keys are others.
        key = jax.random.fold_in(jax.random.fold_in(key, np.uint32(0xFFFFFFFF)), epoch)
        return jax.random.permutation(key, self.total)

    def take(self, data: Any, indices: Any) -> Any:
        """The data with these rows only."""
        leaves, tree = jax.tree.flatten(data)
        pairs = zip(leaves, self.batched, strict=True)
        return jax.tree.unflatten(tree, [x[indices] if rows else x for x, rows in pairs])

    def step(self, data: Any, order: Int[Array, " rows"], index: Any) -> Any:
        """The batch of a step."""
        start = (index % self.per_epoch) * self.size
        return self.take(data, jax.lax.dynamic_slice_in_dim(order, start, self.size))


def rows_of(data: tuple[Any, ...], size: int, axes: Any = None) -> Rows:
    """Find the rows of the data.

    Args:
        size: of a batch.
        axes: 0 where the leading axis are the rows and `None` where it is not: a tree like the
            data, or a prefix of it. By default, all arrays of rank 1 or more are rows.

    Raises:
        ShapeError: the arrays disagree on the number of rows, or there are none.
        ValueError: a batch is larger than the data.
    """
    batched = _batched(data, axes)
    found = {
        jax.tree_util.keystr(path): np.shape(leaf)[0]
        for (path, leaf), rows in zip(_leaves(data), batched, strict=True)
        if rows
    }
    if len(set(found.values())) != 1:
        sizes = ", ".join(f"data{path} has {n}" for path, n in found.items()) or "there are none"
        raise ShapeError(
            "vi.fit: batch_size needs arrays with the same number of rows",
            because=f"rows of the data: {sizes}",
            fix="say which arrays are rows, 0, and which are not, None, as for jax.vmap's in_axes: "
            'batch_axes=({"y": 0}, (0, None))',
        )
    total = next(iter(found.values()))
    if size > total:
        raise ValueError(f"vi.fit: batch_size is {size}, but the data has {total} rows")
    return Rows(size, total, batched)


def _leaves(data: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(data)


def _batched(data: Any, axes: Any) -> tuple[bool, ...]:
    if axes is None:
        return tuple(np.ndim(leaf) > 0 for _, leaf in _leaves(data))
    spread = jax.tree.map(
        lambda axis, part: jax.tree.map(lambda _: axis, part),
        axes,
        data,
        is_leaf=lambda axis: axis is None,
    )
    flat = jax.tree.leaves(spread, is_leaf=lambda axis: axis is None)
    if set(flat) - {0, None}:
        raise ValueError(f"vi.fit: batch_axes has entries 0 and None only, not {axes}")
    return tuple(axis == 0 for axis in flat)


def check_totals(objective: Objective, batch: tuple[Any, ...], total: int | None) -> None:
    """Refuse a program that does not scale what it sums over the rows.

    Only a program made from a model and a guide is checked; an objective of one's own may scale
    by other means.

    Args:
        batch: data of one step.
        total: rows of the whole data, if known.

    Raises:
        DataError: no plate of the program has that total.
    """
    if objective.guide is None:
        return
    arrays, static = eqx.partition(batch, lambda x: eqx.is_array(x) or isinstance(x, np.ndarray))
    with recording_totals() as totals:
        jax.eval_shape(lambda arrays: objective(*eqx.combine(arrays, static)), arrays)
    if totals and (total is None or total in totals):
        return
    found = f"its plates have total={sorted(set(totals))}" if totals else "no plate has a total"
    rows = "N" if total is None else total
    raise DataError(
        f"vi.fit: {objective.name} does not scale its terms to the whole data",
        because=f"the data has {rows} rows and a step sees a batch of them, but {found}",
        fix=f"plate(..., total={rows}) over the rows, in the model and, if it has choices there, "
        "in the guide",
    )


def check_params_fixed(whole: dict[str, Any], batch: dict[str, Any]) -> None:
    """Refuse parameters with an entry for each row of a batch.

    Args:
        whole, batch: the declared parameters at the shapes of the whole data, and of a batch.

    Raises:
        ShapeError: a parameter's shape differs.
    """
    for name, decl in batch.items():
        shapes = [v.aval.shape for v in decl.leaves.values()]
        expected = [v.aval.shape for v in whole[name].leaves.values()] if name in whole else shapes
        if shapes != expected:
            raise ShapeError(
                f"vi.fit: parameter {name!r} has an entry for each row of the batch",
                where=decl.where,
                because=f"its shape is {expected} for the whole data and {shapes} for a batch, so "
                "different rows would share an entry from step to step",
                fix="declare it for all rows and take those of the batch, param(name, "
                "jnp.zeros(N))[indices] with the rows' numbers among the arguments; or compute it "
                "from the data, as vi.amortised does",
            )


class Stream:
    """Batches of a `grain` source, several at a time, and its place for a checkpoint.

    Args:
        source: a grain dataset (of rows if `size` is given, else of batches) or loader. A
            `grain.MapDataset` of rows is shuffled and repeated here.
        size: rows of a batch.
        key: random key of the shuffles.

    Raises:
        DataError: the source ends.
    """

    def __init__(self, source: Any, size: int | None, key: Key[Array, ""]):
        import grain

        self.total: int | None = None
        if isinstance(source, grain.MapDataset):
            if size is not None:
                self.total = len(source)
                bits = jax.random.key_data(jax.random.fold_in(key, np.uint32(0xFFFFFFFF)))
                seed = int(np.asarray(bits).ravel()[-1])
                source = source.shuffle(seed=seed).repeat().batch(size, drop_remainder=True)
            source = source.to_iter_dataset()
        elif size is not None:
            source = source.batch(size, drop_remainder=True)
        self._iterator: Any = iter(source)
        self._start = self.place
        self._read = 0

    @property
    def place(self) -> Any:
        """Where the source is: before the next batch to be read."""
        return self._iterator.get_state()

    def go_to(self, place: Any) -> None:
        """Continue at a place noted before."""
        self._iterator.set_state(place)

    def peek(self) -> tuple[Any, ...]:
        """The first batch."""
        (batch,) = self._next(1)
        self.rewind()
        return batch

    def rewind(self) -> None:
        """Go back to the start."""
        self.go_to(self._start)
        self._read = 0

    def stacked(self, count: int, length: int) -> Any:
        """The next batches, along a leading axis; the last one is repeated up to `length`."""
        batches = self._next(count)
        batches += batches[-1:] * (length - len(batches))
        return jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *batches)

    def _next(self, count: int) -> list[tuple[Any, ...]]:
        batches = []
        for _ in range(count):
            try:
                batch = next(self._iterator)
            except StopIteration:
                raise DataError(
                    f"vi.fit: the source of the data ended after {self._read} batches",
                    because="the fit needs one batch for each step",
                    fix="repeat it, dataset.repeat(), or make fewer steps",
                ) from None
            self._read += 1
            batches.append(batch if isinstance(batch, tuple) else (batch,))
        return batches


def is_source(data: Any) -> bool:
    """Whether the data is a grain dataset or loader."""
    return type(data).__module__.partition(".")[0] == "grain"
