"""Minibatches: unbiased, each row once per epoch, from memory and from a source on the disk."""

from __future__ import annotations

import itertools

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppl import flip, gen, normal, param, plate, positive, unit_interval, vi
from ppl.errors import DataError, ShapeError
from ppl.vi._batches import rows_of

N = 6
XS = jnp.linspace(-1.0, 1.0, N)
YS = jnp.array([-0.3, 0.2, 1.0, -1.2, 0.4, 2.0])


@gen
def point(x, slope):
    kind = flip(0.3) @ "kind"
    normal(slope * x + kind, 1.0) @ "y"


@gen
def model(xs, rows):
    slope = normal(0.0, 2.0) @ "slope"
    plate(point, in_axes=(0, None), total=N)(xs, slope) @ "points"


@gen
def local(p):
    flip.enum(p) @ "kind"


@gen
def guide(xs, rows):
    scale = param("scale", 0.5, support=positive)
    normal.reparam(param("loc", 0.1), scale) @ "slope"
    p = param("p", jnp.linspace(0.2, 0.8, N), support=unit_interval)[rows]
    plate(local, total=N)(p) @ "points"


def program():
    args = (XS, jnp.arange(N))
    return vi.elbo(model, guide, observed={"points": {"y": YS}}, args=args)


def test_the_mean_over_all_batches_is_the_whole_gradient():
    """Exactly: local choices are enumerated, and the global draw is the same for equal keys."""
    objective = program()
    est, key = vi.compile(objective), jax.random.key(1)
    params = est.init(key)
    whole_value, whole = jax.jit(est.value_and_grad)(key, params, *objective.data)
    rows = rows_of(objective.data, 2)
    batches = np.array(list(itertools.combinations(range(N), 2)))

    @jax.jit
    @jax.vmap
    def batch(indices):
        return est.value_and_grad(key, params, *rows.take(objective.data, indices))

    values, grads = batch(batches)
    np.testing.assert_allclose(values.mean(), whole_value, rtol=1e-5)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad.mean(0), whole[name], rtol=1e-4, atol=1e-5)
    assert np.ptp(values) > 0.1


def test_an_epoch_sees_each_row_once():
    rows = rows_of(({"y": YS}, (XS, jnp.arange(N))), 2)
    key = jax.random.key(0)
    orders = [rows.order(key, epoch) for epoch in (0, 1)]
    assert np.any(orders[0] != orders[1])
    for epoch, order in enumerate(orders):
        steps = range(epoch * rows.per_epoch, (epoch + 1) * rows.per_epoch)
        data = [rows.step(({"y": YS}, (XS, jnp.arange(N))), order, i) for i in steps]
        seen = np.concatenate([d[1][1] for d in data])
        assert sorted(seen) == list(range(N))
        np.testing.assert_array_equal(np.concatenate([d[0]["y"] for d in data]), YS[seen])


def test_the_fit_takes_the_batches_of_each_epoch():
    """One parameter per row, and a loss that moves the rows of its batch: the parameters count."""

    def visits(rows):
        count = param("count", jnp.zeros(5))
        return jnp.sum(count[rows]) + 0.0 * jnp.sum(count)

    fit = vi.fit(
        visits, jnp.arange(5), steps=20, batch_size=2, optimizer=optax.sgd(1.0), progress=False
    )
    assert float(fit.params["count"].sum()) == 40 and fit.params["count"].max() <= 10
    again = vi.fit(visits, jnp.arange(5), steps=20, batch_size=2, optimizer=optax.sgd(1.0), chunk=7)
    np.testing.assert_array_equal(fit.params["count"], again.params["count"])


def test_a_fit_by_batches_finds_what_a_whole_fit_finds():
    """z ~ N(0, 1), y_i ~ N(z, 1), 64 of them: sd of the posterior 0.124; the mean to 0.15 sd."""
    ys = 1.5 + jax.random.normal(jax.random.key(3), (64,))

    @gen
    def one(_, z):
        normal(z, 1.0) @ "y"

    @gen
    def batched(like):
        z = normal(0.0, 1.0) @ "z"
        plate(one, in_axes=(0, None), total=64)(like, z) @ "ys"

    program = vi.elbo(batched, observed={"ys": {"y": ys}}, args=(jnp.zeros(64),))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1_500))
    fit = vi.fit(program, steps=1_500, batch_size=8, optimizer=optimizer, num_samples=4)
    mean, sd = float(jnp.sum(ys)) / 65, 65**-0.5
    draws = fit.sample(4_000)["z"]
    assert abs(float(fit.params["z.loc"]) - mean) < 0.15 * sd
    np.testing.assert_allclose(draws.std(), sd, rtol=0.15)


# --------------------------------------------------------------------------------- refusals


def test_a_program_that_does_not_scale_is_refused():
    @gen
    def unscaled(xs, rows):
        slope = normal(0.0, 2.0) @ "slope"
        normal(slope * xs, 1.0) @ "y"

    args = (XS, jnp.arange(N))
    program = vi.elbo(unscaled, observed={"y": YS}, args=args)
    with pytest.raises(DataError, match="no plate has a total") as error:
        vi.fit(program, steps=1, batch_size=2)
    assert "plate(..., total=6)" in str(error.value)


def test_parameters_per_row_are_refused():
    def objective(xs):
        return -jnp.sum((param("loc", jnp.zeros(len(xs))) - xs) ** 2)

    with pytest.raises(ShapeError, match="'loc' has an entry for each row of the batch"):
        vi.fit(objective, XS, steps=1, batch_size=2)


def test_rows_must_agree():
    data = {"y": YS}, (jnp.zeros((3, 2)), 1.0)
    with pytest.raises(ShapeError, match=r"data\[1\]\[0\] has 3"):
        rows_of(data, 2)
    rows = rows_of(data, 2, ({"y": 0}, (None, None)))
    assert rows.batched == (True, False, False) and rows.total == N
    with pytest.raises(ValueError, match="batch_size is 9, but the data has 6 rows"):
        rows_of(({"y": YS},), 9)
    with pytest.raises(ValueError, match="entries 0 and None only"):
        rows_of(({"y": YS},), 2, 1)


# ----------------------------------------------------------------------------------- streams


def regression(xs, ys):
    return -jnp.mean((param("slope", 0.0) * xs - ys) ** 2)


def dataset():
    rng = np.random.default_rng(0)
    rows = [(x, 2 * x) for x in rng.normal(size=40).astype(np.float32)]
    return grain.MapDataset.source(rows)


def test_a_source_of_rows():
    fit = vi.fit(regression, dataset(), steps=200, batch_size=8, optimizer=optax.adam(0.05))
    np.testing.assert_allclose(fit.params["slope"], 2.0, atol=0.02)
    again = vi.fit(
        regression, dataset(), steps=200, batch_size=8, optimizer=optax.adam(0.05), chunk=5
    )
    np.testing.assert_allclose(again.losses, fit.losses, rtol=1e-4, atol=1e-6)


def test_a_source_of_batches_that_ends():
    batches = dataset().batch(10).to_iter_dataset()
    assert vi.fit(regression, batches, steps=4).steps == 4
    with pytest.raises(DataError, match="ended after 4 batches"):
        vi.fit(regression, batches, steps=5)
