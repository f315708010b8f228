"""The 8 x 8 hand-written digits that scikit-learn ships (E. Alpaydin and C. Kaynak, 1998)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int


def load_digits() -> tuple[Float[np.ndarray, "images 8 8"], Int[np.ndarray, " images"]]:
    """Images with values 0 to 16, and the digits that they show.

    Read from scikit-learn's file: to import the package takes seconds.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ImportError("the digits come with scikit-learn: pip install 'ppl[stdlib]'")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int32)
