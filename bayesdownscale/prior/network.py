"""The network: a U-Net on a window of hours, its time steps and variables stacked as channels."""

from dataclasses import asdict, dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesdownscale._types import Key, Scalar
from bayesdownscale.prior.layers import (
    ChannelNorm,
    Conv,
    Dense,
    Features,
    Image,
    ImageOut,
    ResidualBlock,
    SelfAttention,
    double,
    halve,
)


@dataclass(frozen=True)
class UNetConfig:
    """`widths`: channels per level, each level half the resolution of the one before; `blocks`: residual blocks
    per level on either side; `embedding`: width of the noise-level and time embedding; `heads`: attention
    heads at the coarsest level; `dropout`: rate inside residual blocks while training."""

    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 2
    embedding: int = 64
    heads: int = 4
    dropout: float = 0.1

    def to_json(self) -> dict:
        return asdict(self)


def embed(sigma: Scalar, hour: Scalar, day: Scalar) -> Float[Array, " feature"]:
    """Fourier features of log sigma, and the phases of the day and of the year: (22,)."""
    log_sigma = jnp.log(sigma)
    frequencies = 0.25 * 2.0 ** jnp.arange(8)
    phases = [log_sigma * frequencies]
    for position, period in ((hour, 24.0), (day, 365.2425)):
        phases.append(2 * jnp.pi * position[None] / period)
    phases.append(4 * jnp.pi * hour[None] / 24.0)
    angles = jnp.concatenate(phases)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


N_FEATURES = 22


class UNet(eqx.Module):
    """A U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with residual blocks, self-attention at the coarsest
    level and zero output at the start of training.

    Any grid size: images are padded at the far edges to a multiple of 2^(levels - 1) and cropped again. It computes in
    the type of its weights and answers in that of its images.
    """

    embedding: list[Dense]
    conv_in: Conv
    down: list[list[ResidualBlock]]
    middle: list
    up: list[list[ResidualBlock]]
    norm_out: ChannelNorm
    conv_out: Conv
    config: UNetConfig = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, config: UNetConfig, *, key: Key):
        keys = iter(jax.random.split(key, 4 + 2 * len(config.widths) * (config.blocks + 1) + 3))
        widths, n_emb = config.widths, config.embedding
        block = lambda a, b: ResidualBlock(a, b, n_emb, config.dropout, key=next(keys))
        self.embedding = [Dense(N_FEATURES, n_emb, key=next(keys)), Dense(n_emb, n_emb, key=next(keys))]
        self.conv_in = Conv(n_in, widths[0], 3, key=next(keys))
        self.down, self.up = [], []
        width = widths[0]
        skips = []
        for level_width in widths:
            blocks = []
            for _ in range(config.blocks):
                blocks.append(block(width, level_width))
                width = level_width
            self.down.append(blocks)
            skips.append(width)
        attention = SelfAttention(width, config.heads, key=next(keys))
        self.middle = [block(width, width), attention, block(width, width)]
        for level_width in reversed(widths[:-1]):
            blocks = [block(width + level_width, level_width)]
            blocks += [block(level_width, level_width) for _ in range(config.blocks - 1)]
            self.up.append(blocks)
            width = level_width
        self.norm_out = ChannelNorm(width)
        self.conv_out = Conv(width, n_out, 3, scale=0.0, key=next(keys))
        self.config = config

    def __call__(self, x: Image, features: Features, key: Key | None = None) -> ImageOut:
        """Images (*batch, lat, lon, n_in) to (*batch, lat, lon, n_out), with `features` (*batch, feature);
        `key` switches dropout on."""
        n_lat, n_lon = x.shape[-3:-1]
        multiple = 2 ** (len(self.config.widths) - 1)
        pad = [(0, 0)] * (x.ndim - 3) + [(0, -n_lat % multiple), (0, -n_lon % multiple), (0, 0)]
        x = jnp.pad(x, pad, mode="edge")
        n_blocks = sum(map(len, self.down)) + 2 + sum(map(len, self.up))
        keys = iter([None] * n_blocks if key is None else jax.random.split(key, n_blocks))
        outside, inside = x.dtype, self.conv_in.kernel.dtype
        x, features = x.astype(inside), features.astype(inside)
        first, second = self.embedding
        e = jax.nn.silu(second(jax.nn.silu(first(features))))
        h = self.conv_in(x)
        skips = []
        for level, blocks in enumerate(self.down):
            h = h if level == 0 else halve(h)
            for block in blocks:
                h = block(h, e, next(keys))
            skips.append(h)
        before, attention, after = self.middle
        h = after(attention(before(h, e, next(keys))), e, next(keys))
        for blocks, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            h = jnp.concatenate([double(h), skip], axis=-1)
            for block in blocks:
                h = block(h, e, next(keys))
        h = self.conv_out(jax.nn.silu(self.norm_out(h)))
        return h[..., :n_lat, :n_lon, :].astype(outside)
