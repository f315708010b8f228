"""Functions that are analytic, on complex numbers, so that steps along them are derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np


def log(x: Any) -> Any:
    """-inf at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(x)


def absolute(x: Any) -> Any:
    """Analytic on each side of 0."""
    return np.where(np.real(x) < 0, -x, x)


def number(x: Any) -> Any:
    """Truth values as 0 and 1."""
    x = np.asarray(x)
    return x.astype(int) if x.dtype == bool else x
