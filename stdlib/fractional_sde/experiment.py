"""The experiments: bridges, moments, learned Hurst indices, and videos, beside what is exact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppl import bind_params, density, seed, sim, vi
from stdlib.fractional_sde import exact, video
from stdlib.fractional_sde.noise import FractionalNoise
from stdlib.fractional_sde.programs import SDE, path
from stdlib.fractional_sde.tasks import Bridge, HurstFits, Sequences
from stdlib.fractional_sde.weights import geometric_rates, variance_rate
from stdlib.report import Claim, console, print_table, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def main(smoke: bool, folder: Path) -> list[Claim]:
    """Run all experiments (the short version: without the simulation and the videos)."""
    bridges = [run_bridge(*case, smoke) for case in ([("I", 0.7)] if smoke else BRIDGES)]
    learned = run_hurst(smoke)
    filmed = None if smoke else run_video()
    save_figure(figure(bridges, learned, filmed), "fractional_sde", folder)
    claims = [*bridge_claims(bridges), *moment_claims(smoke), *hurst_claims(learned, smoke)]
    return claims + (video_claims(filmed) if filmed else [])


def cosine(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a decaying rate."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def cosine_with_faster_hurst(rate: float, steps: int) -> optax.GradientTransformation:
    """The same, three times as large for the Hurst index."""
    faster = optax.transforms.partition(
        {"hurst": optax.scale(3.0), "rest": optax.identity()},
        lambda params: {name: "hurst" if name == "hurst" else "rest" for name in params},
    )
    return optax.chain(cosine(rate, steps), faster)


# ----------------------------------------------------------------------------------- 1. bridges

BRIDGES = [("II", 0.3), ("II", 0.7), ("I", 0.3), ("I", 0.7)]
SEEN, BATCH, DRAWS = 0.5, 64, 4_000


@dataclass(frozen=True)
class BridgeResult:
    """A fitted bridge.

    Attributes:
        elbo, error: with its standard error, in nats.
        evidence: the estimate by `DRAWS` whole paths, log; the short version has none.
        spread: the posterior's standard deviation at the ends of the steps.
    """

    task: Bridge
    hurst: float
    elbo: float
    error: float
    evidence: float | None
    spread: np.ndarray

    @property
    def exact(self) -> float:
        return self.task.log_evidence(SEEN, self.hurst)


def run_bridge(kind: Any, hurst: float, smoke: bool) -> BridgeResult:
    """Fit the control of a bridge, and draw from it."""
    task = Bridge(kind, steps=50 if smoke else 100)
    steps = 500 if smoke else 600
    bound = task.bound(SEEN, hurst)
    fit = vi.fit(bound, steps=steps, optimizer=cosine(1e-2, steps), num_samples=BATCH)

    def draw():
        choices, log_q = sim(task.guide)({"o": SEEN}, hurst)
        log_p, xs = task.model.assess(choices | {"o": jnp.asarray(SEEN)}, hurst)
        return log_p - log_q, xs

    fitted = lambda program: seed(bind_params(program, fit.params))
    keys = jax.random.split(jax.random.key(1), DRAWS)
    log_weights, xs = map(np.asarray, jax.jit(jax.vmap(fitted(draw)))(keys))
    evidence = None
    if not smoke:
        program = lambda: density(task.evidence(DRAWS))({"o": jnp.asarray(SEEN)}, hurst)
        evidence = float(jax.jit(fitted(program))(jax.random.key(2)))
    error = float(log_weights.std() / DRAWS**0.5)
    return BridgeResult(task, hurst, float(log_weights.mean()), error, evidence, xs.std(0))


def bridge_claims(results: list[BridgeResult]) -> list[Claim]:
    rows, claims = [], []
    for r in results:
        name = f"type {r.task.kind}, H = {r.hurst}"
        middle, known = r.spread[len(r.spread) // 2 - 1], r.task.middle(r.hurst)
        rows.append(
            [
                name,
                f"{r.elbo:.3f} ± {r.error:.3f}",
                "" if r.evidence is None else f"{r.evidence:.3f}",
                *(f"{v:.3f}" for v in (r.exact, middle, known)),
            ]
        )
        bound = 0.2 if r.hurst < 0.5 else 0.1
        gap = r.exact - r.elbo
        claims.append(Claim.between(f"bridge, {name}: evidence - ELBO", gap, -3 * r.error, bound))
        if r.evidence is not None:
            what = f"bridge, {name}: error of the evidence by whole paths"
            claims.append(Claim.at_most(what, abs(r.evidence - r.exact), 0.05))
        ratio = float(middle / known)
        claims.append(Claim.between(f"bridge, {name}: sd of X(1) / exact", ratio, 0.96, 1.04))
    header = ["bridge", "ELBO", "evidence, paths", "evidence, exact", "sd X(1)", "exact"]
    print_table("A bridge seen once (nats)", header, rows)
    return claims


# ----------------------------------------------------------------------------------- 2. moments

FOU = [(0.3, 1.0), (0.7, 1.0), (0.6, 2.0), (0.9, 0.0)]
SLOW_RATES = np.geomspace(1e-5, 20, 8)
SIMULATED = 20_000


def moments(covariance: np.ndarray) -> np.ndarray:
    """Var X(1), Cov(X(1), X(2)), Var X(2), of a covariance on an even grid of [0, 2]."""
    middle, end = len(covariance) // 2, -1
    return np.array([covariance[middle, middle], covariance[middle, end], covariance[end, end]])


def moment_claims(smoke: bool) -> list[Claim]:
    """dX = -theta X dt + dB_H, X(0) = 0, type I with Var B = t^(2H)."""
    grid, rows, worst = np.linspace(0, 2, 201), [], {"slow": 0.0, "simulated": 0.0}
    for hurst, theta in FOU:
        driver = exact.covariance("I", hurst, grid) / variance_rate("I", hurst)
        true = moments(exact.linear_covariance(grid, driver, theta))
        found = {"exact": true}
        for name, rates in (("5 rates", geometric_rates()), ("8 rates", SLOW_RATES)):
            noise = FractionalNoise("I", rates, horizon=2.0, normalise=True)
            driver = exact.markov_covariance(noise, noise.weights(hurst), grid)
            found[name] = moments(exact.linear_covariance(grid, driver, theta))
        if hurst < 0.9:
            worst["slow"] = max(worst["slow"], np.max(np.abs(found["8 rates"] / true - 1)))
        if not smoke:
            found["simulated"] = simulated_moments(hurst, theta)
            z = np.abs(found["simulated"] - found["8 rates"]) / np.max(found["8 rates"])
            worst["simulated"] = max(worst["simulated"], np.max(z))
        rows += [
            [f"H = {hurst}, theta = {theta:g}: {name}", *(f"{m:.4f}" for m in values)]
            for name, values in found.items()
        ]
    print_table("Fractional OU process", ["", "Var X(1)", "Cov", "Var X(2)"], rows)
    claims = [
        Claim.at_most(
            "fOU moments, 8 rates, H to 0.7: relative error of the approximation",
            worst["slow"],
            0.03,
        )
    ]
    if not smoke:
        what = f"fOU moments: {SIMULATED:,} paths of the program, error over the largest"
        claims.append(Claim.at_most(what, worst["simulated"], 0.03))
    return claims


def simulated_moments(hurst: float, theta: float) -> np.ndarray:
    """The same by paths of the prior's program."""
    noise = FractionalNoise("I", SLOW_RATES, horizon=2.0, normalise=True)
    sde = SDE(noise, hurst, 200, 2.0, drift=lambda x, t: -theta * x)
    run = seed(lambda: path(sde).simulate(jnp.zeros(1)).get_retval()[0][np.array([99, 199]), 0])
    draws = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), SIMULATED)))
    return moments(np.cov(draws.T)[np.ix_([0, 0, 1], [0, 0, 1])])


# ------------------------------------------------------------------------------ 3. Hurst indices

TRUE = 0.3, 0.8


@dataclass(frozen=True)
class HurstResult:
    """Fits side by side: for each true index, a learned one and 1/2, and again with `narrows`.

    Attributes:
        elbo: per path, of each fit, in nats.
        likeliest, evidence: the index of maximum likelihood on the same data, computed exactly,
            and its log evidence per path, for each true index.
    """

    fits: HurstFits
    fit: vi.Fit
    elbo: np.ndarray
    likeliest: np.ndarray
    evidence: np.ndarray


def run_hurst(smoke: bool) -> HurstResult:
    """Learn the Hurst index of paths of exact fractional Brownian motion."""
    task = Sequences(steps=100 if smoke else 200)
    steps, paths = (300, 8) if smoke else (3_000, 32)
    narrows = [True] if smoke else [False, True]
    cases = [(h, learns, n) for n in narrows for h in TRUE for learns in (True, False)]
    sets = {h: task.data(h, paths).astype(np.float32) for h in TRUE}
    observed = np.stack([sets[h] for h, _, _ in cases])
    fits = HurstFits(task, *(np.array([c[i] for c in cases]) for i in (1, 2)))
    fit = vi.fit(
        fits.objective,
        observed,
        steps=steps,
        optimizer=cosine_with_faster_hurst(1e-2, steps),
        snapshots=60,
    )
    run = jax.jit(jax.vmap(seed(bind_params(fits.bounds, fit.params)), (0, None)))
    bounds = np.asarray(run(jax.random.split(jax.random.key(1), 100), observed))
    grid = np.linspace(0.1, 0.95, 86)
    values = np.array([[task.log_evidence(sets[h], g) for g in grid] for h in TRUE])
    best = values.argmax(1)
    return HurstResult(fits, fit, bounds.mean((0, 2)), grid[best], values.max(1))


def hurst_claims(result: HurstResult, smoke: bool) -> list[Claim]:
    hurst = np.asarray(result.fit.params["hurst"], float)
    rows, claims = [], []
    bars = [(0.25, 0.43), (0.62, 0.85)]
    for i in range(0, len(hurst), 2):
        case = i // 2 % 2
        how = "control and narrower noise" if result.fits.narrows[i] else "control"
        name = f"true H = {TRUE[case]}, {how}"
        rows.append(
            [
                name,
                f"{hurst[i]:.3f}",
                f"{result.likeliest[case]:.2f}",
                *(f"{v:.2f}" for v in (*result.elbo[i : i + 2], result.evidence[case])),
            ]
        )
        if smoke:
            side = float(np.sign(TRUE[case] - 0.5) * (hurst[i] - 0.5))
            claims.append(Claim.at_least(f"{name}: H on the right side of 1/2, by", side, 0.03))
            continue
        claims.append(Claim.between(f"{name}: learned H", hurst[i], *bars[case]))
        if result.fits.narrows[i]:
            tighter = float(result.elbo[i] - result.elbo[i - 2 * len(TRUE)])
            claims.append(Claim.at_least(f"{name}: ELBO above control alone", tighter, 0.1))
        else:
            gain = float(result.elbo[i] - result.elbo[i + 1])
            claims.append(Claim.at_least(f"{name}: ELBO above Brownian, nats/path", gain, 0.7))
    header = ["", "learned H", "likeliest", "ELBO", "ELBO, H = 1/2", "evidence, exact"]
    print_table("Hurst index, from paths seen 20 times (nats per path)", header, rows)
    return claims


# ------------------------------------------------------------------------------------- 4. videos

VIDEO_STEPS, TRAIN, TEST, PARTICLES = 800, 400, 200, 20


@dataclass(frozen=True)
class VideoResult:
    """The model with a learned index, and its twin on plain Brownian motion.

    Attributes:
        hurst: what was learned.
        log_weights: of held-out videos, `[2, PARTICLES, TEST]`.
        shown: two held-out videos and the fitted model's screens for them.
        places, found: true and inferred, `[2, FRAMES, 2]`.
    """

    hurst: float
    log_weights: np.ndarray
    shown: tuple[np.ndarray, np.ndarray]
    places: np.ndarray
    found: np.ndarray

    def gain(self, values: np.ndarray) -> tuple[float, float]:
        """Of values `[2, TEST]`: mean difference and its standard error."""
        apart = values[0] - values[1]
        return float(apart.mean()), float(apart.std(ddof=1) / len(apart) ** 0.5)


def run_video() -> VideoResult:
    """Train both on the same videos, with the same start values and batches."""
    videos, _ = video.make_videos(TRAIN, 0)
    held_out, places = video.make_videos(TEST, 1)
    estimator, optimizer = vi.compile(video.bound), cosine(4e-3, VIDEO_STEPS)
    fits = []
    for learns in (True, False):
        data = jnp.asarray(learns), videos
        fits.append(
            vi.fit(
                estimator,
                data,
                steps=VIDEO_STEPS,
                optimizer=optimizer,
                batch_size=32,
                batch_axes=(None, 0),
            )
        )

    @eqx.filter_jit
    def weigh(params, learns, key):
        lanes = jax.vmap(video.log_weight, in_axes=(None, 0))
        return seed(bind_params(lanes, params))(key, learns, held_out)

    keys = jax.random.split(jax.random.key(1), PARTICLES)
    log_weights = [
        np.stack([np.asarray(weigh(fit.params, jnp.asarray(learns), k)) for k in keys])
        for fit, learns in zip(fits, (True, False), strict=True)
    ]
    shown = held_out[:2]
    screens, found = jax.jit(
        jax.vmap(seed(bind_params(video.reconstruct, fits[0].params)), (None, 0))
    )(jax.random.key(2), shown)
    hurst = float(fits[0].params["hurst"])
    return VideoResult(
        hurst, np.stack(log_weights), (shown, np.asarray(screens)), places[:2], np.asarray(found)
    )


def video_claims(result: VideoResult) -> list[Claim]:
    elbo = result.log_weights.mean(1)
    tighter = np.logaddexp.reduce(result.log_weights, 1) - np.log(PARTICLES)
    rows, claims = [], []
    for name, values in (("ELBO", elbo), (f"{PARTICLES} paths", tighter)):
        gain, error = result.gain(values)
        learned, plain = values.mean(1)
        rows.append([name, f"{learned:.2f}", f"{plain:.2f}", f"{gain:.2f} ± {error:.2f}"])
        what = f"held-out videos, {name}: above the Brownian twin, less 3 standard errors"
        claims.append(Claim.at_least(what, gain - 3 * error, 0.0))
    header = ["bound", "learned H", "H = 1/2", "difference"]
    print_table("Held-out videos (nats per video)", header, rows)
    console.print(f"videos: learned H {result.hurst:.3f}, the motion's {video.TRUE_HURST}")
    return [*claims, Claim.at_least("videos: learned H", result.hurst, 0.55)]


# -------------------------------------------------------------------------------------- figure


def figure(bridges: list[BridgeResult], learned: HurstResult, filmed: VideoResult | None) -> Figure:
    """Bridges' standard deviations, the Hurst index while it is learned, and a video."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4 if filmed is None else 5.6), layout="constrained")
    parts: Any = figure.subfigures(1 if filmed is None else 2, 1, squeeze=False)
    top, *below = parts.ravel()
    left, right = top.subplots(1, 2)
    for i, r in enumerate(bridges):
        times = np.arange(1, r.task.steps + 1) * r.task.duration / r.task.steps
        grid = np.append(times[times < r.task.duration], r.task.duration)
        c = exact.markov_covariance(r.task.noise, r.task.noise.weights(r.hurst), grid)
        known = np.sqrt(np.diag(c) - c[:, -1] ** 2 / (c[-1, -1] + r.task.scale**2))
        left.plot(grid, known, color=f"C{i}", lw=3, alpha=0.4)
        left.plot(times, r.spread, color=f"C{i}", lw=1, label=f"type {r.task.kind}, H = {r.hurst}")
    left.set(xlabel="time", title="Bridge: posterior sd, learned (thin) and exact", ylim=0)
    left.legend(fontsize=8)

    steps = [s for s, _ in learned.fit.history]
    hurst = np.array([params["hurst"] for _, params in learned.fit.history])
    for i in range(0, hurst.shape[1], 2):
        case, narrow = i // 2 % 2, learned.fits.narrows[i]
        how = "control, narrower noise" if narrow else "control"
        right.plot(steps, hurst[:, i], f"C{case}" + ("-" if narrow else "--"), label=how)
        right.axhline(learned.likeliest[case], color=f"C{case}", lw=3, alpha=0.3)
    right.set(xlabel="step", title="Hurst index (thick: maximum likelihood)", ylim=(0.2, 0.9))
    right.legend(fontsize=8)
    if filmed is not None:
        _draw_video(below[0], filmed)
    return figure


def _draw_video(area: Any, filmed: VideoResult) -> None:
    """Frames of a held-out video, what the model makes of them, and the places."""
    strip, track = area.subplots(1, 2, width_ratios=[3, 1])
    chosen = np.linspace(0, video.FRAMES - 1, 8).astype(int)
    rows = [np.hstack(list(frames[v, chosen])) for v in (0, 1) for frames in filmed.shown]
    strip.imshow(np.vstack(rows), cmap="gray_r", vmin=0, vmax=1)
    strip.set_axis_off()
    strip.set_title("Held-out videos, and the model's screens for them")
    for v, colour in enumerate(("C0", "C1")):
        for places, style in ((filmed.places, "-"), (filmed.found, "--")):
            track.plot(places[v, :, 1], -places[v, :, 0], style, color=colour)
    track.set_title("Places: true, inferred (dashed)")
    track.set_aspect("equal")
