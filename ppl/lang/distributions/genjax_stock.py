"""GenJAX's own distributions inside our programs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import genjax

from ppl.lang import interop
from ppl.lang.distribution import Distribution
from ppl.lang.distributions.categorical import categorical
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.from_tfp import from_tfp
from ppl.lang.distributions.geometric import geometric
from ppl.lang.distributions.multivariate_normal import (
    multivariate_normal,
    multivariate_normal_diag,
)
from ppl.lang.distributions.normal import normal
from ppl.lang.distributions.uniform import uniform

_ours: dict[Any, Distribution] = {}
"""TFP constructor -> our distribution, filled at import by `register`."""


def register(distributions: Iterable[Distribution]) -> None:
    """Let GenJAX's distributions made from these families' TFP classes become these."""
    _ours.update((d.family.value.tfp, d) for d in distributions if d.family.value.tfp)
    # Two of GenJAX's stock distributions wrap a TFP class in a function.
    _ours.update(
        {constructor_of(genjax.flip): flip, constructor_of(genjax.categorical): categorical}
    )


@interop.converts(genjax.Distribution)
def from_genjax(distribution: genjax.Distribution) -> genjax.GFI:
    """Our distribution for a GenJAX one.

    One that was not made by `tfp_distribution` is returned as it is: there is no way to tell its
    density from its parameters.
    """
    estimator = _estimators.get(_sampler_id(distribution))
    if estimator is not None:
        return estimator
    constructor = constructor_of(distribution)
    if constructor is None:
        return distribution
    return _ours.get(constructor) or _convert(constructor, distribution.name.value)


def _sampler_id(distribution: genjax.Distribution) -> int:
    return id(distribution._sample.value)


# GenJAX's gradient estimators are distributions whose sampler carries the strategy. Its geometric
# one draws by probability but has the density of logits; ours takes logits for both.
_estimators: dict[int, Distribution] = {
    _sampler_id(genjax.flip_reinforce): flip.via("score"),
    _sampler_id(genjax.geometric_reinforce): geometric.via("score"),
    _sampler_id(genjax.normal_reinforce): normal.via("score"),
    _sampler_id(genjax.uniform_reinforce): uniform.via("score"),
    _sampler_id(genjax.multivariate_normal_reinforce): multivariate_normal.via("score"),
    _sampler_id(genjax.normal_reparam): normal.via("reparam"),
    _sampler_id(genjax.uniform_reparam): uniform.via("reparam"),
    _sampler_id(genjax.multivariate_normal_reparam): multivariate_normal.via("reparam"),
    _sampler_id(genjax.multivariate_normal_diag_reparam): multivariate_normal_diag.via("reparam"),
}


@functools.lru_cache(maxsize=1024)
def _convert(constructor: Callable[..., Any], name: str | None) -> Distribution:
    return from_tfp(constructor, name=name)


def constructor_of(distribution: genjax.Distribution) -> Callable[..., Any] | None:
    """The TFP constructor that `genjax.tfp_distribution` was given, `None` if there is none."""
    keyful = _closure(distribution._sample.value).get("keyful_sampler")
    if keyful is None or keyful.__module__ != genjax.core.__name__:
        return None
    return _closure(keyful).get("dist")


def _closure(function: Any) -> dict[str, Any]:
    """The variables that a function closes over."""
    code = getattr(function, "__code__", None)
    if code is None or function.__closure__ is None:
        return {}
    cells = (cell.cell_contents for cell in function.__closure__)
    return dict(zip(code.co_freevars, cells, strict=True))
