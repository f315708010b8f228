"""Double precision, where it is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax


def precision(float64: bool) -> AbstractContextManager[Any]:
    """JAX in double precision inside of the block; as it is set, if false."""
    return jax.enable_x64(True) if float64 else nullcontext()
