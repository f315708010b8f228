"""Attend, infer, repeat: how many digits are there, where, and which?

The model looks at nothing: it flips, up to three times, whether there is one more digit, draws its
window and its code, and pastes what a decoder makes of the code onto the canvas. The guide looks at
the canvas, decides whether there is something to see, and where, reads it, and erases it. All
networks are learned together from the canvases alone; nobody says how many digits there are.

Windows and codes are reparameterised. How the gradient gets past "one more?" is the experiment:
summed out, by measure-valued derivatives, by the score function, a mix of them, under the evidence
lower bound, the importance-weighted one, and reweighted wake-sleep. The programs stay as they are.

Sources: Eslami et al. (arXiv 1603.08575); Becker et al. (arXiv 2406.15742), figure 7 and table 2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples._report import run_as_script
from examples.programmable_vi import scenes
from examples.programmable_vi.scenes import CANVAS, DIGIT, Scenes, cut, paste
from ppl import bind_params, flip, gen, normal, param, seed, sim, vi
from stdlib.report import OUTPUTS, console, print_table, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS, CODE, WIDTH = 3, 10, 64
MORE = 0.05, 0.05**2.3, 0.05**5  # probabilities a priori of one more digit, as in the paper
NOISE = 0.15  # the paper has 0.3, and 6 times as many pixels in a digit
BATCH = 32


# -------------------------------------------------------------------------------- the programs


def network(inputs: int, outputs: int, depth: int = 1):
    """A multilayer perceptron, as a function of the key that its weights are drawn with."""
    return lambda key: eqx.nn.MLP(inputs, outputs, WIDTH, depth, jax.nn.leaky_relu, key=key)


def window(where):
    """Size, row and column, in pixels, from coordinates that are standard normal a priori."""
    size, middle = 7.0 * jnp.exp(0.1 * where[0]), (CANVAS - 1) / 2
    return jnp.stack([size, middle + 3.0 * where[1], middle + 3.0 * where[2]])


@gen
def model():
    decoder = param("decoder", network(CODE, DIGIT * DIGIT))
    canvas, there = jnp.zeros((CANVAS, CANVAS)), True
    for i in range(LOOKS):
        there &= flip(MORE[i]) @ f"more{i}"
        where = normal.mask(there)(jnp.zeros(3), 1.0) @ f"where{i}"
        code = normal.mask(there)(jnp.zeros(CODE), 1.0) @ f"code{i}"
        image = jax.nn.sigmoid(decoder(code) - 2.0).reshape(DIGIT, DIGIT)
        canvas += jnp.where(there, paste(image, window(where)), 0.0)
    normal(canvas, NOISE) @ "canvas"
    return canvas


@gen
def guide(canvas):
    look = param("look", network(CANVAS * CANVAS // 4, 7, depth=2))
    read = param("read", network(DIGIT * DIGIT, 2 * CODE))
    there = True
    for i in range(LOOKS):
        seen = look(halved(canvas).reshape(-1))
        more = jnp.clip(jax.nn.sigmoid(seen[0]), 1e-4, 1 - 1e-4)
        # After the last digit the flips mean nothing: then they are as in the model.
        there &= flip(jnp.where(there, more, MORE[i])) @ f"more{i}"
        where = normal.mask(there)(seen[1:4], jax.nn.softplus(seen[4:] - 1)) @ f"where{i}"
        loc, scale = jnp.split(read(cut(canvas, window(where)).reshape(-1)), 2)
        normal.mask(there)(loc, jax.nn.softplus(scale)) @ f"code{i}"
        canvas *= 1 - paste(jnp.ones((DIGIT, DIGIT)), window(where))


def halved(canvas):
    return canvas.reshape(CANVAS // 2, 2, CANVAS // 2, 2).mean((1, 3))


def per_canvas(bound: Callable[..., vi.Objective], **options: Any) -> vi.Objective:
    """The mean of an objective over canvases, each with particles of its own."""

    def objective(canvases):
        def one(canvas):
            data = {"canvas": canvas}
            program = bound(model, guide, observed=data, guide_args=(canvas,), **options)
            return program(*program.data)

        return jnp.mean(jax.vmap(one)(canvases))

    return vi.objective(objective)


# --------------------------------------------------------------------------------- the methods


@dataclass(frozen=True)
class Method:
    """An objective, and what to do with the flips.

    Attributes:
        strategies: for the flips, as for `vi.compile`.
        samples: of which one gradient is the mean, as for `vi.compile`.
        paper: seconds per epoch on its GPU (table 2), final ELBO and accuracy (figure 7); the
            latter two from a run of the paper's code. `None`: not in the paper.
    """

    name: str
    objective: vi.Objective
    strategies: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None
    paper: tuple[float | None, float | None, float | None] = (None, None, None)


ENUM, MVD, HYBRID = (
    {"guide/more*": "enum"},
    {"guide/more*": "mvd"},
    {f"guide/more{LOOKS - 1}": "enum", "guide/more*": "mvd"},
)
PLAIN_SCORE, SCORE = {"guide/more*": vi.Score("none")}, {"guide/more*": "score"}
ELBO, IWELBO = per_canvas(vi.elbo), per_canvas(vi.iwelbo, particles=2)
WAKE = per_canvas(vi.reweighted_wake_sleep, particles=10)

# "score" alone is the paper's: one sample, no baseline. Of four, each has the others as baseline.
METHODS = [
    Method("ELBO, enum", ELBO, ENUM, paper=(6.22, 634.4, 0.984)),
    Method("ELBO, mvd", ELBO, MVD, paper=(1.74, 634.7, 0.984)),
    Method("ELBO, mvd, mvd, enum", ELBO, HYBRID, paper=(None, 632.7, 0.950)),
    Method("ELBO, score", ELBO, PLAIN_SCORE, 1, paper=(1.52, 460.1, 0.275)),
    Method("ELBO, score, 4 samples", ELBO, SCORE, 4),
    Method("IWELBO(2), mvd", IWELBO, MVD, paper=(3.74, 638.5, 0.984)),
    Method("IWELBO(2), score", IWELBO, PLAIN_SCORE, 1, paper=(2.28, 568.8, 0.479)),
    Method("RWS(10)", WAKE, {"guide/more*": "score"}, 1, paper=(None, None, 0.666)),
]


# ------------------------------------------------------------------------------------ the runs


class Reading(eqx.Module):
    """What a draw of the guide says of each canvas.

    Attributes:
        bound: log p(canvas, draw) - log q(draw), in nats: the ELBO is its mean.
        there: `[canvases, looks]`, whether there is a digit.
        windows: `[canvases, looks, 3]`: size, row and column.
        canvas: the canvas as the model would have it.
    """

    bound: Any
    there: Any
    windows: Any
    canvas: Any

    @property
    def counts(self) -> np.ndarray:
        return np.asarray(self.there).sum(1)


@eqx.filter_jit
def read_canvases(params: dict[str, Any], key: jax.Array, canvases: Any) -> Reading:
    """One draw of the guide for each canvas."""

    def one(canvas):
        choices, log_q = sim(guide)(canvas)
        log_p, drawn = model.assess(choices | {"canvas": canvas})
        there = jnp.cumprod(jnp.stack([choices[f"more{i}"] for i in range(LOOKS)]))
        windows = [window(choices[f"where{i}"]) for i in range(LOOKS)]
        return Reading(log_p - log_q, there, jnp.stack(windows), drawn)

    return seed(bind_params(jax.vmap(one), params))(key, canvases)


@dataclass(frozen=True)
class Run:
    """A fit, and how it went on held-out scenes.

    Attributes:
        seconds, elbo, accuracy: after each stretch of steps: processor time in the loop (which
            other work on the machine does not change), nats per scene, and the share of scenes
            whose digits were counted rightly by one draw of the guide.
    """

    method: Method
    fit: vi.Fit
    seconds: np.ndarray
    elbo: np.ndarray
    accuracy: np.ndarray

    @property
    def step_ms(self) -> float:
        return 1e3 * float(self.seconds[-1]) / self.fit.steps

    def elbo_at(self, seconds: float) -> float:
        """The held-out bound after so much processor time."""
        return float(np.interp(seconds, self.seconds, self.elbo))

    def seconds_until(self, accuracy: float) -> float | None:
        """Processor time until the accuracy was first reached."""
        reached = np.flatnonzero(self.accuracy >= accuracy)
        return float(self.seconds[reached[0]]) if len(reached) else None


def train(method: Method, given: Scenes, held_out: Scenes, steps: int, stretch: int) -> Run:
    """Fit by one method; look at the held-out scenes after each stretch of steps."""
    estimator = vi.compile(
        method.objective, strategies=method.strategies, num_samples=method.samples
    )
    looking, rows = 0.0, []

    def look(report: vi.Report) -> None:
        nonlocal looking
        start = time.process_time()
        reading = read_canvases(report.params, jax.random.key(report.step), held_out.images)
        right = np.mean(reading.counts == held_out.counts)
        rows.append((start - looking, float(reading.bound.mean()), float(right)))
        looking += time.process_time() - start

    fit = vi.fit(
        estimator,
        given.images,
        batch_size=BATCH,
        steps=steps,
        chunk=stretch,
        callbacks=look,
        optimizer=optax.chain(optax.clip_by_global_norm(50.0), optax.adam(2e-3)),
    )
    seconds, elbo, accuracy = np.array(rows).T
    # Compilation came before the first stretch, which then took as long as the others.
    seconds += np.median(np.diff(seconds)) - seconds[0]
    return Run(method, fit, seconds, elbo, accuracy)


@dataclass(frozen=True)
class Result:
    """All runs, and the scenes that they were judged by."""

    runs: list[Run]
    held_out: Scenes


def run(quick: bool = False) -> Result:
    """Train by every method; by the first only, and shortly, if `quick`."""
    train_scenes, held_out = scenes.make(4_000), scenes.make(500, held_out=True)
    methods, steps = (METHODS[:1], 500) if quick else (METHODS, 2_000)
    runs = []
    for method in methods:
        runs.append(train(method, train_scenes, held_out, steps, stretch=100))
        console.print(
            f"{method.name}: compiled in {runs[-1].fit.compile_seconds:.0f} s, "
            f"{steps} steps in {runs[-1].seconds[-1]:.0f} s",
            soft_wrap=True,
        )
    return Result(runs, held_out)


def report(result: Result) -> None:
    """Print what was found, beside the paper's figures."""
    shortest = min(run.seconds[-1] for run in result.runs)
    times, ends = [], []
    for run in result.runs:
        epoch, elbo, accuracy = run.method.paper
        name, until = run.method.name, run.seconds_until(0.95)
        times.append([name, f"{run.step_ms:.1f}", _text(until, 1), _text(epoch, 2)])
        ours = run.elbo_at(shortest), run.elbo[len(run.elbo) // 2 - 1], run.elbo[-1]
        counted = f"{run.accuracy[-1]:.3f}"
        ends.append(
            [name, *(_text(x, 1) for x in ours), counted, _text(elbo, 1), _text(accuracy, 3)]
        )
    header = ["objective, flips", "ms / step", "s to 95 % accuracy", "paper: s / epoch"]
    print_table("Time (table 2)", header, times)
    columns = [f"ELBO, {shortest:.1f} s", "half-way", "end", "right", "paper: ELBO", "right"]
    title = f"{len(result.held_out.counts)} held-out scenes (figure 7)"
    print_table(title, ["objective, flips", *columns], ends)


def _text(x: float | None, digits: int) -> str:
    return "-" if x is None else f"{x:.{digits}f}"


def figure(result: Result) -> Figure:
    """Bound and accuracy against time, as in figure 7 of the paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in result.runs:
        left.plot(run.seconds, run.elbo, label=run.method.name)
        right.plot(run.seconds, run.accuracy, label=run.method.name)
    best = max(run.elbo.max() for run in result.runs)
    left.set(xlabel="training: processor time, s", ylabel="ELBO of held-out scenes, nats")
    left.set_ylim(best - 60, best + 3)
    right.set(
        xlabel="training: processor time, s",
        ylabel="held-out scenes counted rightly",
        ylim=(0.3, 1.01),
    )
    right.legend(fontsize=8, loc="lower right")
    return figure


def gallery(run: Run, held_out: Scenes) -> Figure:
    """Held-out scenes with the windows found, and what the model makes of them."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    chosen = np.concatenate(
        [np.flatnonzero(held_out.counts == n)[:k] for n, k in enumerate((1, 4, 5))]
    )
    images = held_out.images[chosen]
    reading = read_canvases(run.fit.params, jax.random.key(0), images)
    figure = Figure(figsize=(len(chosen), 2.3), layout="constrained")
    axes = figure.subplots(2, len(chosen))
    for j, (image, drawn) in enumerate(zip(images, np.asarray(reading.canvas), strict=True)):
        for ax, picture in zip(axes[:, j], (image, drawn), strict=True):
            ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        for i in np.flatnonzero(reading.there[j]):
            size, row, column = map(float, reading.windows[j, i])
            corner = column - size / 2, row - size / 2
            axes[0, j].add_patch(Rectangle(corner, size, size, fill=False, color=f"C{i}"))
    axes[0, 0].set_ylabel("scene")
    axes[1, 0].set_ylabel("drawn")
    return figure


def main(quick: bool = False, folder: Path = OUTPUTS) -> Result:
    """Train, print, plot."""
    start = time.perf_counter()
    result = run(quick)
    report(result)
    save_figure(figure(result), "air", folder)
    best = max(result.runs, key=lambda run: run.elbo[-1])
    save_figure(gallery(best, result.held_out), "air_scenes", folder)
    console.print(f"time: {time.perf_counter() - start:.0f} s")
    return result


if __name__ == "__main__":
    run_as_script(main, __doc__)
