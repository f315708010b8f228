"""Any TFP distribution as one of ours."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.errors import ShapeError
from ppl.lang import supports
from ppl.lang.distribution import Distribution, make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._tfp import quiet, tfp_sampler
from ppl.lang.family import Family, Kind
from ppl.lang.supports import Support

tfb, tfd = tfp.bijectors, tfp.distributions
Reparam = Literal["explicit", "implicit"] | None


def from_tfp(
    constructor: Callable[..., Any],
    *,
    name: str | None = None,
    event_ndims: Mapping[str, int] | None = None,
    support: Support | None = None,
    kind: Kind | None = None,
    reparam: Reparam | Literal["auto"] = "auto",
) -> Distribution:
    """A distribution of the language from a TFP distribution, or a function that makes one.

    Args:
        constructor: a TFP class, or a function from parameters to a TFP distribution.
        name: as shown in messages; the constructor's if not given.
        event_ndims: rank of each parameter for one element of a batch (`{"loc": 1}`); found out
            from the constructor if not given.
        support: TFP's default event space if not given.
        kind: what the values are; from TFP's dtype if not given.
        reparam: whether draws are differentiable in the parameters; as TFP says if not given.

    Raises:
        ShapeError (when called): TFP's batch shape is not the one that `event_ndims` implies.

    >>> kumaraswamy = from_tfp(tfd.Kumaraswamy)
    >>> round(float(jnp.exp(kumaraswamy.log_prob(0.5, 2.0, 3.0))), 4)
    1.6875
    """
    names, defaults = _signature(constructor)
    title = name or _name(constructor)
    ranks = {n: 0 for n in names}
    ranks |= dict(event_ndims) if event_ndims is not None else _ranks(constructor, defaults)
    if unknown := sorted(set(ranks) - set(names)):
        raise TypeError(f"from_tfp: {title} has no parameter {unknown}; it takes {names}")
    example = _example(constructor, ranks, defaults)
    kind = kind or _kind(example)
    if reparam == "auto":
        reparam = _reparam(example)

    shapes_of = functools.cache(functools.partial(_shapes, constructor))
    draw = tfp_sampler(constructor, ranks)

    def event_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        batch, event = shapes_of(tuple(shapes.items()))
        if batch != (expected := family.batch_shape(shapes)):
            raise ShapeError(
                f"{title}: the parameters do not have the ranks {ranks}",
                because=f"the batch shape should be {expected}, but TFP's is {batch}",
                fix="from_tfp(constructor, event_ndims={name: rank of one parameter, ...})",
            )
        return event

    def support_of(**params: Array) -> Support:
        with quiet():
            return _support(constructor(**params), title, kind)

    def sample(key: Array, shape: tuple[int, ...], **params: Array) -> Array:
        return draw(key, shape, **params).astype(family.dtype(params))

    def log_density(value: Array, **params: Array) -> Array:
        event = event_shape({n: p.shape for n, p in params.items()})
        domain = support or support_of(**params)
        inside = domain.check(value)
        axes = tuple(range(-len(event), 0))
        with quiet():
            dist = constructor(**params)
            # TFP's densities outside of the support are free to be NaN.
            safe = jnp.where(jnp.expand_dims(inside, axes), value, domain.example(event))
            return only_where(inside, dist.log_prob(safe.astype(dist.dtype)))

    family = Family(
        title,
        ranks,
        sample,
        log_density,
        support=support or support_of,
        event_shape=event_shape,
        kind=kind,
        reparam=reparam,
        defaults=defaults,
        tfp=constructor,
    )
    return make_distribution(family)


def _name(constructor: Callable[..., Any]) -> str:
    name = getattr(constructor, "__name__", "from_tfp")
    return "from_tfp" if name == "<lambda>" else name


def _signature(constructor: Callable[..., Any]) -> tuple[list[str], dict[str, Any]]:
    """The names of a constructor's numerical parameters, and their defaults."""
    known = inspect.signature(constructor).parameters.values()
    given = [p for p in known if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if _is_tfp_class(constructor):
        numerical = constructor.parameter_properties()  # type: ignore[attr-defined]
        given = [p for p in given if p.name in numerical]
    return [p.name for p in given], {p.name: p.default for p in given if p.default is not p.empty}


def _is_tfp_class(constructor: Any) -> bool:
    return isinstance(constructor, type) and issubclass(constructor, tfd.Distribution)


def _ranks(constructor: Callable[..., Any], defaults: dict[str, Any]) -> dict[str, int]:
    """The parameters' ranks, as a TFP class declares them, else by trying."""
    if _is_tfp_class(constructor):
        declared = constructor.parameter_properties()  # type: ignore[attr-defined]
        ranks = {n: p.event_ndims for n, p in declared.items()}
        if all(isinstance(r, int) for r in ranks.values()):
            return ranks
    names, _ = _signature(constructor)
    candidates = sorted(itertools.product(range(3), repeat=len(names)), key=sum)
    for guess in candidates[:100]:
        ranks = dict(zip(names, guess, strict=True))
        example = _example(constructor, ranks, defaults, batch=(5,))
        if example is not None and tuple(example.batch_shape) == (5,):
            return ranks
    return {}


def _example(
    constructor: Callable[..., Any],
    ranks: Mapping[str, int],
    defaults: Mapping[str, Any],
    batch: tuple[int, ...] = (),
) -> Any:
    """A TFP distribution with traced parameters: its shapes and types, not its numbers.

    `None` if the constructor takes no parameters of these ranks.
    """
    found: list[Any] = []

    def construct(params: dict[str, Array]) -> None:
        found.append(constructor(**params))

    for names in _complete(list(ranks), defaults):
        params = {
            n: jax.ShapeDtypeStruct((*batch, *(3,) * ranks[n]), jnp.result_type(float))
            for n in names
        }
        try:
            with quiet():
                jax.eval_shape(construct, params)
        except Exception:  # whatever the constructor raises where the ranks are wrong
            continue
        if isinstance(found[-1].dtype, dict | list | tuple):
            raise TypeError("from_tfp: a joint distribution; write it as a program with choices")
        return found[-1]
    return None


def _complete(names: list[str], defaults: Mapping[str, Any]) -> Iterator[list[str]]:
    """Sets of parameters that may be complete: without some of those that may be absent."""
    optional = [n for n in names if n in defaults and defaults[n] is None]
    for size in range(len(optional) + 1):
        for absent in itertools.combinations(optional, size):
            yield [n for n in names if n not in absent]


def _shapes(
    constructor: Callable[..., Any], shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """TFP's (batch shape, event shape) for parameters of these shapes."""
    found: list[tuple] = []

    def construct(params: dict[str, Array]) -> None:
        dist = constructor(**params)
        found.append((tuple(dist.batch_shape), tuple(dist.event_shape)))

    dtype = jnp.result_type(float)
    with quiet():
        jax.eval_shape(construct, {n: jax.ShapeDtypeStruct(s, dtype) for n, s in shapes})
    return found[-1]


def _kind(example: Any) -> Kind:
    if example is None:
        return "float"
    if jnp.issubdtype(example.dtype, jnp.bool_):
        return "bool"
    if jnp.issubdtype(example.dtype, jnp.integer) or _bijector(example) is None:
        return "int"  # TFP's counts are floats, but have no map from the reals
    return "float"


def _reparam(example: Any) -> Reparam:
    # Draws of von Mises jump from pi to -pi: their derivative is right for periodic functions only.
    if example is None or isinstance(example, tfd.VonMises):
        return None
    smooth = example.reparameterization_type == tfd.FULLY_REPARAMETERIZED
    return "implicit" if smooth else None


def _bijector(dist: Any) -> Any:
    try:
        return dist.experimental_default_event_space_bijector()
    except NotImplementedError:
        return tfb.Identity()


def _support(dist: Any, name: str, kind: Kind) -> Support:
    """The support of a TFP distribution, one of ours where it is recognised."""
    ndims, bijector = len(dist.event_shape), _bijector(dist)
    if kind == "bool":
        return supports.boolean
    if kind == "int" or bijector is None:
        return _integers(name, ndims)
    return supports.image_of_reals(lambda: bijector, tuple(dist.event_shape), name, dist.dtype)


def _integers(name: str, ndims: int) -> Support:
    whole = lambda x: (x == jnp.floor(x)) & jnp.isfinite(x)
    axes = tuple(range(-ndims, 0))
    return Support(
        f"support of {name}",
        ndims,
        True,
        lambda x: jnp.all(whole(x), axes) if axes else whole(x),
        point=jnp.zeros,
    )
