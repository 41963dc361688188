"""Training: denoising score matching with optax, resumed exactly where it stopped."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from bayesdownscale._types import Count, Key, Scalar
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.noise import NoiseLevels


@dataclass(frozen=True)
class TrainingConfig:
    """`steps` at most, of `batch` windows; AdamW with a linear warm-up over `warmup` steps to
    `learning_rate`, cosine decay to zero, `weight_decay`, gradients clipped at norm `clip`; weights averaged
    with decay `ema`; validation every `validate_every` steps, which is also how often a checkpoint is written;
    stopped after `patience` validations without a better loss. Noise levels above `sigma_max` (standardised
    units) are left to the linear denoiser. `amplitude` > 0 multiplies each training window
    by exp(amplitude * normal): weather of other vigour, against learning the few training days by heart."""

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

    def to_json(self) -> dict:
        return asdict(self)


class Windows(NamedTuple):
    """Training windows: `values` (time, variable, lat, lon) standardised, `context` of every time step, and the
    first time step of each window (n_windows,)."""

    values: np.ndarray
    context: Context
    starts: np.ndarray


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
    denoiser: DiffusionDenoiser,
    arrays: tuple[Array, Array, Array],
    starts: Array,
    levels: NoiseLevels,
    key: Key,
    amplitude: float | None,
) -> Scalar:
    """The loss of the windows at `starts`; `amplitude` None switches augmentation and dropout off."""
    values, hour, day = arrays
    window = denoiser.gaussian.shape[0]
    k_noise, k_sigma, k_drop, k_scale = jax.random.split(key, 4)
    sigma = levels.sample(k_sigma, starts.size)
    take = jax.vmap(lambda array, s: jax.lax.dynamic_slice_in_dim(array, s, window), (None, 0))
    x, context = take(values, starts), Context(take(hour, starts), take(day, starts))
    noise = jax.random.normal(k_noise, x.shape)
    if amplitude is None:
        return denoiser.loss(x, noise, sigma, context, None)
    x = x * jnp.exp(amplitude * jax.random.normal(k_scale, (starts.size, 1, 1, 1, 1)))
    return denoiser.loss(x, noise, sigma, context, k_drop)


def train(
    denoiser: DiffusionDenoiser,
    levels: NoiseLevels,
    training: Windows,
    validation: Windows,
    config: TrainingConfig,
    state: TrainingState,
    on_validation: Callable[[TrainingState, Progress], None] = lambda state, progress: None,
    on_step: Callable[[int], None] = lambda step: None,
) -> TrainingState:
    """Train from `state` to `config.steps`, or until validation stops improving.

    `on_validation` is called with the state after each validation (write the checkpoint there): a run killed
    and started again from that state goes on bit for bit, since every batch, noise and dropout key is folded
    from the seed and the step. `on_step` is for a progress bar.
    """
    opt = optimiser(config)
    root = jax.random.key(config.seed)
    static_net = eqx.filter(denoiser.net, eqx.is_inexact_array, inverse=True)
    rebuild = lambda net: eqx.tree_at(lambda d: d.net, denoiser, eqx.combine(net, static_net))
    as_arrays = lambda w: (jnp.asarray(w.values), w.context.hour, w.context.day)
    train_arrays, valid_arrays = as_arrays(training), as_arrays(validation)
    starts = jnp.asarray(training.starts)
    valid_starts = jnp.asarray(validation.starts)

    @eqx.filter_jit
    def step(state: TrainingState, arrays, starts) -> tuple[TrainingState, Scalar]:
        key = jax.random.fold_in(root, state.step)
        k_batch, k_loss = jax.random.split(key)
        batch = jax.random.choice(k_batch, starts, (config.batch,))
        loss_of = lambda net: _batch_loss(rebuild(net), arrays, batch, levels, k_loss, config.amplitude)
        loss, gradient = jax.value_and_grad(loss_of)(state.net)
        updates, opt_state = opt.update(gradient, state.optimiser, state.net)
        net = optax.apply_updates(state.net, updates)
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, net)
        return state._replace(net=net, average=average, optimiser=opt_state, step=state.step + 1), loss

    @eqx.filter_jit
    def validate(net, arrays, starts) -> Scalar:
        """Mean loss over all validation windows, four noise levels each, the same noise every time."""
        chunk = min(16, starts.size)
        padded = jnp.resize(starts, (4 * -(-starts.size // chunk), chunk))
        keys = jax.random.split(jax.random.fold_in(root, 2**31 - 1), padded.shape[0])
        loss_of = lambda s_k: _batch_loss(rebuild(net), arrays, s_k[0], levels, s_k[1], None)
        return jnp.mean(jax.lax.map(loss_of, (padded, keys)))

    zero_net = jax.tree.map(jnp.zeros_like, state.net)
    linear_loss = float(validate(zero_net, valid_arrays, valid_starts))
    began, losses = time.monotonic(), []
    patience = config.patience * config.validate_every
    while int(state.step) < config.steps and int(state.step) - int(state.best_step) < patience:
        state, loss = step(state, train_arrays, starts)
        losses.append(loss)
        done = int(state.step)
        on_step(done)
        if done % config.validate_every == 0 or done == config.steps:
            loss_now = validate(state.average, valid_arrays, valid_starts)
            if loss_now < state.best_loss:
                copy = jax.tree.map(jnp.copy, state.average)
                state = state._replace(best=copy, best_loss=loss_now, best_step=state.step)
            mean_loss = float(jnp.mean(jnp.stack(losses)))
            seconds = time.monotonic() - began
            progress = Progress(done, mean_loss, float(loss_now), linear_loss, float(state.best_loss), seconds)
            losses = []
            on_validation(state, progress)
    return state
