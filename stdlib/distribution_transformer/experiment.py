"""The experiment: near-exact posteriors for priors that are an input; filters that recycle them.

Five networks are trained, each by `vi.fit` on simulations; the references are exact (a closed form
or a grid) or importance sampling and particle filters that get as near.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm

from ppl import bind_params, density, seed, sim, vi
from stdlib.distribution_transformer import references, tasks
from stdlib.distribution_transformer.mixture import Mixture, log_density
from stdlib.distribution_transformer.programs import (
    amortised,
    filtering,
    guides,
    initial_prior,
    network,
    recycled,
    run_filter,
)
from stdlib.report import Claim, console, print_table, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Distribution transformers (Whittle et al., arXiv 2502.02463)"


@dataclass(frozen=True)
class Run:
    """How long to train and to test.

    Attributes:
        steps, batch: of the training.
        problems: for the test.
        rate: the largest learning rate.
        layers: of the network.
    """

    steps: int
    batch: int
    problems: int
    rate: float = 2e-3
    layers: int = 2


@dataclass(frozen=True)
class Trained:
    """A trained network of a task."""

    task: tasks.Task
    init: Any
    fit: vi.Fit

    @property
    def net(self) -> Any:
        return self.fit.params["network"]


def train(task: tasks.Task, components: int, run: Run, **options: Any) -> Trained:
    """Fit a network to new simulations in each step."""
    init = network(task, components, layers=run.layers, **options)
    name = task.joint.__name__.removesuffix("_joint")
    return Trained(task, init, fit(amortised(task, init), run, name))


def fit(objective: vi.Objective, run: Run, name: str, params: Any = None) -> vi.Fit:
    """Maximise an objective of new simulations in each step."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, run.rate, run.steps // 10, run.steps)
    found = vi.fit(
        vi.compile(objective, num_samples=run.batch),
        steps=run.steps,
        params=params,
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0)
        ),
    )
    console.print(
        f"{name}: {run.steps} steps of {run.batch} problems in {found.seconds:.0f} s, "
        f"compiled in {found.compile_seconds:.0f} s"
    )
    return found


def simulate(task: tasks.Task, n: int, key: int = 100) -> Any:
    """Choices of n problems."""
    return _simulator(task)(jax.random.split(jax.random.key(key), n))


@functools.cache
def _simulator(task: tasks.Task) -> Callable[[Any], Any]:
    return jax.jit(jax.vmap(seed(lambda: sim(task.joint)()[0])))


def log_posteriors(trained: Trained) -> Callable[[Any], Any]:
    """From choices of many problems to log q(x | z, prior), compiled."""
    posterior, _ = guides(trained.task, trained.init)
    task, params = trained.task, trained.fit.params

    def one(c: Any) -> Any:
        q = bind_params(density(posterior), params)
        return q({"x": task.latent(c)}, task.prior(c), task.data(c))

    return jax.jit(jax.vmap(one))


def timed(f: Any, *args: Any, n: int) -> tuple[Any, float]:
    """What a jitted function makes of n problems, and its wall time for each, without compilation:
    the best of as many runs as there are in half a second."""
    compiled = f.lower(*args).compile()
    found, times = None, []
    while sum(times) < 0.5:
        start = time.perf_counter()
        found = jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    return found, min(times) / n


def standard_error(x: Any) -> float:
    return float(np.std(x) / np.sqrt(np.size(x)))


# ---------------------------------------------------------------- E1: a variance with any prior


def conjugate(run: Run, blind_run: Run | None, smoke: bool) -> tuple[list[Claim], Any]:
    """Mean KL from the exact posterior, of log x, over priors and data."""
    dt = train(tasks.variance, 5, run)
    c = simulate(tasks.variance, run.problems)
    alpha, beta = jnp.exp(c["log_alpha"]), jnp.exp(c["log_beta"])
    a, b = references.inverse_gamma_posterior(alpha, beta, c["z"][:, 0])
    keys = jax.random.split(jax.random.key(1), run.problems)

    @eqx.filter_jit
    def divergences(nets: Any) -> Any:
        """KL(exact || q) by draws of the exact law: posterior and prior, of each network."""

        def one(key: Any, c: Any, a: Any, b: Any) -> Any:
            prior, data = tasks.variance.prior(c), tasks.variance.data(c)
            alpha, beta = jnp.exp(c["log_alpha"]), jnp.exp(c["log_beta"])
            u = jnp.log(b) - jax.random.loggamma(key, a, (400,))
            before = jnp.log(beta) - jax.random.loggamma(key, alpha, (400,))
            exact = references.log_inverse_gamma(u, a, b)
            gap = lambda q, at, exact: jnp.mean(exact - log_density(q, at[:, None]))
            out = [gap(net(prior, *data), u, exact) for net in nets]
            mean, variance = references.inverse_gamma_moments(a, b)
            matched = jnp.mean(exact - norm.logpdf(u, mean, jnp.sqrt(variance)))
            unmoved = jnp.mean(exact - references.log_inverse_gamma(u, alpha, beta))
            at_prior = references.log_inverse_gamma(before, alpha, beta)
            prior_gap = gap(nets[0].prior_mixture(prior), before, at_prior)
            return [prior_gap, matched, unmoved, *out]

        return jax.vmap(one)(keys, c, a, b)

    twin = None if blind_run is None else train(tasks.variance, 5, blind_run, blind=True)
    nets = [dt.net] if twin is None else [dt.net, twin.net]
    prior_gap, matched, unmoved, *found = divergences(nets)
    phi = simulate(tasks.variance, run.problems if smoke else 4_000, key=5)
    alphas, betas = jnp.exp(phi["log_alpha"]), jnp.exp(phi["log_beta"])
    u = jnp.log(c["x"][:, 0])
    best_blind = jax.jit(jax.vmap(references.prior_information, (0, 0, None, None)))
    information = references.log_inverse_gamma(u, a, b) - best_blind(u, c["z"][:, 0], alphas, betas)
    rows = [
        ("posterior", found[0]),
        ("prior, read back", prior_gap),
        ("one normal law, moments matched", matched),
        ("the prior as posterior", unmoved),
        ("network that is not told the prior", found[1] if twin else jnp.nan),
        ("... the best that such a network can do", information),
    ]
    print_table(
        "E1: inverse gamma prior, KL from the exact law of log x (nats)",
        ("", "mean", "s.e."),
        [
            (name, f"{jnp.mean(x):.4f}", f"{standard_error(x):.4f}")
            for name, x in rows
            if np.size(x) > 1
        ],
    )
    kl, single = float(jnp.mean(found[0])), float(jnp.mean(matched))
    claims = [
        Claim.at_most("E1: mean KL from the exact posterior", kl, 0.05 if smoke else 0.006),
    ]
    if twin is not None:
        claims += [
            Claim.at_most("E1: KL over that of a moment-matched normal", kl / single, 0.25),
            Claim.at_least(
                "E1: prior-blind network's KL over ours", float(jnp.mean(found[1])) / kl, 30
            ),
        ]
    return claims, (dt, c)


# ------------------------------------------------------- E2: a filter that recycles its posterior


def simulate_walk(sequences: int, steps: int) -> tuple[Any, Any]:
    """States, x' = .95 x + N(0, .3), and data, z = x²/4 + N(0, .5²), `[sequences, steps]`."""
    start, move, look = jax.random.split(jax.random.key(7), 3)
    noise = tasks.STEP_SD * jax.random.normal(move, (steps - 1, sequences))
    x = [jax.random.normal(start, (sequences,))]
    for e in noise:
        x.append(tasks.STEP * x[-1] + e)
    x = jnp.stack(x, 1)
    z = tasks.squared_mean(x) + tasks.OBSERVATION_SD * jax.random.normal(look, x.shape)
    return x, z


def walk(run: Run, sequences: int, steps: int = 50) -> tuple[list[Claim], Any]:
    """Filtering NLL of the true states, beside an exact grid and an extended Kalman filter."""
    dt = train(tasks.squared, 4, run)
    x, z = simulate_walk(sequences, steps)
    transition, noise = jnp.array([[tasks.STEP]]), jnp.array([[tasks.STEP_SD**2]])
    program = filtering(dt.init, transition, noise, lambda z: (z[None, None],))
    prior = initial_prior(jnp.zeros(1), jnp.eye(1), 4)
    ours = jax.jit(jax.vmap(lambda z, x: run_filter(program, dt.fit.params, prior, z, x[:, None])))
    log_ours, posteriors = ours(z, x)
    points = jnp.linspace(-15.0, 15.0, 1201)
    exact = jax.jit(
        jax.vmap(lambda z, x: references.grid_filter(norm.logpdf(points), z, x, points))
    )
    log_exact = exact(z, x)

    def sensor(z: Any) -> Any:
        miss = lambda m: tasks.squared_mean(m) - z
        return miss, lambda m: jnp.array([[tasks.OBSERVATION_SD**2]])

    def kalman(z: Any, x: Any, mean: float) -> Any:
        start = references.Normal(jnp.array([mean]), jnp.eye(1))
        return references.extended_kalman(start, z[:, None], x[:, None], sensor, transition, noise)

    log_kalman = jax.jit(jax.vmap(lambda z, x: kalman(z, x, 0.0)))(z, x)
    means = [-float(jnp.mean(x)) for x in (log_exact, log_ours, log_kalman)]
    part = lambda x, where: f"{-jnp.mean(x[:, where]):.3f}"
    print_table(
        f"E2: filtering, negative log-density of the state per step ({sequences} sequences)",
        ("", "all steps", "first ten", "last ten"),
        [
            (name, f"{-jnp.mean(v):.3f}", part(v, slice(10)), part(v, slice(-10, None)))
            for name, v in [
                ("exact (grid)", log_exact),
                ("distribution transformer", log_ours),
                ("extended Kalman filter (stays at 0, where its Jacobian vanishes)", log_kalman),
            ]
        ],
    )
    best, dt_nll, ekf = means
    return [
        Claim.at_most("E2: filtering NLL above the exact filter's", dt_nll - best, 0.3),
        Claim.at_least(
            "E2: part of the Kalman filter's gap closed", (ekf - dt_nll) / (ekf - best), 0.6
        ),
    ], (x, posteriors)


# ------------------------------------------------------------------------- T3: a quantum parameter


def quantum(run: Run, draws: int) -> tuple[list[Claim], Any]:
    """Log-density of the true parameter, beside the exact posterior and samplers."""
    dt = train(tasks.quantum, 5, run)
    c = simulate(tasks.quantum, run.problems)
    a, b, z, delta = jnp.exp(c["log_a"]), jnp.exp(c["log_b"]), c["z"], c["delta"][:, 0]
    grid = references.logit_grid()
    table = jax.jit(references.mean_probabilities)(grid.points)

    def exact(a: Any, b: Any, z: Any, delta: Any) -> Any:
        log_p = references.quantum_log_posterior(grid, table, a, b, z)
        return references.at_point(grid, log_p, delta)

    log_exact = jax.jit(jax.vmap(exact))(a, b, z, delta)
    samplers = _samplers(references.quantum_importance, references.quantum_nuts, draws)
    args = (a, b, z, delta)
    return _beside("T3: quantum parameter", dt, c, log_exact, samplers, args), (dt, c, grid, table)


def process(run: Run, draws: int) -> tuple[list[Claim], Any]:
    """Log-density of a kernel's true parameters, beside quadrature and samplers."""
    dt = train(tasks.process, 5, run)
    c = simulate(tasks.process, run.problems)
    data = references.ProcessData(*(c[n] for n in references.ProcessData._fields))
    args = (data, jax.vmap(tasks.process.latent)(c))
    log_exact = jax.jit(lambda *a: jax.lax.map(lambda a: references.process_log_posterior(*a), a))
    samplers = _samplers(references.process_importance, references.process_nuts, draws)
    return _beside("T5: Gaussian process", dt, c, log_exact(*args), samplers, args), (dt, c)


ON_PAR = 0.05
"""Nats."""


def _samplers(importance: Any, nuts: Any, draws: int) -> dict[str, Callable[..., Any]]:
    """Compiled functions of many problems and a key for each.

    So many at once as is fastest: importance sampling 50, while for NUTS all would wait for the
    longest trajectory.
    """

    def over_problems(f: Callable[..., Any], draws: int, at_once: int) -> Callable[..., Any]:
        one = lambda args: f(*args, draws)
        return jax.jit(lambda *args: jax.lax.map(one, args, batch_size=at_once))

    return {
        f"importance sampling, {draws} draws": over_problems(importance, draws, 50),
        f"NUTS, {draws // 2} draws": over_problems(nuts, draws // 2, 1),
    }


AT_ONCE = 1_000
"""Problems that the network is timed with."""


def _beside(
    name: str,
    dt: Trained,
    c: Any,
    log_exact: Any,
    samplers: dict[str, Callable[..., Any]],
    args: tuple[Any, ...],
) -> list[Claim]:
    """Our log-density of the truth and time per query, beside the samplers'."""
    n = len(log_exact)
    args = (jax.random.split(jax.random.key(3), n), *args)
    ours = log_posteriors(dt)
    _, seconds = timed(ours, simulate(dt.task, AT_ONCE), n=AT_ONCE)
    found = {"distribution transformer": (ours(c), seconds)}
    found |= {what: timed(sample, *args, n=n) for what, sample in samplers.items()}
    print_table(
        f"{name}: log-density of the truth ({n} problems; exact {jnp.mean(log_exact):.3f})",
        ("", "mean", "below exact", "s.e.", "microseconds a query"),
        [
            (
                what,
                f"{jnp.mean(v):.3f}",
                f"{jnp.mean(log_exact - v):.3f}",
                f"{standard_error(log_exact - v):.3f}",
                f"{1e6 * seconds:.0f}",
            )
            for what, (v, seconds) in found.items()
        ],
    )
    (own, time), *others = found.values()
    return [
        Claim.at_most(
            f"{name}: log-density below the better sampler's",
            max(float(jnp.mean(v - own)) for v, _ in others),
            ON_PAR,
        ),
        Claim.at_least(
            f"{name}: times faster than the faster sampler, per query",
            min(seconds for _, seconds in others) / time,
            100,
        ),
    ]


# -------------------------------------------------------------- T4: range and bearing, recycled


def fusion(run: Run, tuning: Run, sequences: int, particles: int) -> list[Claim]:
    """Filtering NLL in four dimensions, beside a particle filter and an extended Kalman filter.

    The network is trained for priors at random; then for them and as a filter, in journeys that are
    half as long as those of the test.
    """
    steps = 20
    dt = train(tasks.fusion, 4, run, relative=True)
    noise = jnp.diag(jnp.square(jnp.asarray(tasks.TRANSITION_SD)))
    transition = jnp.asarray(tasks.TRANSITION)
    program = filtering(dt.init, transition, noise, lambda z: tasks.sensor_features(*z))
    prior, journey = tasks.start_prior(), tasks.journey(steps)
    filtered = recycled(program, prior, tasks.journey(steps // 2), tasks.seen_on_journey)
    at_random = amortised(dt.task, dt.init)

    @vi.objective
    def both():
        return filtered() + at_random()

    tuned = fit(both, tuning, "fusion, as a filter", dt.fit.params)

    keys, own_keys = jax.random.split(jax.random.key(11), (2, sequences))
    draw = seed(lambda: tasks.seen_on_journey(sim(journey)()[0]))
    x, z = jax.jit(jax.vmap(draw))(keys)

    def ours(params: Any) -> Any:
        return jax.jit(jax.vmap(lambda z, x: run_filter(program, params, prior, z, x)[0]))

    start = references.Normal(jnp.asarray(tasks.START_LOC), jnp.eye(4))
    kalman = jax.jit(
        jax.vmap(
            lambda z, x: references.extended_kalman(
                start, z, x, references.range_and_bearing, transition, noise
            )
        )
    )

    one = lambda args: references.particle_filter(*args, particles=particles)
    sampling = jax.jit(lambda *args: jax.lax.map(one, args, batch_size=50))
    rows = []
    for name, f, args in (
        ("extended Kalman filter", kalman, (z, x)),
        ("distribution transformer", ours(dt.fit.params), (z, x)),
        ("the same, also trained as a filter", ours(tuned.params), (z, x)),
        (f"particle filter, {particles} particles", sampling, (own_keys, z, x)),
    ):
        log_p, seconds = timed(f, *args, n=sequences * steps)
        rows.append((name, -jnp.mean(log_p), standard_error(jnp.mean(log_p, 1)), seconds))
    print_table(
        f"T4: range and bearing, negative log-density of the state ({sequences} sequences)",
        ("", "mean", "s.e.", "microseconds a step"),
        [(name, f"{m:.3f}", f"{e:.3f}", f"{1e6 * s:.0f}") for name, m, e, s in rows],
    )
    problems = simulate(tasks.fusion, 4_000)
    before, after = (
        -jnp.mean(log_posteriors(t)(problems)) for t in (dt, Trained(dt.task, dt.init, tuned))
    )
    console.print(f"NLL with priors at random: {before:.3f}; trained as a filter too, {after:.3f}")
    (_, ekf, _, _), (_, general, _, _), (_, own, _, own_time), (other, pf, _, pf_time) = rows
    return [
        Claim.at_least(
            "T4: part of the Kalman filter's gap closed, trained for priors at random",
            float((ekf - general) / (ekf - pf)),
            0.6,
        ),
        Claim.at_most(f"T4: NLL above that of the {other}", float(own - pf), ON_PAR),
        Claim.at_least(f"T4: times faster than the {other}", pf_time / own_time, 100),
    ]


# ----------------------------------------------------------------------------------- all of it


def main(smoke: bool, folder: Path) -> list[Claim]:
    """Train, compare, plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    if smoke:
        claims, (dt, c) = conjugate(Run(200, 64, 100, layers=1), None, smoke)
        plot_conjugate(axes[0], dt, c)
        axes[1].plot(dt.fit.losses, lw=0.5)
        axes[1].set(title="objective, negated", xlabel="step", ylabel="nats")
        axes[2].set_axis_off()
    else:
        claims, (dt, c) = conjugate(Run(800, 500, 1000), Run(300, 250, 1000), smoke)
        plot_conjugate(axes[0], dt, c)
        more, (x, posteriors) = walk(Run(1000, 256, 0, 3e-3), 200)
        plot_filter(axes[1], x[0], jax.tree.map(lambda v: v[0], posteriors))
        claims += more
        more, (dt, c, grid, table) = quantum(Run(1000, 250, 150, layers=1), 1_000)
        plot_quantum(axes[2], dt, c, grid, table)
        claims += more
        claims += process(Run(3000, 250, 150, 4e-3, layers=1), 1_000)[0]
        first, then = Run(1000, 250, 0, 4e-3, layers=1), Run(2500, 64, 0, 4e-3)
        claims += fusion(first, then, 400, 7_500)
    save_figure(figure, "distribution_transformer", folder)
    return claims


def plot_conjugate(ax: Axes, dt: Trained, c: Any) -> None:
    """Exact and approximate laws of log x for three problems."""
    u = jnp.linspace(-4.0, 5.0, 300)

    @eqx.filter_jit
    def log_q(net: Any, c: Any) -> Any:
        return log_density(net(tasks.variance.prior(c), *tasks.variance.data(c)), u[:, None])

    for i, colour in enumerate(["C0", "C1", "C2"]):
        one = jax.tree.map(lambda v, i=i: v[i], c)
        alpha, beta = jnp.exp(one["log_alpha"]), jnp.exp(one["log_beta"])
        a, b = references.inverse_gamma_posterior(alpha, beta, one["z"][0])
        ax.plot(u, jnp.exp(references.log_inverse_gamma(u, alpha, beta)), colour, ls=":", lw=1)
        ax.plot(u, jnp.exp(references.log_inverse_gamma(u, a, b)), colour, alpha=0.4, lw=3)
        ax.plot(u, jnp.exp(log_q(dt.net, one)), colour, ls="--")
    ax.set(title="variance: prior (dots), exact, network", xlabel="log x")


def plot_filter(ax: Axes, x: Any, posteriors: Mixture) -> None:
    """The filter's density over time, and the state."""
    at = jnp.linspace(-4.0, 4.0, 161)
    log_p = jax.vmap(lambda q: log_density(q, at[:, None]))(posteriors)
    ax.imshow(
        np.exp(log_p).T ** 0.5, origin="lower", aspect="auto", cmap="Blues",
        extent=(0, len(x), -4, 4),
    )  # fmt: skip
    ax.plot(np.arange(len(x)) + 0.5, x, "C1", lw=1)
    ax.set(title="filter of x from x²/4: density, state", xlabel="step")


def plot_quantum(ax: Axes, dt: Trained, c: Any, grid: Any, table: Any) -> None:
    """Exact and approximate posteriors of δ for three problems."""
    posterior, _ = guides(dt.task, dt.init)
    q = bind_params(density(posterior), dt.fit.params)

    @jax.jit
    @jax.vmap
    def log_densities(c: Any) -> tuple[Any, Any]:
        prior, data = dt.task.prior(c), dt.task.data(c)
        a, b = jnp.exp(c["log_a"]), jnp.exp(c["log_b"])
        log_q = jax.vmap(lambda x: q({"x": x}, prior, data))(grid.points[:, None])
        return references.quantum_log_posterior(grid, table, a, b, c["z"]), log_q

    three = jax.tree.map(lambda v: v[:3], c)
    for i, (exact, log_q) in enumerate(zip(*log_densities(three), strict=True)):
        ax.plot(grid.points, jnp.exp(exact), f"C{i}", alpha=0.4, lw=3)
        ax.plot(grid.points, jnp.exp(log_q), f"C{i}", ls="--")
        ax.axvline(three["delta"][i, 0], color=f"C{i}", lw=0.5)
    ax.set(title="quantum δ: exact, network, truth", xlabel="δ")
