"""The distribution transformer: from a prior and observations to a Gaussian mixture.

A prior is k tokens, one per component of the result. The tokens attend to each other and to the
observations' tokens; one shared read-out makes a component of each. So the result is equivariant
to permutations of a mixture prior's components and invariant to permutations of the points of an
observation: no token knows its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from stdlib.distribution_transformer.mixture import Mixture, small_product

HIDDEN = 32
JITTER = 1e-6


def _mlp(inputs: int, outputs: int, hidden: int, key: Key[Array, ""]) -> eqx.nn.MLP:
    return eqx.nn.MLP(inputs, outputs, hidden, 1, jax.nn.gelu, key=key)


def _normalise(token: Float[Array, " m"]) -> Float[Array, " m"]:
    """Mean 0 and variance 1, as a new layer's normalisation leaves them."""
    return jax.nn.standardize(token)


class Prior(Protocol):
    """What tells the network of a prior."""

    def base(self, prior: Any, size: int) -> Mixture:
        """In the coordinates of its components those of the result are read out."""
        ...

    def __call__(self, prior: Any) -> Float[Array, "k m"]:
        """A token for each component."""
        ...


class FamilyPrior(eqx.Module):
    """Tokens for a prior of a parametric family: a shared network, then one for each component."""

    shared: eqx.nn.MLP
    each: eqx.nn.MLP

    def __init__(self, features: int, components: int, width: int, *, key: Key[Array, ""]):
        first, second = jax.random.split(key)
        self.shared = _mlp(features, width, HIDDEN, first)
        make = eqx.filter_vmap(lambda key: _mlp(width, width, 2 * HIDDEN, key))
        self.each = make(jax.random.split(second, components))

    def base(self, features: Float[Array, " features"], size: int) -> Mixture:
        return _standard(self.each.layers[0].weight.shape[0], size)

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, "k m"]:
        token = self.shared(features)
        tokens = eqx.filter_vmap(lambda mlp: mlp(token))(self.each)
        return jax.vmap(_normalise)(tokens)


class MixturePrior(eqx.Module):
    """Tokens for a Gaussian mixture: one network, component by component.

    Args:
        relative: components are read out in the coordinates of the prior's, so that nothing said
            leaves them as they are: where a posterior is near its prior that is more exact.
    """

    mlp: eqx.nn.MLP
    relative: bool = eqx.field(static=True)

    def __init__(self, size: int, width: int, *, relative: bool = False, key: Key[Array, ""]):
        self.relative = relative
        self.mlp = _mlp(1 + size + size * (size + 1) // 2, width, HIDDEN, key)

    def base(self, prior: Mixture, size: int) -> Mixture:
        return prior if self.relative else _standard(len(prior.loc), size)

    def __call__(self, prior: Mixture) -> Float[Array, "k m"]:
        rows, columns = jnp.tril_indices(prior.loc.shape[-1], -1)
        diagonals = jnp.diagonal(prior.scale_tril, axis1=-2, axis2=-1)
        features = [
            jax.nn.log_softmax(prior.logits)[:, None],
            prior.loc,
            jnp.log(diagonals),
            prior.scale_tril[:, rows, columns],
        ]
        return jax.vmap(lambda x: _normalise(self.mlp(x)))(jnp.concatenate(features, -1))


class NoPrior(eqx.Module):
    """Tokens that know nothing of the prior: what amortised inference usually has."""

    tokens: Float[Array, "k m"]

    def __init__(self, components: int, width: int, *, key: Key[Array, ""]):
        self.tokens = jax.random.normal(key, (components, width))

    def base(self, prior: object, size: int) -> Mixture:
        return _standard(len(self.tokens), size)

    def __call__(self, prior: object) -> Float[Array, "k m"]:
        return jax.vmap(_normalise)(self.tokens)


@dataclass(frozen=True)
class Forecast:
    """How each component of a mixture prior forecast the data.

    Attributes:
        features: how many numbers describe that.
        of: `(prior, *data) -> [k, features]`.
    """

    features: int
    of: Callable[..., Float[Array, "k features"]]

    def make(self, width: int, key: Key[Array, ""]) -> _Forecasts:
        return _Forecasts(_mlp(self.features, width, HIDDEN, key), self.of)


class _Forecasts(eqx.Module):
    """Adds to each component's token how it forecast the data."""

    mlp: eqx.nn.MLP
    of: Callable[..., Float[Array, "k features"]] = eqx.field(static=True)

    def __call__(self, tokens: Float[Array, "k m"], prior: Any, *data: Any) -> Array:
        return jax.vmap(_normalise)(tokens + jax.vmap(self.mlp)(self.of(prior, *data)))


class Layer(eqx.Module):
    """A post-norm transformer decoder layer, without positions and masks.

    Self-attention and feed-forward start at zero, as the authors' do; cross-attention does not.
    """

    among: eqx.nn.MultiheadAttention
    across: eqx.nn.MultiheadAttention
    forward: eqx.nn.MLP
    norms: tuple[eqx.nn.LayerNorm, ...]

    def __init__(self, width: int, heads: int, hidden: int, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 3)
        among = eqx.nn.MultiheadAttention(heads, width, key=keys[0])
        forward = _mlp(width, width, hidden, keys[1])
        self.among = _zeroed(among, lambda a: a.output_proj.weight)
        self.forward = _zeroed(forward, lambda f: f.layers[-1].weight)
        self.across = eqx.nn.MultiheadAttention(heads, width, key=keys[2])
        self.norms = tuple(eqx.nn.LayerNorm(width) for _ in range(3))

    def __call__(
        self, tokens: Float[Array, "k m"], data: Float[Array, "s m"]
    ) -> Float[Array, "k m"]:
        steps = (
            lambda t: self.among(t, t, t),
            lambda t: self.across(t, data, data),
            jax.vmap(self.forward),
        )
        for norm, step in zip(self.norms, steps, strict=True):
            tokens = jax.vmap(norm)(tokens + step(tokens))
        return tokens


def _zeroed[M: eqx.Module](module: M, where) -> M:
    return eqx.tree_at(where, module, replace_fn=jnp.zeros_like)


class DistributionTransformer(eqx.Module):
    """A network from a prior and observations to a mixture of k normal laws of n numbers.

    Args:
        prior: embeds the prior as k tokens of `width` numbers.
        sources: number of features of each source of observations.
        size: n.
        width, heads, layers, hidden: of the transformer; `hidden` is the feed-forward's.
        forecast: what the tokens are told of how each component forecast the data.

    Source: Whittle et al. (arXiv 2502.02463); log-softmax for the weights in place of the authors'
    normalised sigmoids, and tokens normalised before the first layer, so that layers that add
    nothing leave the prior as it is.
    """

    prior: Prior
    sources: tuple[eqx.nn.MLP, ...]
    layers: Layer  # of all layers, stacked, so that one is traced for all
    readout: eqx.nn.MLP
    forecast: _Forecasts | None
    size: int = eqx.field(static=True)

    def __init__(
        self,
        prior: Prior,
        sources: Sequence[int],
        size: int,
        *,
        width: int = 32,
        heads: int = 2,
        layers: int = 2,
        hidden: int = 64,
        forecast: Forecast | None = None,
        key: Key[Array, ""],
    ):
        source_key, layer_key, readout_key, forecast_key = jax.random.split(key, 4)
        keys = jax.random.split(source_key, len(sources))
        self.prior, self.size = prior, size
        self.forecast = None if forecast is None else forecast.make(width, forecast_key)
        self.sources = tuple(
            _mlp(features, width, HIDDEN, k) for features, k in zip(sources, keys, strict=True)
        )
        stack = eqx.filter_vmap(lambda k: Layer(width, heads, hidden, key=k))
        self.layers = stack(jax.random.split(layer_key, layers))
        self.readout = _mlp(width, 1 + size + size * (size + 1) // 2, HIDDEN, readout_key)

    def prior_mixture(self, prior: object) -> Mixture:
        """The prior as it is read out of its tokens."""
        return self._read(self.prior(prior), prior)

    def __call__(self, prior: object, *data: Float[Array, "points features"]) -> Mixture:
        """The posterior given observations, one array of points for each source.

        Raises:
            ValueError: there are not as many arrays as sources.
        """
        if len(data) != len(self.sources):
            raise ValueError(
                f"DistributionTransformer: {len(self.sources)} sources of observations, but "
                f"{len(data)} arrays"
            )
        points = [jax.vmap(mlp)(x) for mlp, x in zip(self.sources, data, strict=True)]
        seen = jnp.concatenate(points)
        tokens = self.prior(prior)
        if self.forecast is not None:
            tokens = self.forecast(tokens, prior, *data)
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def layer(tokens: Array, arrays: Layer) -> tuple[Array, None]:
            return eqx.combine(arrays, static)(tokens, seen), None

        return self._read(lax.scan(layer, tokens, arrays, unroll=True)[0], prior)

    def _read(self, tokens: Float[Array, "k m"], prior: object) -> Mixture:
        """A component for each token, in the coordinates of the prior's."""
        n = self.size
        base = self.prior.base(prior, n)
        logits, loc, log_diagonal, below = jnp.split(
            jax.vmap(self.readout)(tokens), [1, 1 + n, 1 + 2 * n], axis=-1
        )
        tril = jax.vmap(jnp.diag)(jnp.exp(log_diagonal) + JITTER)
        tril = tril.at[:, *jnp.tril_indices(n, -1)].set(below)
        return Mixture(
            jax.nn.log_softmax(base.logits + logits[:, 0]),
            base.loc + small_product(base.scale_tril, loc[..., None])[..., 0],
            small_product(base.scale_tril, tril),
        )


def _standard(components: int, size: int) -> Mixture:
    """Equal components N(0, I)."""
    eye = jnp.broadcast_to(jnp.eye(size), (components, size, size))
    return Mixture(jnp.zeros(components), jnp.zeros((components, size)), eye)
