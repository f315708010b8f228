"""The noisy cone's bounds at known parameters, its training, and its figure."""

from __future__ import annotations

import pytest

from examples.programmable_vi import cone

# (objective, parameters, the bound there): the optima, by quadrature, and measured with 10^6 draws
KNOWN = [
    ("naive", {"x": 2.21899, "y": 0.0, "log_x": -3.38713, "log_y": -1.27646}, -8.074537),
    ("naive", {"x": 2.2, "y": 0.0, "log_x": -3.0, "log_y": -1.2}, -8.402646),
    ("hvi", {"log_x": -3.04762, "log_y": -3.04762}, -9.748135),
    ("iwhvi", {"log_x": -3.0476, "log_y": -3.0476}, -8.178),
]


@pytest.mark.parametrize("name, params, bound", KNOWN)
def test_bounds_at_known_parameters(name, params, bound):
    """100,000 draws, |z| < 5.5 (false-alarm rate 4e-8), or the digits known."""
    found, error = cone.evaluate(cone.OBJECTIVES[name], params, 100_000)
    assert abs(found - bound) < 5.5 * error + (0.007 if name == "iwhvi" else 0)
    assert error < 0.01


def test_training_and_figure(tmp_path):
    """In 300 steps the ring gets further than the naive guide's start, and all is drawn."""
    results = cone.main(quick=True, folder=tmp_path, numpyro=False)
    assert (tmp_path / "cone.png").stat().st_size > 10_000
    assert -12 < results["hvi"].bound < results["iwhvi"].bound < results["diwhvi"].bound
    assert results["diwhvi"].bound < cone.LOG_EVIDENCE
