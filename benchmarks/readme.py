"""`python -m benchmarks.readme [FOLDER]`: puts the results in a folder into this folder's README.

What stands there between `<!-- NAME -->` and `<!-- end -->` is replaced, for each `NAME.json`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.task import BY_HAND, MATRIX_WORK, OURS, PLANNED

README = Path(__file__).parent / "README.md"
PEERS = "NumPyro", "GenJAX", "TFP"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), ["---"] * len(list(header)), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(found: dict[str, str]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in found.items() if k not in _NO_VERSIONS)
    return "{date}: {cores} {processor} cores, ".format(**found) + versions + ".\n\n"


_NO_VERSIONS = "date", "processor", "cores", "device"


# ------------------------------------------------------------------------------------- training


def training(results: list[dict[str, Any]]) -> str:
    step = ["model", "µs / step", BY_HAND, MATRIX_WORK, *PEERS]
    compilation = ["model", "compile s", BY_HAND, *PEERS, "equations: ours, by hand", "MiB: ours"]
    return "\n\n".join(
        [
            "One step: ours, and ours / other.",
            table(step, map(step_row, results)),
            "Trace and compile: ours, and ours / other; equations; memory of arguments, results "
            "and buffers.",
            table([*compilation, BY_HAND], map(compilation_row, results)),
            "Efficiency: variance of the gradient times time, other / ours (more than 1: we are "
            "better); the objective reached; seconds to 99 % of the way by hand.",
            table(
                ["model", BY_HAND, *PEERS, "objective: ours", BY_HAND, "seconds: ours", BY_HAND],
                map(efficiency_row, results),
            ),
            "The same programs with nothing said of strategies, planned by the compiler: standard "
            "deviation of the gradient and time of a step, and NumPyro's.",
            table(
                ["model", "sd: planned", "NumPyro", "µs: planned", "NumPyro"],
                [planned_row(r) for r in results if sides_of(r, PLANNED)],
            ),
        ]
    )


def sides_of(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The sides by this name or system, unbiased ones by time, then biased ones."""
    found = [r for r in result["sides"] if r["side"].startswith(name)]
    return sorted(found, key=lambda r: (r.get("biased") or 0, r["step"]["other"]))


def ratio(result: dict[str, Any], name: str, key: str) -> str:
    sides = sides_of(result, name)
    if not sides:
        return "none" if any(n.startswith(name) for n in result["without"]) else ""
    best = sides[0]
    found = best[key]["ratio"] if key != "efficiency" else best.get(key)
    if found is not None:
        text = f"{found:.3g}" if found >= 100 else f"{found:.2f}"
    else:
        text = "we are exact" if best.get("variance", 0) > 0 else ""
    return f"{text} (biased)".strip() if best.get("biased") is not None else text


def own(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in result["sides"] if r["side"] == name)


def step_row(result: dict[str, Any]) -> list[str]:
    time = own(result, OURS)["step"]["ours"] * 1e6
    others = [ratio(result, name, "step") for name in (BY_HAND, MATRIX_WORK, *PEERS)]
    return [result["task"], f"{time:.3g}" if time < 1000 else f"{time:.0f}", *others]


def compilation_row(result: dict[str, Any]) -> list[str]:
    ours, hand = own(result, OURS), own(result, BY_HAND)
    others = [ratio(result, name, "compilation") for name in (BY_HAND, *PEERS)]
    equations = f"{ours['equations']}, {hand['equations']}"
    sizes = [f"{r['bytes'] / 2**20:.3g}" for r in (ours, hand)]
    return [result["task"], f"{ours['compilation']['ours']:.2f}", *others, equations, *sizes]


def efficiency_row(result: dict[str, Any]) -> list[str]:
    sides = own(result, OURS), own(result, BY_HAND)
    others = [ratio(result, name, "efficiency") for name in (BY_HAND, *PEERS)]
    reached = [f"{r['objective']:.5g}" if "objective" in r else "" for r in sides]
    seconds = [r.get("seconds_to_target") for r in sides]
    return [result["task"], *others, *reached, *("" if s is None else f"{s:.2g}" for s in seconds)]


def planned_row(result: dict[str, Any]) -> list[str]:
    sides = own(result, PLANNED), sides_of(result, "NumPyro")[0]
    mark = lambda r: " (biased)" if r.get("biased") is not None else ""
    sds = [f"{r['variance'] ** 0.5:.3g}{mark(r)}" for r in sides]
    return [result["task"], *sds, *(f"{r['step']['other'] * 1e6:.3g}" for r in sides)]


# ----------------------------------------------------------------------------- the other suites


def growth(results: list[dict[str, Any]]) -> str:
    names = {"equations": "equations", "trace_seconds": "trace", "xla_seconds": "XLA"}
    names |= {"step_seconds": "step", "bytes": "memory"}
    rows = []
    for result in results:
        for side, powers in result["exponents"].items():
            sizes = [r["n"] for r in result["rows"] if r["side"] == side][-2:]
            span = " to ".join(f"{n:,}" for n in sizes)
            family = f"{result['family']}, {result['unit']}"
            rows.append([family, side, span, *(f"{powers[m]:.2f}" for m in names if powers)])
    return table(["model", "side", "sizes", *names.values()], rows)


def fit(results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        for name, r in result["rows"].items():
            speed = f"{1 / r['other']:,.0f}"
            task = f"{result['task']}, {result['steps']} steps"
            rows.append([task, name, speed, f"{r['ratio']:.2f}", f"{r['first']:.1f}"])
    return table(["model", "", "steps / s", "vi.fit / it", "first call, s"], rows)


def variance(results: list[dict[str, Any]]) -> str:
    columns = ["plan", "n", "sd", "µs", "variance x time / best", "\\|z\\|", "shows"]
    parts = []
    for result in results:
        able = [r for r in result["rows"] if r["refused"] is None]
        rows = [variance_row(r, result["reference"]) for r in sorted(able, key=_by_cost)]
        parts += [f"{result['name']}:", table(columns, rows)]
    return "\n\n".join(parts)


def variance_row(row: dict[str, Any], reference: str) -> list[str]:
    relative = "" if row["biased"] else f"{row['relative']:.2f}" if row["relative"] < 1e9 else "-"
    z = "" if row["name"] == reference else f"{row['z']:.1f}" + ", biased" * bool(row["biased"])
    sd, time = f"{math.sqrt(row['variance']):.3g}", f"{row['seconds'] * 1e6:.3g}"
    return [row["name"], str(row["samples"]), sd, time, relative, z, f"{row['catches']:.1%}"]


def _by_cost(row: dict[str, Any]) -> tuple[float, float]:
    """Two plans without variance go by time, and so do those beside them."""
    return row["relative"], row["cost"]


SUITES = {"training": training, "growth": growth, "fit": fit, "variance": variance}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    text = README.read_text()
    for name, show in SUITES.items():
        path, mark = folder / f"{name}.json", f"<!-- {name} -->"
        if path.exists():
            found = json.loads(path.read_text())
            before, _, rest = text.partition(mark)
            _, end, after = rest.partition("<!-- end -->")
            shown = machine(found["machine"]) + show(list(found[name].values()))
            text = f"{before}{mark}\n\n{shown}\n\n{end}{after}"
    README.write_text(text)


if __name__ == "__main__":
    main()
