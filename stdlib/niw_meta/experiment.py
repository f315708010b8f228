"""E1 to E3 of the card, against MAML, and what a step costs: `python -m stdlib.niw_meta`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stdlib.niw_meta import cost, digits, linear, sines
from stdlib.niw_meta.scores import Scores
from stdlib.report import Claim, print_table, save_figure

TITLE = "NIW-Meta: hierarchical Bayesian few-shot learning"
HEADER = ("error ± standard error", "NLL, nats", "calibration error")
INNER_STEPS = (1, 5, 20, 80)


def print_scores(title: str, scores: Mapping[str, Scores]) -> None:
    print_table(title, ("method", *HEADER), [(name, *s.row) for name, s in scores.items()])


def main(smoke: bool, folder: Path) -> list[Claim]:
    """Train, print the tables, save the figure. The short version leaves MAML and E3 out."""
    linear_scores, _ = linear.run(smoke)
    print_scores("E1, linear regression, 3 points: squared error", linear_scores)
    waves = sines.run(smoke)
    print_scores("E2, sinusoids, 5 points: squared error to the curve", waves.scores)
    digit_scores: dict[str, Scores] = {}
    if not smoke:
        digit_scores, _ = digits.run()
        print_scores("E3, held-out digits, 3-way 3-shot: share of errors", digit_scores)
    costs: dict[str, list[cost.Cost]] = {}
    if not smoke:
        costs["NIW-Meta"] = [cost.of_niw(n) for n in INNER_STEPS]
        costs["MAML"] = [cost.of_maml(n) for n in INNER_STEPS]
        rows = [
            (f"{name}, {n} inner steps", f"{c.memory:.2f}", f"{1e3 * c.seconds:.2f}")
            for name, found in costs.items()
            for n, c in zip(INNER_STEPS, found, strict=True)
        ]
        print_table("A training step, per task", ("method", "memory, MiB", "time, ms"), rows)
    plot(waves, costs, folder)
    return claims(smoke, linear_scores, waves.scores, digit_scores, costs)


def claims(
    smoke: bool,
    lines: Mapping[str, Scores],
    waves: Mapping[str, Scores],
    digit: Mapping[str, Scores],
    costs: Mapping[str, list[cost.Cost]],
) -> list[Claim]:
    """The card's bars; the short version has that of E1."""
    oracle, niw = lines["oracle: the true prior"], lines["NIW-Meta"]
    excess = niw.nll - oracle.nll
    made = [Claim.at_most("E1: NLL - oracle's, nats", excess, 0.1 if smoke else 0.02)]
    if smoke:
        return made
    growth = costs["NIW-Meta"][-1].memory / costs["NIW-Meta"][0].memory
    made.append(Claim.at_most(f"memory, {INNER_STEPS[-1]} inner steps / 1", growth, 1.1))
    baseline = min(lines[n].nll for n in ("no pooling: N(0, 10 I)", "one network"))
    wave, shot = waves["NIW-Meta"], digit["NIW-Meta"]
    maml, other = waves["MAML, 5 steps"], digit["MAML, 5 steps"]
    ratios = {
        "E1: NLL / better baseline's": (niw.nll, baseline, 0.7),
        "E1: NLL / MAML's": (niw.nll, lines["MAML, 5 steps"].nll, 1.0),
        "E2: squared error / MAML's, 5 steps": (wave.error, maml.error, 1.0),
        "E2: squared error / one network's": (wave.error, waves["one network, 0 steps"].error, 0.5),
        "E2: NLL / MAML's": (wave.nll, maml.nll, 1.0),
        "E2: calibration error / MAML's": (wave.calibration, maml.calibration, 1.0),
    }
    made += [Claim.at_most(what, a / b, bar) for what, (a, b, bar) in ratios.items()]
    made.append(Claim.at_most("E3: share of errors - MAML's", shot.error - other.error, 0.02))
    return [*made, Claim.at_most("E3: calibration error", shot.calibration, 0.02)]


def plot(
    waves: sines.Result,
    costs: Mapping[str, list[cost.Cost]],
    folder: Path,
) -> None:
    """Two sinusoids with predictive bands, and memory by inner steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    test, colours = waves.test, {"NIW-Meta": "C0", "MAML, 5 steps": "C1"}
    for task, axis in enumerate(axes[:2]):
        order = np.argsort(test.x[task, sines.SUPPORT :])
        x = test.x[task, sines.SUPPORT :][order]
        axis.plot(x, test.curve[task, sines.SUPPORT :][order], "k--", lw=1, label="truth")
        axis.plot(*(a[task, : sines.SUPPORT] for a in (test.x, test.y)), "ko", ms=4, label="given")
        for name, colour in colours.items():
            if name in waves.predictions:
                mean, variance = (a[task][order] for a in waves.predictions[name])
                axis.plot(x, mean, colour, label=name)
                band = 1.645 * np.sqrt(variance)
                axis.fill_between(x, mean - band, mean + band, color=colour, alpha=0.15, lw=0)
        axis.set(title=f"E2, task {task + 1}: mean and 90 % band", xlabel="x", ylabel="y")
    axes[0].legend(fontsize=7)
    for name, colour in zip(costs, ("C0", "C1"), strict=False):
        memory = [c.memory for c in costs[name]]
        axes[2].loglog(INNER_STEPS, memory, "o-", color=colour, label=name)
    axes[2].set(title="memory of a step, MiB per task", xlabel="inner steps")
    if costs:
        axes[2].legend(fontsize=7)
    save_figure(figure, "niw_meta", folder)
    plt.close(figure)
