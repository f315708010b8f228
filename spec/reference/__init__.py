"""The meaning of the text language, computed exactly: slow, and easy to check.

An objective's value is the sum over all outcomes of its choices: discrete ones by their list of
values, continuous ones by quadrature. Everything is plain Python loops over NumPy numbers in double
precision. Gradients are exact up to rounding: all arithmetic is analytic, so the derivative is the
imaginary part after a step of 1e-30 along the imaginary axis (Squire and Trapp, SIAM Review 1998).

It shares with the compiler only the syntax tree. The rules named in brackets are those of
`language.md`.
"""

from __future__ import annotations

from spec.reference.objectives import outcomes as outcomes
from spec.reference.objectives import value as value
from spec.reference.objectives import value_and_gradient as value_and_gradient
