"""Training: denoising score matching with optax, resumed exactly where it stopped."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from bayesdownscale._types import Count, Key, Scalar
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.feed import Batch, Windows, ahead, layouts
from bayesdownscale.prior.noise import NoiseLevels

VALIDATION_WINDOWS, VALIDATION_BATCH, NOISES = 256, 16, 4  # windows at most, at once, and noise levels of each


@dataclass(frozen=True)
class TrainingConfig:
    """`steps` at most, of `batch` windows; AdamW with a linear warm-up over `warmup` steps to
    `learning_rate`, cosine decay to zero, `weight_decay`, gradients clipped at norm `clip`; weights averaged
    with decay `ema`; validation every `validate_every` steps, which is also how often a checkpoint is written;
    stopped after `patience` validations without a better loss. Noise levels above `sigma_max` (standardised
    units) are left to the linear denoiser. `amplitude` > 0 multiplies each training window
    by exp(amplitude * normal): weather of other vigour, against learning the few training days by heart. The gradient
    of a batch is the mean over `accumulate` equal parts of it, one after the other: less memory, the same batch."""

    steps: int = 20_000
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    validate_every: int = 250
    patience: int = 12
    sigma_max: float = 30.0
    amplitude: float = 0.2
    seed: int = 0
    accumulate: int = 1

    def to_json(self) -> dict:
        return asdict(self)


class TrainingState(NamedTuple):
    """All that the next step needs. Random keys are folded from `step`, so nothing else has to be kept."""

    net: PyTree
    average: PyTree
    best: PyTree
    optimiser: PyTree
    step: Count
    best_loss: Scalar
    best_step: Count


class Progress(NamedTuple):
    """What a watcher is told at each validation: losses per cell, 1 being the best linear denoiser's order."""

    step: int
    training_loss: float
    validation_loss: float
    linear_loss: float
    best_loss: float
    seconds: float


def usual_step(times: np.ndarray) -> np.timedelta64:
    """The most frequent step of `times` (n_time,) datetime64, the shortest of those if several are."""
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[np.argmax(counts)] if steps.size else np.timedelta64(0, "ns")


def window_starts(times: np.ndarray, window: int, mask: np.ndarray | None = None) -> np.ndarray:
    """First steps of all runs of `window` equally spaced, unmasked `times`; raises where there are none."""
    breaks = np.concatenate([[0], np.cumsum(np.diff(times) != usual_step(times))])
    candidates = np.arange(max(times.size - window + 1, 0))
    whole = breaks[candidates] == breaks[candidates + window - 1]
    if mask is not None:
        counts = np.concatenate([[0], np.cumsum(mask)])
        whole &= counts[candidates + window] - counts[candidates] == window
    if not whole.any():
        raise ValueError(
            f"expected at least one run of {window} equally spaced times, found none among {times.size}; "
            "use a shorter window or more data"
        )
    return candidates[whole]


def optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(config.warmup, max(config.steps // 2, 1)), config.steps
    )
    decay_matrices = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=decay_matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw)


def start(denoiser: DiffusionDenoiser, config: TrainingConfig) -> TrainingState:
    """The state before the first step."""
    net = eqx.filter(denoiser.net, eqx.is_inexact_array)
    zero = jnp.zeros((), jnp.int32)
    return TrainingState(net, net, net, optimiser(config).init(net), zero, jnp.asarray(jnp.inf, jnp.float32), zero)


def finish(denoiser: DiffusionDenoiser, state: TrainingState) -> DiffusionDenoiser:
    """The denoiser with the averaged weights of the best validation."""
    net = eqx.combine(state.best, denoiser.net)
    return eqx.tree_at(lambda d: d.net, denoiser, net)


def _batch_loss(
    denoiser: DiffusionDenoiser, batch: Batch, levels: NoiseLevels, key: Key, amplitude: float | None
) -> Scalar:
    """The loss of a batch of windows; `amplitude` None switches augmentation and dropout off."""
    x, n = batch.x, batch.x.shape[0]
    k_noise, k_sigma, k_drop, k_scale = jax.random.split(key, 4)
    sigma = levels.sample(k_sigma, n)
    noise = jax.random.normal(k_noise, x.shape)
    if amplitude is None:
        return denoiser.loss(x, noise, sigma, batch.context, None)
    x = x * jnp.exp(amplitude * jax.random.normal(k_scale, (n, 1, 1, 1, 1)))
    return denoiser.loss(x, noise, sigma, batch.context, k_drop)


def train(
    denoiser: DiffusionDenoiser,
    levels: NoiseLevels,
    training: Windows,
    validation: Windows,
    config: TrainingConfig,
    state: TrainingState,
    on_validation: Callable[[TrainingState, Progress], None] = lambda state, progress: None,
    on_step: Callable[[int], None] = lambda step: None,
    devices: list[Any] | None = None,
) -> TrainingState:
    """Train from `state` to `config.steps`, or until validation stops improving; batches are shared by `devices`
    (default: all).

    `on_validation` is called with the state after each validation (write the checkpoint there): a run killed
    and started again from that state goes on bit for bit, since every batch, noise and dropout key is folded
    from the seed and the step. `on_step` is for a progress bar.
    """
    if config.batch % config.accumulate:
        raise ValueError(f"expected a batch of equal parts, got {config.batch} windows in {config.accumulate} parts")
    parts = config.accumulate, config.batch // config.accumulate
    apart, everywhere = layouts(devices or jax.devices(), parts[1])
    opt, window = optimiser(config), denoiser.gaussian.shape[0]
    root = jax.random.key(config.seed)
    static_net = eqx.filter(denoiser.net, eqx.is_inexact_array, inverse=True)
    rebuild = lambda net: eqx.tree_at(lambda d: d.net, denoiser, eqx.combine(net, static_net))

    @jax.jit
    def chosen(step: Count) -> Array:
        key, _ = jax.random.split(jax.random.fold_in(root, step))
        return jax.random.choice(key, training.starts.size, parts)

    load = lambda step: apart(training.cut(training.starts[np.asarray(chosen(jnp.asarray(step)))], window))

    @eqx.filter_jit
    def step(state: TrainingState, batch: Batch) -> tuple[TrainingState, Scalar]:
        _, key = jax.random.split(jax.random.fold_in(root, state.step))

        def one(total: PyTree, part: tuple[Batch, Key]) -> tuple[PyTree, Scalar]:
            loss_of = lambda net: _batch_loss(rebuild(net), part[0], levels, part[1], config.amplitude)
            loss, gradient = jax.value_and_grad(loss_of)(state.net)
            return jax.tree.map(lambda a, b: a + b / parts[0], total, gradient), loss

        nothing = jax.tree.map(jnp.zeros_like, state.net)
        if parts[0] == 1:  # a convolution's gradient is slow inside a loop
            gradient, losses = one(nothing, (jax.tree.map(lambda a: a[0], batch), key))
        else:
            gradient, losses = jax.lax.scan(one, nothing, (batch, jax.random.split(key, parts[0])))
        updates, opt_state = opt.update(gradient, state.optimiser, state.net)
        net = optax.apply_updates(state.net, updates)
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, net)
        return state._replace(net=net, average=average, optimiser=opt_state, step=state.step + 1), jnp.mean(losses)

    @eqx.filter_jit
    def loss_of_chunk(net: PyTree, batch: Batch, key: Key) -> Scalar:
        return _batch_loss(rebuild(net), batch, levels, key, None)

    some = validation.some(VALIDATION_WINDOWS)
    chunk = min(VALIDATION_BATCH, some.starts.size)
    chunks = np.resize(some.starts, (-(-some.starts.size // chunk), chunk))
    valid_keys = jax.random.split(jax.random.fold_in(root, 2**31 - 1), (NOISES, len(chunks)))

    def validate(net: PyTree) -> Scalar:
        """Mean loss over validation windows, four noise levels each, the same noise every time."""
        losses = []
        for k, starts in enumerate(chunks):
            batch = everywhere(validation.cut(starts, window))
            losses += [loss_of_chunk(net, batch, valid_keys[noise, k]) for noise in range(NOISES)]
        return jnp.mean(jnp.stack(losses))

    state = everywhere(state)
    linear_loss = float(validate(jax.tree.map(jnp.zeros_like, state.net)))
    began, losses = time.monotonic(), []
    patience = config.patience * config.validate_every
    batches = ahead(load, int(state.step))
    while int(state.step) < config.steps and int(state.step) - int(state.best_step) < patience:
        state, loss = step(state, next(batches))
        losses.append(loss)
        done = int(state.step)
        on_step(done)
        if done % config.validate_every == 0 or done == config.steps:
            loss_now = validate(state.average)
            if loss_now < state.best_loss:
                copy = jax.tree.map(jnp.copy, state.average)
                state = state._replace(best=copy, best_loss=loss_now, best_step=state.step)
            mean_loss = float(jnp.mean(jnp.stack(losses)))
            seconds = time.monotonic() - began
            progress = Progress(done, mean_loss, float(loss_now), linear_loss, float(state.best_loss), seconds)
            losses = []
            on_validation(state, progress)
    return state
