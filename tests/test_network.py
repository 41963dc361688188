"""The network: where it starts, what it accepts, and that its convolutions and their gradients are right."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField
from bayesdownscale.prior.layers import SelfAttention, convolve, double, halve
from bayesdownscale.prior.network import N_FEATURES, UNet, UNetConfig, embed

CONFIG = UNetConfig(widths=(4, 8), blocks=1, embedding=8, heads=2, dropout=0.5)
SIGMA = jnp.asarray(0.7)


def random_net(n_in, n_out, config=CONFIG):
    """A network with normal weights, so that nothing in it is zero."""
    shapes = eqx.filter_eval_shape(UNet, n_in, n_out, config, key=jax.random.key(0))
    rng = np.random.default_rng(7)
    fill = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
    return jax.tree.map(lambda leaf: fill(leaf) if is_shape(leaf) else leaf, shapes, is_leaf=is_shape)


def gaussian(n_time=3, n_var=1, n_lat=5, n_lon=6):
    cells = n_var * n_lat * n_lon
    rng = np.random.default_rng(0)
    modes = np.linalg.qr(rng.normal(size=(cells, cells)))[0].T[:4]
    return GaussianField(
        jnp.asarray(modes.reshape(4, n_var, n_lat, n_lon), jnp.float32),
        jnp.asarray(np.linalg.qr(rng.normal(size=(4, n_time, n_time)))[0], jnp.float32),
        jnp.asarray(rng.uniform(0.5, 3, (4, n_time)), jnp.float32),
        jnp.asarray(0.2),
    )


def denoiser(net=random_net, config=CONFIG, season=True, **shape):
    field = gaussian(**shape)
    n_in, n_out = DiffusionDenoiser.n_channels(field, 2)
    statics = jnp.asarray(np.random.default_rng(1).normal(size=(*field.shape[2:], 2)), jnp.float32)
    gain = jnp.asarray([0.1, 1.0, 10.0]), jnp.asarray([1.0, 1.0, 0.0]), jnp.ones((3, 5))
    return DiffusionDenoiser(field, net(n_in, n_out, config), statics, *gain, season)


@pytest.fixture(scope="module")
def untrained():
    one_level = UNetConfig(widths=(4,), blocks=1, embedding=4, heads=2)
    return denoiser(lambda *shape: UNet(*shape, key=jax.random.key(0)), one_level)


@pytest.fixture(scope="module")
def random():
    """A denoiser with random weights, jitted, and an input for it."""
    model = denoiser()
    return eqx.filter_jit(model), jax.random.normal(jax.random.key(2), (3, 1, 5, 6))


def test_untrained_it_is_the_gaussian_denoiser(untrained, context):
    x = jax.random.normal(jax.random.key(2), (3, 1, 5, 6))
    got, cost = eqx.filter_jit(untrained.evaluate)(x, SIGMA, context(3))
    np.testing.assert_allclose(got, GaussianDenoiser(untrained.gaussian)(x, SIGMA, context(3)), atol=1e-6)
    assert cost.evaluations == 1


@pytest.mark.parametrize(("n_var", "n_lat", "n_lon"), [(1, 7, 10), (3, 5, 4)])
def test_any_grid_and_any_number_of_variables(n_var, n_lat, n_lon, context):
    """7 x 10 at three levels, whose sizes are no multiples of 4; three variables on 5 x 4."""
    config = UNetConfig(widths=(4, 4, 8), blocks=1, embedding=8, heads=2)
    model = denoiser(config=config, n_var=n_var, n_lat=n_lat, n_lon=n_lon)
    x = jax.random.normal(jax.random.key(2), (3, n_var, n_lat, n_lon))
    out = eqx.filter_jit(model)(x, SIGMA, context(3))
    assert out.shape == x.shape
    assert jnp.all(jnp.isfinite(out))
    assert jnp.abs(out - model.gaussian.denoise(x, SIGMA)).max() > 1e-3


def test_untrained_loss_is_one_on_gaussian_data(untrained):
    """E |x - G|^2 = c_out^2 for every sigma. The mean of 64 x 90 squares has a standard deviation below
    sqrt(2 / 64) = 0.18 if all cells move together; four of them (failure rate below 1e-4), fixed key."""
    k_data, k_noise, k_sigma = jax.random.split(jax.random.key(3), 3)
    x = jax.vmap(untrained.gaussian.draw)(jax.random.split(k_data, 64))
    noise = jax.random.normal(k_noise, x.shape)
    sigma = jnp.exp(jax.random.uniform(k_sigma, (64,), minval=-3.0, maxval=3.0))
    contexts = Context(jnp.zeros((64, 3)), jnp.zeros((64, 3)))
    assert abs(eqx.filter_jit(untrained.loss)(x, noise, sigma, contexts, None) - 1) < 0.7


def test_every_feature_reaches_the_output():
    net = random_net(3, 2)
    image = jax.random.normal(jax.random.key(1), (5, 6, 3))
    run = jax.jit(lambda *when: net(image, embed(*when)))
    plain = [jnp.asarray(a) for a in (0.7, 3.0, 40.0)]
    for k, other in enumerate((2.1, 9.0, 200.0)):
        changed = [*plain[:k], jnp.asarray(other), *plain[k + 1 :]]
        assert jnp.abs(run(*plain) - run(*changed)).max() > 1e-3


def test_context_reaches_the_denoiser_and_the_day_only_with_a_season(random, context):
    model, x = random
    now = context(3)
    noon, summer = Context(now.hour + 12, now.day), Context(now.hour, now.day + 180)
    assert jnp.abs(model(x, SIGMA, now) - model(x, SIGMA, noon)).max() > 1e-3
    assert jnp.abs(model(x, SIGMA, now) - model(x, SIGMA, summer)).max() > 1e-3
    blind = eqx.filter_jit(denoiser(season=False))
    np.testing.assert_array_equal(blind(x, SIGMA, now), blind(x, SIGMA, summer))


def test_the_correction_is_scaled_by_its_gain(random, context):
    """1 up to sigma = 1, a half at sqrt(10), 0 at 10 and above, times the network's output and the spread."""
    x, model = jax.random.normal(jax.random.key(2), (3, 1, 5, 6)), denoiser()

    @jax.jit
    def pieces(sigma):
        g = model.gaussian.denoise(x, sigma)
        f = model.net(*model.network_input(x, g, sigma, context(3)))
        return model(x, sigma, context(3)) - g, model.gaussian.spread(sigma) * jnp.moveaxis(f, -1, 0)[:, None]

    for sigma, gain in ((0.01, 1.0), (1.0, 1.0), (10**0.5, 0.5), (10.0, 0.0), (200.0, 0.0)):
        correction, whole = pieces(jnp.asarray(sigma))
        np.testing.assert_allclose(correction, gain * whole, rtol=1e-3, atol=1e-4)


def test_embedding_is_periodic_in_hour_and_day():
    at = lambda h, d: embed(jnp.asarray(0.5), jnp.asarray(h), jnp.asarray(d))
    assert at(0.0, 0.0).shape == (N_FEATURES,)
    np.testing.assert_allclose(at(0.0, 0.0), at(24.0, 365.2425), atol=1e-5)
    assert jnp.abs(at(0.0, 0.0) - at(12.0, 0.0)).max() > 0.5


def test_a_batch_is_the_same_as_vmap():
    net = random_net(3, 2)
    x = jax.random.normal(jax.random.key(1), (2, 3, 5, 6, 3))
    features = jax.random.normal(jax.random.key(2), (2, 3, N_FEATURES))
    batched = eqx.filter_jit(net)(x, features)
    mapped = eqx.filter_jit(lambda net, x, f: jax.vmap(jax.vmap(net))(x, f))(net, x, features)
    np.testing.assert_allclose(batched, mapped, rtol=1e-4, atol=1e-4)


def test_dropout_only_with_a_key_and_without_bias():
    block = random_net(3, 2).down[0][0]
    block = eqx.tree_at(lambda b: b.conv_out.kernel, block, 0.3 * jnp.ones((3, 3, 4, 4)))
    x, e = jax.random.normal(jax.random.key(0), (5, 6, 4)), jnp.ones(8)
    run = eqx.filter_jit(block)
    plain = run(x, e, None)
    dropped = jax.lax.map(lambda key: run(x, e, key), jax.random.split(jax.random.key(1), 500))
    spread = dropped.std(0)
    assert spread.min() > 0.1
    z = (dropped.mean(0) - plain) / (spread / np.sqrt(500))
    assert jnp.abs(z).max() < 5  # 120 z-scores: failure rate 7e-5, fixed key


def test_attention_is_the_softmax_formula():
    """Two heads of two channels over 2 x 3 pixels, written out pixel by pixel."""
    layer = eqx.filter_jit(SelfAttention)(4, 2, key=jax.random.key(0))
    layer = eqx.tree_at(lambda a: a.to_out.kernel, layer, jnp.arange(16.0).reshape(1, 1, 4, 4) / 16)
    x = jax.random.normal(jax.random.key(1), (2, 3, 4))
    tokens = np.asarray(layer.to_qkv(layer.norm(x)), np.float64).reshape(6, 3, 2, 2)
    mixed = np.empty((6, 2, 2))
    for head in range(2):
        q, k, v = tokens[:, 0, head], tokens[:, 1, head], tokens[:, 2, head]
        weights = np.exp(q @ k.T / np.sqrt(2))
        mixed[:, head] = weights / weights.sum(1, keepdims=True) @ v
    want = x + layer.to_out(jnp.asarray(mixed.reshape(2, 3, 4), jnp.float32))
    np.testing.assert_allclose(eqx.filter_jit(layer)(x), want, rtol=1e-4, atol=1e-5)


def test_halving_undoes_doubling():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    np.testing.assert_allclose(halve(double(x)), x, rtol=1e-6)
    np.testing.assert_array_equal(double(x)[0, :2, :2, 0], jnp.full((2, 2), x[0, 0, 0, 0]))


class TestConvolution:
    """The hand-written reverse rule against the one JAX derives."""

    kernel = jax.random.normal(jax.random.key(0), (3, 5, 2, 4))

    @staticmethod
    def plain(x, kernel):
        out = lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return out[0]

    @pytest.mark.parametrize("mapped", [None, "images", "kernels"])
    def test_values_and_gradients(self, mapped):
        axes = {None: None, "images": (0, None), "kernels": (None, 0)}[mapped]
        x = jax.random.normal(jax.random.key(1), (3, 6, 7, 2) if mapped == "images" else (6, 7, 2))
        kernel = jnp.stack([self.kernel, -2 * self.kernel]) if mapped == "kernels" else self.kernel

        def gradients(conv):
            conv = conv if axes is None else jax.vmap(conv, axes)
            loss = lambda x, k: jnp.sum(jnp.sin(conv(x, k)))
            return jax.jit(lambda x, k: (conv(x, k), *jax.grad(loss, (0, 1))(x, k)))(x, kernel)

        for got, want in zip(gradients(convolve), gradients(self.plain), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

    def test_inside_a_loop_it_stays_channels_last(self, optimised):
        """XLA's CPU backend is slow in loops for any other order (jax-ml/jax#12868)."""
        kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 4))

        def looped(x):
            step = lambda x, _: (x - 0.1 * jax.vjp(lambda x: convolve(x, kernel), x)[1](jnp.sin(x))[0], None)
            return lax.scan(step, x, length=3)[0]

        compiled = jax.jit(looped).lower(jnp.ones((6, 8, 4))).compile().as_text()
        orders = re.findall(r"dim_labels=(\S+?)[,\s]", compiled)
        assert set(orders) == {"b01f_01io->b01f"}, compiled
        jaxpr = str(jax.make_jaxpr(looped)(jnp.ones((6, 8, 4))))
        assert "rhs_dilation=(1, 1)" in jaxpr

    def test_a_network_in_a_loop_stays_channels_last(self, random, context, optimised):
        model, x = random

        def looped(x):
            vjp = lambda x: jax.vjp(lambda x: model(x, SIGMA, context(3)), x)[1](x)[0]
            return lax.scan(lambda x, _: (x - vjp(x), None), x, length=2)[0]

        compiled = jax.jit(looped).lower(x).compile().as_text()
        orders = re.findall(r"dim_labels=(\S+?)[,\s]", compiled)
        assert len(orders) > 4
        assert set(orders) == {"b01f_01io->b01f"}
