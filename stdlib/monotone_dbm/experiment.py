"""Inference that cannot fail, and what it costs: completion and classification of digits.

A. Mean field of monotone couplings is unique and is found by forward-backward steps; parallel
   updates of the same machine may cycle, and free couplings have several solutions.
B. One machine completes and classifies digits of which 40 % of the pixels are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike

from ppl import Anderson, bind_params, vi
from stdlib.digits import load_digits
from stdlib.monotone_dbm.baselines import Restricted, regress, regression_objective
from stdlib.monotone_dbm.coupling import Dense, check_coupling, monotone, same_node
from stdlib.monotone_dbm.equilibrium import Clamp, Energy, mean_field, parallel, residual
from stdlib.monotone_dbm.layers import Layer, Layers
from stdlib.monotone_dbm.programs import (
    LABEL,
    PIXELS,
    convolutional,
    dense,
    field,
    free,
    inner,
    outer,
    parametrised,
)
from stdlib.report import Claim, print_table, save_figure

KEEP, MARGIN = 0.4, 0.05
SCALES = (1.0, 3.0, 6.0)
STEPS = (40, 300)
SOLVER: dict[str, Any] = {"tol": 1e-2, "max_steps": 300, "acceleration": Anderson()}


def main(smoke: bool, folder: Path) -> list[Claim]:
    inference, paths = infer(smoke)
    learning, shown = learn(smoke)
    save_figure(figure(paths, *shown), "monotone_dbm", folder)
    return inference + learning


# ----------------------------------------------------------------------------- A: inference


def infer(smoke: bool) -> tuple[list[Claim], dict[str, np.ndarray]]:
    """The claims about inference, and changes per step of the frustrated machine."""
    claims = []
    with jax.enable_x64(True):
        instances, starts = (3, 4) if smoke else (20, 10)
        spread, error, gap = map(np.max, unique(instances, starts))
        claims += [
            Claim.at_most("monotone: spread over starts", spread, 1e-8),
            Claim.at_most("monotone: residual of mean field", error, 1e-10),
            Claim.at_most("monotone: from coordinate ascent", gap, 1e-8),
        ]
        paths = frustrated()
        claims += [
            Claim.at_least("frustrated: last change, parallel", paths["parallel"][-1], 0.99),
            Claim.at_most("frustrated: last change, FB", paths["forward-backward"][-1], 1e-10),
        ]
        counts = {scale: several(scale) for scale in ((6.0,) if smoke else SCALES)}
        print_table(
            "Mean-field solutions found from 30 starts, free couplings",
            ("scale", "mean number"),
            [(f"{s:g}", f"{n:.1f}") for s, n in counts.items()],
        )
        claims.append(Claim.at_least("free couplings: mean number of solutions", counts[6.0], 1.5))
    claims.append(Claim.at_most("ELBO's optimum by vi.fit: gap", best_guide(smoke), 2e-3))
    return claims, paths


def random_energy(rng: np.random.Generator, layers: Layers, margin: float) -> Energy:
    weight, bias = rng.normal(size=(layers.size, layers.size)), rng.normal(size=layers.size)
    made = lambda w, b: Energy.of(monotone((Dense(w),), layers, margin), b, layers)
    return jax.jit(made)(weight, bias)


def unique(instances: int, starts: int) -> tuple[list[float], list[float], list[float]]:
    """Of random machines: the spread of the solutions, their residual, and their distance from
    coordinate ascent."""
    rng, layers = np.random.default_rng(0), Layers({"x": Layer(12, 3)})
    clamp = layers.clamp({})

    @jax.jit
    def solve(energy: Energy, starts: Array) -> tuple[Array, ...]:
        find = lambda q: mean_field(energy, start=q, tol=1e-13, max_steps=20_000).value
        q = jax.vmap(find)(starts)
        other = coordinate_ascent(energy, starts[0], clamp)
        worst = jax.vmap(lambda q: residual(energy, q))(q).max()
        return jnp.ptp(q, 0).max(), worst, jnp.max(jnp.abs(q[0] - other))

    out = []
    for _ in range(instances):
        q = rng.dirichlet(np.ones(3), size=(starts, 12)).reshape(starts, -1)
        out.append(jax.tree.map(float, solve(random_energy(rng, layers, 0.1), jnp.asarray(q))))
    return tuple(zip(*out, strict=True))  # type: ignore[return-value]


def coordinate_ascent(energy: Energy, q: Array, clamp: Clamp, sweeps: int = 300) -> Array:
    """The ELBO's coordinate ascent: one node after the other takes its conditional optimum."""
    owner = jnp.asarray(energy.layers.owner)

    def update(i: Array, q: Array) -> Array:
        return jnp.where(owner == i % (owner[-1] + 1), parallel(energy, q, clamp), q)

    return jax.lax.fori_loop(0, sweeps * (int(energy.layers.owner[-1]) + 1), update, q)


def frustrated(steps: int = 400) -> dict[str, np.ndarray]:
    """Sixteen nodes that all want to differ: the change of q in each step."""
    layers = Layers({"x": Layer(16, 2)})
    weight = 3 * np.tile([[1.0, -1.0]], 16)
    bias = 0.1 * np.random.default_rng(1).normal(size=32)
    clamp = layers.clamp({})

    @jax.jit
    def run() -> dict[str, Array]:
        phi = monotone((Dense(jnp.asarray(weight)),), layers, 0.1)
        energy = Energy.of(phi, jnp.asarray(bias), layers)
        updates: dict[str, Callable[[Array], Array]] = {
            "parallel": lambda q: parallel(energy, q, clamp),
            "averaged": lambda q: 0.5 * q + 0.5 * parallel(energy, q, clamp),
            "forward-backward": lambda q: energy.forward_backward(q, clamp),
        }

        def changes(update: Callable[[Array], Array]) -> Array:
            def one(q: Array, _: None) -> tuple[Array, Array]:
                new = update(q)
                return new, jnp.max(jnp.abs(new - q))

            return jax.lax.scan(one, energy.uniform(clamp), None, steps)[1]

        return {name: changes(update) for name, update in updates.items()}

    return {name: np.asarray(path) for name, path in run().items()}


def several(scale: float, draws: int = 10, starts: int = 30) -> float:
    """How many different solutions coordinate ascent finds for a free coupling: the mean over
    random couplings."""
    rng, layers = np.random.default_rng(0), Layers({"x": Layer(12, 3)})
    g = rng.normal(size=(draws, layers.size, layers.size))
    free = scale * (g + np.swapaxes(g, 1, 2)) / np.sqrt(layers.size)
    phi = jnp.asarray(np.where(same_node(layers), 0, free))
    bias = jnp.asarray(rng.normal(size=(draws, layers.size)))
    q = jnp.asarray(rng.dirichlet(np.ones(3), size=(starts, 12)).reshape(starts, -1))
    clamp = layers.clamp({})
    for one in phi:
        check_coupling(one, layers)

    @jax.jit
    @jax.vmap
    def ascend(phi: Array, bias: Array) -> Array:
        energy = Energy.of(phi, bias, layers)
        return jax.vmap(lambda q: coordinate_ascent(energy, q, clamp, 150))(q)

    found = np.round(np.asarray(ascend(phi, bias)), 3)
    return float(np.mean([len(np.unique(one, axis=0)) for one in found]))


def best_guide(smoke: bool) -> float:
    """The distance of the marginals that `vi.fit` finds, with free logits, from the fixed point."""
    layers = Layers({"a": Layer(3, 2), "b": Layer(2, 3)})
    energy = random_energy(np.random.default_rng(3), layers, 0.1)
    clamp = layers.clamp({"a": jnp.array([1, 0, 0])}, {"a": jnp.array([True, False, False])})
    q = layers.split(mean_field(energy, clamp).value)
    schedule = optax.cosine_decay_schedule(0.2, 300)
    fit = vi.fit(inner(energy, clamp, free), steps=300, optimizer=optax.adam(schedule))
    probs = {n: jax.nn.softmax(fit.params[f"logits of {n}"]) for n in layers}
    free_nodes = {"a": slice(1, None), "b": slice(None)}
    return max(float(jnp.max(jnp.abs(probs[n] - q[n])[s])) for n, s in free_nodes.items())


# ------------------------------------------------------------------------------ B: learning


class Digits(NamedTuple):
    """Binary images of 64 pixels and their labels; and which test pixels are seen."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    seen: np.ndarray


def digits() -> Digits:
    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (images.reshape(-1, 64) > 7).astype(np.int32)[order], labels[order]
    seen = np.random.default_rng(7).random((397, 64)) < KEEP
    return Digits(x[:1400], y[:1400], x[1400:], y[1400:], seen)


class Scores(NamedTuple):
    """Accuracies on the test set, and logits of pixels for the figure."""

    label: float
    pixel: float
    pixels: np.ndarray


def score(data: Digits, pixels: ArrayLike, labels: ArrayLike) -> Scores:
    """From logits of each pixel's being on, and of the labels."""
    right = (np.asarray(pixels) > 0) == (data.test_images == 1)
    hit = np.argmax(np.asarray(labels), -1) == data.test_labels
    return Scores(float(hit.mean()), float(right[~data.seen].mean()), np.asarray(pixels))


def train(objective: vi.Objective, data: Digits, steps: int, rate: float) -> vi.Fit:
    schedule = optax.adam(optax.cosine_decay_schedule(rate, steps))
    rows = (jnp.asarray(data.images), jnp.asarray(data.labels))
    return vi.fit(objective, rows, steps=steps, batch_size=64, optimizer=schedule, num_samples=1)


class Machine(NamedTuple):
    """A trained machine: its scores and what its test solutions are like."""

    scores: Scores
    residuals: dict[int, float]
    least: float
    steps: tuple[float, int]
    seconds: float


def train_machine(
    data: Digits, architecture: tuple[Layers, Callable], steps: int, *, tangent: bool, rate: float
) -> Machine:
    layers, init = architecture
    objective = outer(layers, init, margin=MARGIN, tangent=tangent, keep=KEEP, **SOLVER)
    fit = train(objective, data, steps, rate)

    @jax.jit
    def test(params: dict[str, Any]) -> Any:
        energy = bind_params(lambda: parametrised(layers, init, MARGIN, tangent), params)()

        def one(image: Array, seen: Array, steps: int) -> Any:
            solver = {**SOLVER, "tol": 1e-6, "max_steps": steps, "strict": False}
            fields, found = field(energy, image, seen, **solver)
            clamp = layers.clamp({PIXELS: image}, {PIXELS: seen})
            return fields, found, residual(energy, found.value, clamp)

        images, masks = jnp.asarray(data.test_images), jnp.asarray(data.seen)
        by_steps = {n: jax.vmap(lambda x, s, n=n: one(x, s, n))(images, masks) for n in STEPS}
        fields, found, _ = by_steps[STEPS[-1]]
        worst = {n: jnp.max(result[2]) for n, result in by_steps.items()}
        free = jnp.eye(layers.size) - same_node(layers) / layers.states
        phi = free @ energy.phi @ free if tangent else energy.phi
        least = (2 if tangent else 1) - jnp.linalg.eigvalsh(phi)[-1]
        return fields, found.steps, worst, least

    fields, steps_taken, residuals, least = test(fit.params)
    on = fields[PIXELS][..., 1] - fields[PIXELS][..., 0]
    return Machine(
        score(data, on, fields[LABEL][:, 0]),
        {n: float(r) for n, r in residuals.items()},
        float(least),
        (float(steps_taken.mean()), int(steps_taken.max())),
        fit.seconds,
    )


def train_regression(data: Digits, steps: int) -> Scores:
    fit = train(regression_objective(KEEP), data, steps, 1e-2)
    predict = bind_params(regress, fit.params)
    return score(data, *predict(jnp.asarray(data.test_images), jnp.asarray(data.seen)))


def train_restricted(data: Digits, hidden: int, steps: int) -> Scores:
    machine = Restricted(hidden)
    fit = train(machine.objective(), data, steps, 5e-3)
    predict = jax.jit(jax.vmap(bind_params(machine.predict, fit.params)))
    return score(data, *predict(jnp.asarray(data.test_images), jnp.asarray(data.seen)))


def learn(smoke: bool) -> tuple[list[Claim], tuple[Digits, dict[str, Scores]]]:
    """The claims about learning, and what the figure shows."""
    data = digits()
    mean = data.images.mean(0) - 0.5
    rows = {"mean of each pixel": score(data, np.tile(mean, (397, 1)), np.zeros((397, 10)))}
    if smoke:
        machines = {
            "machine, 32 hidden, tangent": train_machine(
                data, dense(32), 40, tangent=True, rate=1e-2
            )
        }
    else:
        rows["logistic regression"] = train_regression(data, 2_000)
        for hidden in (32, 96):
            rows[f"RBM, {hidden} hidden, CD-1"] = train_restricted(data, hidden, 4_000)
        machines = {
            name: train_machine(data, architecture, steps, tangent=tangent, rate=5e-3)
            for name, architecture, tangent, steps in (
                ("machine, 96 hidden, paper's margin", dense(96), False, 1_500),
                ("machine, convolutional, tangent", convolutional(), True, 600),
                ("machine, 96 hidden, tangent", dense(96), True, 3_000),
            )
        }
    rows |= {name: machine.scores for name, machine in machines.items()}
    print_table(
        "Digits with 40 % of the pixels seen (test)",
        ("model", "label", "hidden pixels"),
        [
            (n, "-" if n.startswith("mean") else f"{s.label:.3f}", f"{s.pixel:.3f}")
            for n, s in rows.items()
        ],
    )
    print_table(
        "Solutions on the test set",
        ("machine", "residual at 40", "at 300", "steps to 1e-6", "most", "least eigenvalue", "s"),
        [
            (
                n,
                f"{m.residuals[40]:.1e}",
                f"{m.residuals[300]:.1e}",
                f"{m.steps[0]:.0f}",
                m.steps[1],
                f"{m.least:.4f}",
                f"{m.seconds:.0f}",
            )
            for n, m in machines.items()
        ],
    )
    claims = []
    for name, machine in machines.items():
        scores = machine.scores
        claims += [
            Claim.at_least(f"{name}: label", scores.label, 0.4 if smoke else 0.68),
            Claim.at_least(
                f"{name}: hidden pixels",
                scores.pixel,
                rows["mean of each pixel"].pixel if smoke else 0.80,
            ),
            Claim.at_most(f"{name}: residual, 40 steps", machine.residuals[40], 1e-2),
            Claim.at_most(f"{name}: residual, 300 steps", machine.residuals[300], 1e-4),
            Claim.at_least(f"{name}: eigenvalue", machine.least, MARGIN - 1e-5),
        ]
    return claims, (data, rows)


# ---------------------------------------------------------------------------------- figure


def figure(paths: dict[str, np.ndarray], data: Digits, rows: dict[str, Scores]) -> Any:
    """Convergence of the frustrated machine; digits, what is seen of them, and completions."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(10, 4.2), layout="constrained")
    halves: Any = fig.subfigures(1, 2, width_ratios=[1, 1.6])
    left, right = halves
    ax = left.subplots()
    for name, path in paths.items():
        ax.semilogy(np.maximum(path, 1e-16), label=name)
    ax.set(xlabel="step", ylabel="largest change of a marginal", title="16 frustrated nodes")
    ax.legend()
    shown = list(rows)[-1]
    examples = slice(0, 10)
    probability = 1 / (1 + np.exp(-4 * rows[shown].pixels[examples]))
    seen, truth = data.seen[examples], data.test_images[examples]
    pictures = {
        "digit": truth,
        "seen": np.where(seen, truth, 0.5),
        "completed": np.where(seen, truth, probability),
    }
    axes = right.subplots(3, 10)
    for (name, images), line in zip(pictures.items(), axes, strict=True):
        for image, ax in zip(images, line, strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    right.suptitle(shown)
    return fig
