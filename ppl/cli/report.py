"""Reports of fits: one HTML page with everything in it, or one PNG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ppl.vi.result import Fit

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}
pre{{overflow-x:auto;background:#f6f6f6;padding:1em}}img{{max-width:100%}}</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_report(fit: Fit, path: Path, facts: dict[str, str]) -> Path:
    """Write a report of a fit.

    Args:
        path: ending in `.html` (tables and figures) or `.png` (losses and marginals).
        facts: name -> text, shown first.
    """
    if path.suffix == ".png":
        return _png(fit, path)
    rows = "".join(f"<dt><b>{_text(k)}</b></dt><dd>{_text(v)}</dd>" for k, v in facts.items())
    parts = [f"<dl>{rows}</dl>"]
    for title, figure in _figures(fit):
        parts.append(f"<h2>{title}</h2><img alt='{title}' src='{_embedded(figure)}'>")
    if fit.objective.guide is not None:
        parts.append(f"<h2>Summary</h2><pre>{_text(fit.summary())}</pre>")
    parts.append(f"<h2>How it was compiled</h2><pre>{_text(fit.explain())}</pre>")
    title = _text(f"Fit of {fit.objective.name}")
    path.write_text(_PAGE.format(title=title, body="\n".join(parts)))
    return path


def _figures(fit: Fit) -> Iterator[tuple[str, Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    fit.plot_loss(figure.add_subplot())
    yield "Loss", figure
    if fit.objective.guide is not None:
        yield "Marginals", fit.plot_marginals()
    if fit.objective.model is not None and fit.data[0]:
        yield "Predictions", fit.plot_predictive()
    if fit.history:
        yield "Parameters", fit.plot_params()


def _png(fit: Fit, path: Path) -> Path:
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    images = [imread(io.BytesIO(_bytes(figure))) for _, figure in _figures(fit)]
    heights = [image.shape[0] / image.shape[1] for image in images]
    page = Figure(figsize=(8, 8 * sum(heights)), layout="constrained", dpi=120)
    for axes, image in zip(
        page.subplots(len(images), squeeze=False, height_ratios=heights)[:, 0], images, strict=True
    ):
        axes.imshow(image)
        axes.set_axis_off()
    page.savefig(path)
    return path


def _bytes(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _embedded(figure: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(_bytes(figure)).decode()


def _text(value: Any) -> str:
    return html.escape(str(value))
