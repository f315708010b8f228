"""Checkpoints of a fit, by Orbax. Needs the `checkpoint` extra.

Orbax writes a checkpoint beside the others and renames it when it is complete, so a kill at any
moment leaves the last complete one. It holds the loop's state, the losses and snapshots so far, the
place in the source of the data, and a description of the program (`_identity`), which must be that
of the program that goes on from it. As a step's keys and data depend on its number alone, the fit
then makes the very steps that it would have made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from ppl.errors import CheckpointError
from ppl.vi._identity import Identity, differences, digest, operations
from ppl.vi._run import Made, Run


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often `vi.fit` saves its state.

    Attributes:
        folder: of the checkpoints of one fit.
        every: steps between two of them; a twentieth of all steps if `None`.
        keep: how many of the last ones are kept.
    """

    folder: str | Path
    every: int | None = None
    keep: int = 2


def as_checkpoint(given: Any) -> Checkpoint | None:
    """A `Checkpoint` from what users pass.

    Raises:
        TypeError, ValueError: it is no folder, or its numbers are below 1.
    """
    if given is None or isinstance(given, Checkpoint):
        checkpoint = given
    elif isinstance(given, str | os.PathLike):
        checkpoint = Checkpoint(Path(given))
    else:
        raise TypeError(f"vi.fit: checkpoint is a folder or a vi.Checkpoint, not {given!r}")
    every = None if checkpoint is None else checkpoint.every
    if checkpoint is not None and min(checkpoint.keep, 1 if every is None else every) < 1:
        raise ValueError(f"vi.fit: {checkpoint}: every and keep must be at least 1")
    return checkpoint


def describe_optimizer(optimizer: optax.GradientTransformation, params: PyTree) -> str:
    """A fingerprint of what an optimiser does, with its constants."""
    extra = {
        "value": np.float32(0),
        "value_fn": lambda p: sum(x.sum() for x in jax.tree.leaves(p)),
        "fisher": lambda: lambda v: v,
    }
    update = optax.with_extra_args_support(optimizer).update
    jaxpr = jax.make_jaxpr(lambda g, s, p: update(g, s, p, grad=g, **extra))
    lines = operations(jaxpr(params, optimizer.init(params), params))
    return digest([np.frombuffer("\n".join(lines).encode(), np.uint8)])


class Checkpoints:
    """The checkpoints of one fit.

    Raises:
        ImportError: Orbax is not installed.
    """

    def __init__(self, checkpoint: Checkpoint, every: int, identity: Identity):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError(
                "checkpoints need Orbax: install the extra with "
                "`pip install 'ppl[checkpoint]'` or `uv sync --extra checkpoint`"
            ) from error
        self._ocp, self._every, self._identity = ocp, every, identity
        self._folder = Path(checkpoint.folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=checkpoint.keep, create=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._last = self._manager.latest_step() or 0

    def save(self, run: Run) -> None:
        """Save the state of a run, if it is time to."""
        step = run.made.step
        if step - self._last < self._every and step < run.steps:
            return
        self._last = step
        windows = None if run.windows is None else run.windows.kept
        snapshots = [eqx.filter(params, eqx.is_array) for _, params in run.history]
        arrays = run.made.state, run.losses, snapshots, windows
        args = self._ocp.args
        leaves = {f"{i:07d}": _plain(x) for i, x in enumerate(jax.tree.leaves(arrays))}
        history = [step for step, _ in run.history]
        meta = {"identity": self._identity, "place": run.made.place, "history": history}
        self._manager.save(
            step, args=args.Composite(arrays=args.StandardSave(leaves), meta=args.JsonSave(meta))
        )

    def resume(self, run: Run) -> None:
        """Go on from the last checkpoint, if there is one.

        Raises:
            CheckpointError: it is of another program, data or optimiser.
        """
        step = self._manager.latest_step()
        if step is None:
            return
        args = self._ocp.args
        described: Any = self._manager.restore(step, args=args.Composite(meta=args.JsonRestore()))
        meta = described.meta
        if found := differences(meta["identity"], self._identity):
            raise CheckpointError(
                f"the checkpoints in {self._folder} are of another fit",
                because="; ".join(found[:5]) + ("; ..." if len(found) > 5 else ""),
                fix="use the program, data and options that they were made with, or another folder",
            )
        saved: Any = self._manager.restore(step, args=args.Composite(arrays=args.StandardRestore()))
        leaves = [saved.arrays[name] for name in sorted(saved.arrays)]
        state_leaves, tree = jax.tree.flatten(run.made.state)
        count = len(state_leaves)
        pairs = zip(leaves[:count], state_leaves, strict=True)
        state = jax.tree.unflatten(tree, [_like(new, old) for new, old in pairs])
        losses, rest = np.asarray(leaves[count]), leaves[count + 1 :]
        run.made = Made(state, (losses,), step, meta["place"])
        arrays, others = eqx.partition(run.params(), eqx.is_array)
        old, tree = jax.tree.flatten(arrays)
        for step in meta["history"]:
            new, rest = rest[: len(old)], rest[len(old) :]
            noted = [_like(x, y) for x, y in zip(new, old, strict=True)]
            run.history.append((step, eqx.combine(jax.tree.unflatten(tree, noted), others)))
        run.continue_from(meta["place"], rest)

    def close(self) -> None:
        """Wait until what was saved is on the disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _plain(x: Any) -> Any:
    """An array that Orbax can write: keys as their data, numbers as arrays."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(x)
    return x if isinstance(x, jax.Array) else np.asarray(x)


def _like(new: Any, old: jax.Array) -> jax.Array:
    """A restored array with the type, and on the devices, of the one that it replaces."""
    if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(old))
    return jax.device_put(np.asarray(new, old.dtype), old.sharding)
