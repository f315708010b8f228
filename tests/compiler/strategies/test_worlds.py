"""Strategies with alternative worlds, through every construct; exact references by enumeration.

5,000 gradient draws or more per test, |z| < 5.5 (false-alarm rate 4e-8), and enough draws that a
bias of 10 % would fail.
"""

from __future__ import annotations

import pytest

from ppl.compiler import compile
from ppl.lang.distributions import flip
from tests.compiler.exact import brute, check_unbiased
from tests.compiler.test_structures import PROGRAMS, THETA

WORLDS = {
    "scan_accumulates_nonlinear": 4,
    "lanes_of_parameters": 4,
    "nonlinear_per_lane": 2,
    "markov_with_global_regime": 4,
    "markov_lanes": 3,
    "scan_over_plate": 4,
    "running_sum_of_scan_outputs": 4,
    "nested_scans": 3,
    "switch_with_three_branches": 5,
    "cond_in_scan": 5,
    "costs_inside_checkpoint": 3,
    "enumerated_below_score": 2,
    "charge_carries_an_axis": 2,
    "shifted_lanes_are_mixed": 4,
}
"""Programs, and how many worlds a flip with one alternate per lane needs there."""


@pytest.mark.parametrize("name", WORLDS)
def test_alternate_lanes_and_steps(name):
    make, reference, flips, _ = PROGRAMS[name]
    value, grad = brute(reference, flips, THETA)
    objective = lambda: make(flip.mvd)
    check_unbiased(objective, grad, exact_value=value, bias=0.1)
    assert compile(objective).plan().worlds.size == WORLDS[name]
