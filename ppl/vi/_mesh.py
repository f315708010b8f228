"""Where arrays lie on a mesh of devices: rows spread, everything else on all of them.

JAX's compiler does the rest: it splits the computation along the data and adds what the devices
have to tell each other. The random numbers do not depend on how arrays are spread.

On several hosts, each runs the same script with the same data and seed: first
`jax.distributed.initialize()`, then a fit with a mesh of all devices,
`jax.make_mesh((jax.device_count(),), ("data",))`. Each ends with the same fit.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROWS = "data"
"""The mesh axis over which rows of the data are spread."""


def check_mesh(mesh: Any) -> Mesh:
    """A mesh that the compiler may use as it likes.

    Raises:
        TypeError: it is no mesh.
        ValueError: its axes are not among `data` and `samples`.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(
            "vi.fit: mesh is a jax.sharding.Mesh, "
            f'jax.make_mesh((jax.device_count(),), ("data",)), not {type(mesh).__name__}'
        )
    if unknown := set(mesh.axis_names) - {"data", "samples"}:
        raise ValueError(
            f"vi.fit: the mesh has the axes {sorted(map(str, unknown))}; rows are spread over an "
            'axis "data", the samples of an estimate over an axis "samples"'
        )
    return Mesh(mesh.devices, mesh.axis_names)  # of axes that XLA's partitioner handles


def _rows_of(x: Any, mesh: Mesh, axis: int) -> NamedSharding:
    size = mesh.shape.get(ROWS, 1)
    if x.ndim <= axis or x.shape[axis] % size:
        return NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, ROWS if size > 1 else None))


def place_rows(data: Any, batched: tuple[bool, ...], mesh: Mesh, axis: int = 0) -> Any:
    """Arrays on the devices, with their rows spread where their number allows it."""
    leaves, tree = jax.tree.flatten(data)
    whole = NamedSharding(mesh, PartitionSpec())
    placed = [
        jax.device_put(x, _rows_of(x, mesh, axis) if rows else whole)
        for x, rows in zip(leaves, batched, strict=True)
    ]
    return jax.tree.unflatten(tree, placed)


def spread_rows(data: Any, mesh: Mesh) -> Any:
    """The same inside of a compiled program, for a batch that was gathered there."""
    put = lambda x: jax.lax.with_sharding_constraint(x, _rows_of(x, mesh, 0))
    return jax.tree.map(lambda x: put(x) if isinstance(x, jax.Array) else x, data)


def put_everywhere(tree: Any, mesh: Mesh) -> Any:
    """Arrays on all devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def replicated(tree: Any, mesh: Mesh) -> Any:
    """The same inside of a compiled program."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, whole), tree)
