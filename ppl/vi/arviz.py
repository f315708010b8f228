"""Fits as ArviZ data. Needs the `arviz` extra, which takes seconds to import: only on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Key

from ppl.lang.observed import Choices, PartlyObserved, flat_choices

if TYPE_CHECKING:
    from ppl.vi.result import Fit


def data_tree(fit: Fit, n: int, key: Key[Array, ""] | None = None) -> Any:
    """Posterior, posterior predictive and observed data of a fit as a `DataTree`.

    Variables are named by full address. An objective without a model has the posterior only.

    Args:
        n: number of draws, all in one chain.
        key: random key; the fit's own if `None`.

    Raises:
        ImportError: ArviZ is not installed.
    """
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise ImportError(
            "to_arviz needs ArviZ: install the extra with `pip install 'ppl[arviz]'` or "
            "`uv sync --extra arviz`"
        ) from error
    groups = {"posterior": _chains(fit.sample(n, key))}
    if fit.objective.model is not None:
        groups["posterior_predictive"] = _chains(fit.predictive(n, key))
        groups["observed_data"] = {
            a: np.asarray(v.values if isinstance(v, PartlyObserved) else v)
            for a, v in flat_choices(fit.data[0]).items()
        }
    attributes = {"inference_library": "ppl", "objective": fit.objective.name, "steps": fit.steps}
    return from_dict({k: v for k, v in groups.items() if v}, attrs={"/": attributes})


def _chains(choices: Choices) -> dict[str, np.ndarray]:
    """One chain of each choice."""
    flat = flat_choices(choices)
    return {address: np.asarray(jax.device_get(draws))[None] for address, draws in flat.items()}
