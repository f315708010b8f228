"""Settings of all tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax
import pytest

# XLA programs compiled by one run, or by another worker, are not compiled again.
CACHE = Path(__file__).parent.parent / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
# Most of a test is compilation, and of what XLA then makes little runs. Other processes that a test
# starts read it from the environment: their results must be the same to the last bit.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

# Traced programs are many small objects that live long: looking through them less often saves 3 %.
gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key."""
    return jax.random.key(0)
