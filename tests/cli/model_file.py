"""Programs that the tests of the command line name."""

from __future__ import annotations

from ppl import gen, normal, param, vi


@gen
def line(xs):
    slope = normal(0.0, 2.0) @ "slope"
    normal(slope * xs, 0.5) @ "y"


def from_data(data):
    return vi.elbo(line, vi.full_rank, observed={"y": data["y"]}, args=(data["x"],))


@vi.objective
def own():
    return -((param("a", 0.0) - 1.0) ** 2)


NUMBER = 3
