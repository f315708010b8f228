"""The noisy cone: how far five objectives get, and which guides see the whole posterior.

x and y are wide normals, and x^2 + y^2 is seen with noise, to be 5: the posterior is a thin ring. A
guide with independent normals finds one arc of it. A guide that first draws an angle can follow the
ring, but its density of (x, y) is an integral over the angle: `marginal` estimates it, better and
better with more particles (hierarchical, importance-weighted and doubly importance-weighted
bounds). Everything is trained by plain stochastic gradients, as in the paper; where NumPyro can
express an objective it is trained too, and its parameters are judged by the same estimate.

Source: Becker et al. (arXiv 2406.15742), figure 2 and table 4.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples._report import run_as_script
from ppl import gen, normal, param, uniform, vi
from stdlib.report import OUTPUTS, console, print_table, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Z = 5.0  # what is seen
LOG_EVIDENCE = -5.323232  # by quadrature over the radius
RATE = 1e-3  # of plain gradient ascent, as in the paper
BATCH = 64


@gen
def cone():
    x = normal(0.0, 10.0) @ "x"
    y = normal(0.0, 10.0) @ "y"
    r = x**2 + y**2
    normal(r, 0.1 + r / 100.0) @ "z"


@gen
def naive():
    x, y = param("x", 0.0), param("y", 0.0)
    normal.reparam(x, jnp.exp(param("log_x", 1.0))) @ "x"
    normal.reparam(y, jnp.exp(param("log_y", 1.0))) @ "y"


@gen
def ring():
    u = uniform.reparam(0.0, 1.0) @ "u"
    angle = 2 * jnp.pi * u
    normal.reparam(jnp.sqrt(Z) * jnp.cos(angle), jnp.exp(param("log_x", 0.0))) @ "x"
    normal.reparam(jnp.sqrt(Z) * jnp.sin(angle), jnp.exp(param("log_y", 0.0))) @ "y"


@gen
def any_angle(kept):
    uniform.reparam(0.0, 1.0) @ "u"


SEEN: dict[str, Any] = {"observed": {"z": Z}}


@dataclass
class Row:
    """An objective, and what the paper reports of it: this system, NumPyro (`None`: it cannot)."""

    name: str
    objective: Any
    paper: float | None
    paper_numpyro: str
    start: dict[str, float]


OBJECTIVES = {
    "naive": Row("ELBO", vi.elbo(cone, naive, **SEEN), -8.08, "-8.08", {}),
    # From the middle the importance-weighted bound takes long to choose a side.
    "iwelbo": Row(
        "IWELBO, 5", vi.iwelbo(cone, naive, particles=5, **SEEN), -7.79, "-7.77", {"x": 3.0}
    ),
    "iwelbo 20": Row(
        "IWELBO, 20", vi.iwelbo(cone, naive, particles=20, **SEEN), None, "", {"x": 3.0}
    ),
    "hvi": Row("HVI", vi.hvi(cone, ring, any_angle, **SEEN), -9.75, "by hand", {}),
    "iwhvi": Row(
        "IWHVI, 5", vi.iwhvi(cone, ring, any_angle, inner_particles=5, **SEEN), -8.18, "-", {}
    ),
    "diwhvi": Row(
        "DIWHVI, 5 and 5",
        vi.diwhvi(cone, ring, any_angle, particles=5, inner_particles=5, **SEEN),
        -7.33,
        "-",
        {},
    ),
}


@dataclass
class Result:
    """A trained guide: its parameters, its bound and that one's standard error, in nats; seconds
    of training, compilation included."""

    params: dict[str, float]
    bound: float
    error: float
    seconds: float


def train(row: Row, steps: int, evaluations: int) -> Result:
    """Gradient ascent with `BATCH` draws a step, and the bound at the end."""
    start = time.perf_counter()
    fit = vi.fit(
        row.objective,
        steps=steps,
        optimizer=optax.sgd(RATE),
        num_samples=BATCH,
        key=jax.random.key(1),
        params={**vi.compile(row.objective).init(jax.random.key(0)), **_arrays(row.start)},
        progress=False,
    )
    seconds = time.perf_counter() - start
    params = {name: float(x) for name, x in fit.params.items()}
    return Result(params, *evaluate(row, params, evaluations), seconds)


def evaluate(row: Row, params: dict[str, float], n: int) -> tuple[float, float]:
    """The objective's mean over `n` draws, and its standard error."""
    est, values = vi.compile(row.objective, num_samples=1), _arrays(params)
    draws = jax.jit(jax.vmap(lambda key: est.value(key, values)))(
        jax.random.split(jax.random.key(2), n)
    )
    return float(jnp.mean(draws)), float(jnp.std(draws) / np.sqrt(n))


def _arrays(params: dict[str, float]) -> dict[str, Any]:
    return {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}


# ------------------------------------------------------------------------------- NumPyro


def train_with_numpyro(steps: int) -> dict[str, tuple[dict[str, float], float]]:
    """NumPyro's parameters for the objectives that it has, and the seconds of training.

    The hierarchical bound is written by hand: the model gets the angle as a choice of its own.
    """
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

    def model() -> None:
        x = numpyro.sample("x", dist.Normal(0.0, 10.0))
        y = numpyro.sample("y", dist.Normal(0.0, 10.0))
        r = x**2 + y**2
        numpyro.sample("z", dist.Normal(r, 0.1 + r / 100.0), obs=jnp.asarray(Z))

    def model_with_angle() -> None:
        numpyro.sample("u", dist.Uniform(0.0, 1.0))
        model()

    def naive_from(x: float) -> Any:
        def guide() -> None:
            for name, start in (("x", x), ("y", 0.0)):
                scale = jnp.exp(jnp.asarray(numpyro.param(f"log_{name}", 1.0)))
                numpyro.sample(name, dist.Normal(numpyro.param(f"{name}_loc", start), scale))

        return guide

    def ring() -> None:
        angle = 2 * jnp.pi * numpyro.sample("u", dist.Uniform(0.0, 1.0))
        for name, loc in (("x", jnp.cos(angle)), ("y", jnp.sin(angle))):
            scale = jnp.exp(jnp.asarray(numpyro.param(f"log_{name}", 0.0)))
            numpyro.sample(name, dist.Normal(jnp.sqrt(Z) * loc, scale))

    runs = {
        "naive": (model, naive_from(0.0), Trace_ELBO(num_particles=BATCH)),
        # Its importance-weighted bound has one set of particles a step, as in the paper.
        "iwelbo": (model, naive_from(3.0), RenyiELBO(alpha=0.0, num_particles=5)),
        "hvi": (model_with_angle, ring, Trace_ELBO(num_particles=BATCH)),
    }
    found = {}
    for name, (program, guide, loss) in runs.items():
        start = time.perf_counter()
        svi = SVI(program, guide, optax.sgd(RATE), loss)
        result = svi.run(jax.random.key(1), steps, progress_bar=False)
        params = {k.removesuffix("_loc"): float(v) for k, v in result.params.items()}
        found[name] = params, time.perf_counter() - start
    return found


# ---------------------------------------------------------------------------------- report


def main(quick: bool = False, folder: Path = OUTPUTS, numpyro: bool = True) -> dict[str, Result]:
    """Train all, also with NumPyro if asked to, print the table beside the paper's figures, and
    save the figure."""
    steps, evaluations = (300, 4_000) if quick else (5_000, 200_000)
    results = {name: train(row, steps, evaluations) for name, row in OBJECTIVES.items()}
    theirs: dict[str, Any] = {}
    if numpyro and importlib.util.find_spec("numpyro") is None:
        console.print("NumPyro is not installed (--extra bench): its column stays empty")
    elif numpyro:
        theirs = train_with_numpyro(300 if quick else 6_000)
    rows = []
    for name, row in OBJECTIVES.items():
        result, other = results[name], theirs.get(name)
        reached = "-"
        if other is not None:
            bound, error = evaluate(row, other[0], evaluations)
            reached = f"{bound:.3f} ± {error:.3f}"
        rows.append(
            (
                row.name,
                f"{result.bound:.3f} ± {result.error:.3f}",
                "-" if row.paper is None else f"{row.paper:.2f}",
                reached,
                row.paper_numpyro or "-",
                f"{result.seconds:.1f}",
                "-" if other is None else f"{other[1]:.1f}",
            )
        )
    header = ("objective", "here", "paper", "NumPyro", "its paper figure", "s", "NumPyro s")
    print_table("bound on log p(z) after training, in nats", header, rows)
    console.print(
        f"log p(z) = {LOG_EVIDENCE:.4f}; the best independent normals reach -8.0745, the best "
        "ring -9.7481 (HVI)",
        soft_wrap=True,
    )
    save_figure(draw(results), "cone", folder)
    return results


def draw(results: dict[str, Result]) -> Figure:
    """The guides' draws over the posterior, as in figure 2."""
    import matplotlib.pyplot as plt

    panels = ["naive", "iwelbo 20", "hvi", "iwhvi", "diwhvi"]
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 3.2), sharey=True)
    grid = np.linspace(-4, 4, 300)
    r = grid[:, None] ** 2 + grid**2
    scale = 0.1 + r / 100
    log_posterior = -0.5 * ((Z - r) / scale) ** 2 - np.log(scale) - r / 200
    for axis, name in zip(axes, panels, strict=True):
        row, params = OBJECTIVES[name], _arrays(results[name].params)
        axis.contourf(grid, grid, np.exp(log_posterior), levels=12, cmap="Greys")
        fit = vi.fit(row.objective, steps=1, params=params, progress=False, optimizer=optax.sgd(0))
        draws = fit.sample(400)
        axis.plot(draws["x"], draws["y"], ".", ms=2, color="tab:red")
        axis.set(title=f"{row.name}: {results[name].bound:.2f}", xlim=(-4, 4), ylim=(-4, 4))
        axis.set_aspect("equal")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    run_as_script(main, __doc__)
