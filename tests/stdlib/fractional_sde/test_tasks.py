"""The models of the experiments: evidence by whole paths, guidance, and the video's parts."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl import bind_params, density, seed, vi
from stdlib.fractional_sde import SDE, affine_control, affine_guidance, video
from stdlib.fractional_sde.tasks import Bridge, Sequences


def test_evidence_by_whole_paths():
    """`marginal` by importance sampling with the untrained guide: unbiased for the evidence. 20,000
    paths: the standard error is below 1 %; |z| < 5.5."""
    task = Bridge("I", steps=10)
    estimate = lambda: density(task.evidence(100))({"o": jnp.asarray(0.5)}, 0.3)
    keys = jax.random.split(jax.random.key(0), 200)
    logs = np.asarray(jax.jit(jax.vmap(seed(estimate)))(keys), float)
    ratios = np.exp(logs - task.log_evidence(0.5, 0.3))
    error = ratios.std(ddof=1) / len(ratios) ** 0.5
    assert error < 0.01
    assert abs(ratios.mean() - 1) < 5.5 * error


def test_guidance_aims_at_the_next_observation():
    """The first feature is Doob's: where the noise leads by itself, against what is seen next."""
    task = Sequences(steps=40, count=4)
    sde = SDE(task.noise, 0.3, task.steps, task.duration)
    observed = jnp.array([[1.0], [2.0], [3.0], [4.0]])
    coefficients = jnp.zeros((40, task.num_coefficients)).at[:, 0].set(1.0)
    inputs = affine_guidance(sde, task.times, observed, coefficients, jnp.zeros(40))
    np.testing.assert_allclose(inputs.target[:, 0], np.repeat([1.0, 2.0, 3.0, 4.0], 10))
    np.testing.assert_allclose(inputs.left[8:12], [0.1, 0.05, 0.5, 0.45], atol=1e-6)
    x, y = jnp.array([0.3]), jnp.linspace(-1.0, 1.0, 5)[None]
    at = jax.tree.map(lambda v: v[10], inputs)
    u, spread = affine_control(jnp.array(0.5), x, y, at)
    decay = np.expm1(-task.noise.rates * 0.5)
    mean = 0.3 + float(jnp.sum(task.noise.weights(0.3) * decay * y[0]))
    np.testing.assert_allclose(u, [(2.0 - mean) / 0.55], rtol=1e-4)
    assert spread == 1.0


def test_the_data_are_exact_noise_and_the_evidence_peaks_there():
    task = Sequences()
    assert task.data(0.3, 7).shape == (7, 20)
    for true in (0.3, 0.8):
        observed = task.data(true, 200)
        likely = [task.log_evidence(observed, h) for h in (true - 0.15, true, true + 0.15)]
        assert np.argmax(likely) == 1


def test_cut_is_the_transpose_of_paste():
    rng = np.random.default_rng(0)
    digit, frame = rng.normal(size=(8, 8)), rng.normal(size=(16, 16))
    place = jnp.array([1.3, -2.6])
    left = jnp.sum(video.paste(jnp.asarray(digit), place) * frame)
    np.testing.assert_allclose(
        left, jnp.sum(digit * video.cut(jnp.asarray(frame), place)), rtol=1e-4
    )


def test_the_encoder_finds_the_digits():
    """Before it has learned anything: within half a pixel, on average."""
    frames, places = video.make_videos(4, 0)
    found = jax.jit(seed(jax.vmap(video.locate)))(jax.random.key(0), frames)
    assert np.sqrt(np.mean((np.asarray(found) - places) ** 2)) < 0.7


def test_the_pattern_is_a_correlation():
    frame = np.random.default_rng(0).normal(size=(video.CANVAS, video.CANVAS))
    pattern = np.random.default_rng(1).normal(size=(video.PATTERN, video.PATTERN))
    matrix = np.append(pattern.ravel(), 0.0)[video.SHIFTED]
    found = (frame.ravel() @ matrix).reshape(frame.shape)
    padded = np.pad(frame, video.PATTERN // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, pattern.shape)
    np.testing.assert_allclose(found, np.einsum("ijkl,kl->ij", windows, pattern))


def test_the_video_bound_runs_and_learns_the_index_only_if_told():
    """One gradient for each: finite, and 0 for the index of plain Brownian motion."""
    frames, _ = video.make_videos(2, 0)
    est = vi.compile(video.bound)
    key = jax.random.key(0)
    params = est.init(key, jnp.asarray(True), frames)
    step = eqx.filter_jit(lambda learns: est.value_and_grad(key, params, learns, frames))
    for learns in (True, False):
        value, grad = step(jnp.asarray(learns))
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(eqx.filter(grad, eqx.is_array)))
        assert (grad["hurst"] != 0) == learns
    text = str(est.explain(jnp.asarray(True), frames))
    assert "guide/path/dW  normal[2x2]  reparam" in text
    screens, places = jax.jit(seed(bind_params(video.reconstruct, params)))(key, frames[0])
    assert screens.shape == frames[0].shape and places.shape == (video.FRAMES, 2)
