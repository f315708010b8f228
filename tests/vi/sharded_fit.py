"""Fits over several devices, and over two processes, for a test to compare.

`python -m tests.vi.sharded_fit OUT` fits without a mesh, on 2 and on 8 forced host devices;
`python -m tests.vi.sharded_fit OUT PORT RANK` is one of two processes of one device each.
"""

from __future__ import annotations

import os
import sys


def fits(meshes):
    """Losses and parameters of the same fits over each mesh: of all rows, and by minibatches."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from ppl import flip, gen, normal, plate, vi

    n = 64

    @gen
    def point(x, slope):
        bright = flip(0.5) @ "bright"
        normal(slope * x + bright, 1.0) @ "y"

    @gen
    def model(xs):
        slope = normal(0.0, 2.0) @ "slope"
        plate(point, in_axes=(0, None), total=n)(xs, slope) @ "points"

    @gen
    def local(_):
        flip.enum(0.4) @ "bright"

    @gen
    def guide(xs):
        from ppl import param, positive

        normal(param("m", 0.1), param("s", 0.5, support=positive)) @ "slope"
        plate(local, total=n)(xs) @ "points"

    xs = np.linspace(-1, 1, n).astype(np.float32)
    ys = 2 * xs + np.sin(7 * xs)
    program = vi.elbo(model, guide, observed={"points": {"y": jnp.asarray(ys)}}, args=(xs,))
    found = {}
    for name, mesh in meshes.items():
        for size in (None, 16):
            fit = vi.fit(
                program,
                steps=30,
                num_samples=4,
                batch_size=size,
                mesh=mesh,
                optimizer=optax.adam(0.05),
                progress=False,
            )
            values = np.array([float(fit.params["m"]), float(fit.params["s"])])
            found[f"{name}/{size}"] = np.concatenate([fit.losses, values])
    shapes = jax.tree.map(jnp.shape, fit.sample(3))
    assert shapes["slope"] == (3,)
    return found


def main():
    out, *processes = sys.argv[1:]
    if not processes:
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    import jax
    import numpy as np
    from jax.sharding import Mesh

    if processes:
        port, rank = processes
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
        assert jax.process_count() == 2 and len(jax.local_devices()) == 1
        meshes = {"processes": jax.make_mesh((2,), ("data",))}
    else:
        devices = np.array(jax.devices())
        assert len(devices) == 8
        meshes = {
            "none": None,
            "2": Mesh(devices[:2], ("data",)),
            "8": Mesh(devices.reshape(4, 2), ("data", "samples")),
        }
    found = fits(meshes)
    if not processes or processes[1] == "0":
        np.savez(out, **{name.replace("/", "_"): value for name, value in found.items()})


if __name__ == "__main__":
    main()
