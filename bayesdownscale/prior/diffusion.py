"""The denoiser of a trained network: the linear denoiser of a fitted Gaussian, corrected by a U-Net."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesdownscale._types import Field, Key, Scalar
from bayesdownscale.prior.denoiser import AbstractSpreadDenoiser, Context, Cost
from bayesdownscale.prior.gaussian import GaussianField, shrunk
from bayesdownscale.prior.network import UNet, embed


class DiffusionDenoiser(AbstractSpreadDenoiser):
    """D = G + gain c_out F(c_in x_sigma, G, statics; log sigma, hour, day), G the denoiser of a Gaussian field.

    Karras et al. 2022 (arXiv 2206.00364) precondition with c_skip x_sigma, c_skip = s^2 / (s^2 + sigma^2), and
    c_out = s sigma / sqrt(s^2 + sigma^2): the denoiser, and the posterior spread, of *white* Gaussian data with
    variance s^2. Weather is far from white, so G is here the Wiener filter of the covariance estimated from the
    training data and c_out its posterior spread; white data give back exactly the published formulas. The
    network learns only what is not Gaussian, and an untrained one is the best linear denoiser.

    Works on one window (time, variable, lat, lon) in standardised units. `statics` (lat, lon, channel). `season`:
    whether the day of the year is shown to the network; with less than a year of data it would name the
    training days one by one, and the network would learn their weather by heart.

    `gain` in [0, 1], at noise levels `gain_sigma` and zero above them, says how much of the correction weather
    that was not trained on bears out (`calibrate`). At high noise only the largest scales are left, of which a
    short record has few samples, and an uncalibrated network does worse there than the Gaussian.

    `error_ratio`, at the same noise levels, is the variance of x - D over that of x - G in theory, in each mode of
    the Gaussian and (last column) outside of them (`measure_errors`): with it D knows its own average covariance.
    """

    gaussian: GaussianField
    net: UNet
    statics: Float[Array, "lat lon static"]
    gain_sigma: Float[Array, " level"]
    gain: Float[Array, " level"]
    error_ratio: Float[Array, "level mode_and_outside"]
    season: bool = eqx.field(static=True)

    @staticmethod
    def n_channels(gaussian: GaussianField, n_statics: int) -> tuple[int, int]:
        """Input and output channels of the network for this window."""
        stacked = gaussian.shape[0] * gaussian.shape[1]
        return 2 * stacked + n_statics, stacked

    def network_input(
        self, x_sigma: Field, g: Field, sigma: Scalar, context: Context
    ) -> tuple[Float[Array, "lat lon channel"], Float[Array, " feature"]]:
        """The image and the features that the network sees for one window."""
        n_time, n_var, n_lat, n_lon = x_sigma.shape
        image = lambda f: jnp.moveaxis(f.reshape(n_time * n_var, n_lat, n_lon), 0, -1)
        c_in = 1 / jnp.sqrt(1 + sigma**2)
        middle = n_time // 2
        day = context.day[middle] if self.season else jnp.zeros(())
        features = embed(sigma, context.hour[middle], day)
        return jnp.concatenate([image(c_in * x_sigma), image(g), self.statics], axis=-1), features

    def evaluate(self, x_sigma: Field, sigma: Scalar, context: Context) -> tuple[Field, Cost]:
        g = self.gaussian.denoise(x_sigma, sigma)
        f = self.net(*self.network_input(x_sigma, g, sigma, context))
        f = jnp.moveaxis(f, -1, 0).reshape(x_sigma.shape)
        gain = jnp.interp(jnp.log(sigma), jnp.log(self.gain_sigma), self.gain, right=0.0)
        return g + gain * self.gaussian.spread(sigma) * f, Cost.of(evaluations=1)

    def _error_variances(self, sigma: Scalar) -> tuple[Float[Array, "mode time"], Scalar]:
        """Variances of x - D in the modes, and outside of them."""
        place = jnp.interp(jnp.log(sigma), jnp.log(self.gain_sigma), jnp.arange(self.gain.size, dtype=jnp.float32))
        low = jnp.clip(place.astype(int), 0, self.gain.size - 2)
        ratio = self.error_ratio[low] + (place - low) * (self.error_ratio[low + 1] - self.error_ratio[low])
        inside = ratio[:-1, None] * shrunk(self.gaussian.variances, sigma)
        return inside, ratio[-1] * shrunk(self.gaussian.residual, sigma)

    def covariance(self, v: Field, sigma: Scalar) -> Field:
        return self.gaussian.scale(*self._error_variances(sigma), v)

    def draw_error(self, key: Key, sigma: Scalar, shape: tuple[int, int, int, int]) -> Field:
        inside, outside = self._error_variances(sigma)
        return self.gaussian.scale(jnp.sqrt(inside), jnp.sqrt(outside), jax.random.normal(key, shape))

    def correction(
        self,
        x: Float[Array, "batch time variable lat lon"],
        noise: Float[Array, "batch time variable lat lon"],
        sigma: Float[Array, " batch"],
        context: Context,
        key: Key | None,
    ) -> tuple[Float[Array, "batch time variable lat lon"], Float[Array, "batch time variable lat lon"]]:
        """F and the target (x - G) / c_out it should hit, for a batch of windows. `context` is batched too; `key`
        switches dropout on."""
        x_sigma = x + sigma[:, None, None, None, None] * noise
        g = jax.vmap(self.gaussian.denoise)(x_sigma, sigma)
        target = (x - g) / jax.vmap(self.gaussian.spread)(sigma)[:, None, None, None, None]
        images, features = jax.vmap(self.network_input)(x_sigma, g, sigma, context)
        f = jnp.moveaxis(self.net(images, features, key), -1, 1).reshape(x.shape)
        return f, target

    def loss(self, x, noise, sigma, context: Context, key: Key | None) -> Scalar:
        """Mean of |F - (x - G) / c_out|^2 for the arguments of `correction`: the weighting of Karras et al. (2022),
        with which an untrained network has a loss near 1 at every sigma."""
        f, target = self.correction(x, noise, sigma, context, key)
        return jnp.mean((f - target) ** 2)
