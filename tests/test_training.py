"""Training: it learns, skips what is missing, stops in time, and resumes bit for bit."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.data.lazy import open_lazy
from bayesdownscale.prior.calibrate import LEVELS, calibrate
from bayesdownscale.prior.checkpoint import CheckpointError
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.feed import Remembered, Windows, scan, some_steps
from bayesdownscale.prior.gaussian import GaussianField
from bayesdownscale.prior.network import UNet, UNetConfig
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.trained import static_channels, train_prior
from bayesdownscale.prior.training import TrainingConfig, finish, start, train, window_starts

HOURS = np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(1, "h")


class Killed(Exception):
    pass


def kill(*_):
    raise Killed


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_training_resumes_bit_for_bit(trained_folder, toy_fields, tiny, tmp_path):
    """Killed after the first checkpoint, again between checkpoints, then left to end: all files are the same
    bytes as without interruption."""
    with pytest.raises(Killed):
        train_prior(toy_fields, tmp_path, **tiny, on_progress=kill)
    with pytest.raises(Killed):
        train_prior(toy_fields, tmp_path, **tiny, on_step=lambda step: kill() if step == 6 else None)
    steps = []
    train_prior(toy_fields, tmp_path, **tiny, on_step=steps.append)
    assert steps == [5, 6, 7, 8]
    assert contents(tmp_path) == contents(trained_folder)


def test_a_finished_training_is_left_as_it_is(trained_folder, toy_fields, tiny):
    before = contents(trained_folder)
    train_prior(toy_fields, trained_folder, **tiny, on_step=kill, on_progress=kill)
    assert contents(trained_folder) == before


def test_a_run_from_before_the_tail_and_sigma_min_goes_on(trained_folder, toy_fields, tiny, tmp_path):
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["run"].pop("sigma_min"), record["run"].pop("n_tail")) == (0.02, 0)
    (tmp_path / "training.json").write_text(json.dumps(record))
    train_prior(toy_fields, tmp_path, **tiny, on_step=kill)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_prior(toy_fields, tmp_path, **{**tiny, "sigma_min": 0.01}, on_step=kill)


def test_the_lowest_noise_level_is_that_asked_for(toy_fields, tiny, tmp_path):
    once = {**tiny, "training": dataclasses.replace(tiny["training"], steps=2, validate_every=2)}
    levels = train_prior(toy_fields, tmp_path, **once, sigma_min=0.005).levels
    assert levels.sigma_min == 0.005
    np.testing.assert_allclose(levels.levels(4)[-1], 0.005)


def test_other_settings_or_data_in_the_same_folder_are_refused(trained_folder, toy_fields, tiny):
    longer = {**tiny, "training": dataclasses.replace(tiny["training"], steps=16)}
    other_data = dataclasses.replace(toy_fields, values=toy_fields.values + 1)
    for fields, settings in (
        (toy_fields, longer),
        (other_data, tiny),
        (toy_fields, {**tiny, "n_modes": 4}),
        (toy_fields, {**tiny, "sigma_min": 0.01}),
        (toy_fields, {**tiny, "n_tail": 1}),
        (toy_fields, {**tiny, "validation_share": 1 / 6}),
        (toy_fields, {**tiny, "statics": np.ones((6, 7, 1), np.float32)}),
    ):
        with pytest.raises(CheckpointError, match="other settings or data; choose another folder"):
            train_prior(fields, trained_folder, **settings, on_step=kill)


class Counting:
    """Values that are read a slice at a time, and count how many steps were read at once."""

    def __init__(self, values):
        self.values, self.shape, self.largest = values, values.shape, 0

    def __getitem__(self, steps):
        self.largest = max(self.largest, steps.stop - steps.start)
        return self.values[steps]


def two_fronts(n: int, seed: int) -> np.ndarray:
    """Windows (n, 1, 4, 4): a front in one of two places; as a Gaussian, one direction of variance."""
    rng = np.random.default_rng(seed)
    front = np.linspace(-1.5, 1.5, 16).reshape(4, 4)
    values = rng.choice([-1, 1], (n, 1, 1)) * front + 0.1 * rng.normal(size=(n, 4, 4))
    return values[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def toy():
    """The denoiser before training, the noise levels, and windows to train and to validate on."""
    front = np.linspace(-1.5, 1.5, 16)
    front /= np.linalg.norm(front)
    variance = np.mean((two_fronts(500, 0).reshape(500, 16) @ front) ** 2)
    field = GaussianField(
        jnp.asarray(front.reshape(1, 1, 4, 4), jnp.float32),
        jnp.ones((1, 1, 1)),
        jnp.full((1, 1), variance, jnp.float32),
        jnp.asarray(0.01),
    )
    config = UNetConfig(widths=(8,), blocks=1, embedding=8, heads=2, dropout=0.0)
    net = UNet(*map(int, (2 + 1, 1)), config, key=jax.random.key(0))
    windows = lambda seed: Windows(two_fronts(64, seed), Context(jnp.zeros(64), jnp.zeros(64)), np.arange(64))
    gain = jnp.asarray([0.1, 1.0]), jnp.ones(2), jnp.ones((2, 2))
    denoiser = DiffusionDenoiser(field, net, jnp.zeros((4, 4, 1)), *gain, season=False)
    return denoiser, NoiseLevels(0.5, 5.0), windows(1), windows(2)


@pytest.fixture(scope="module")
def learned(toy):
    """The state after 150 steps, and what was told at each validation."""
    denoiser, *rest = toy
    config = TrainingConfig(
        steps=150, batch=16, learning_rate=1e-2, warmup=20, validate_every=50, ema=0.95, amplitude=0.0
    )
    seen = []
    state = train(denoiser, *rest, config, start(denoiser, config), on_validation=lambda _, p: seen.append(p))
    return state, seen


def test_the_network_learns_what_is_not_gaussian(learned):
    """The exact denoiser of two points brings the loss far below that of the best linear denoiser."""
    _, seen = learned
    assert [p.step for p in seen] == [50, 100, 150]
    assert 0.5 < seen[0].linear_loss < 1.5
    assert seen[-1].validation_loss < 0.8 * seen[0].linear_loss
    assert seen[-1].best_loss == min(p.validation_loss for p in seen)


def test_the_gain_keeps_what_is_borne_out(toy, learned):
    """On the windows it is measured on, no level is worse than with the Gaussian alone; a network that says the
    contrary of what it learned is switched off."""
    denoiser, levels, _, valid = toy
    best = finish(denoiser, learned[0])
    calibrated = calibrate(best, valid, levels)
    assert np.all((calibrated.gain >= 0) & (calibrated.gain <= 1))
    assert calibrated.gain[-1] == 0
    assert calibrated.gain.max() > 0.8
    np.testing.assert_allclose(calibrated.gain_sigma, np.geomspace(0.5, 5.0, LEVELS), rtol=1e-5)
    contrary = eqx.tree_at(lambda d: (d.net.conv_out.kernel, d.net.conv_out.bias), best, replace_fn=jnp.negative)
    helpful = calibrated.gain > 0.05
    np.testing.assert_array_equal(calibrate(contrary, valid, levels).gain[helpful], 0)


def test_training_stops_when_validation_no_longer_improves(toy):
    """With a learning rate of zero only the first validation is an improvement, on nothing at all."""
    denoiser, *rest = toy
    config = TrainingConfig(steps=40, batch=2, learning_rate=0.0, validate_every=2, patience=3)
    state = train(denoiser, *rest, config, start(denoiser, config))
    assert int(state.best_step) == 2
    assert int(state.step) == 2 + 3 * 2
    again = train(denoiser, *rest, config, state, on_step=kill)
    assert int(again.step) == int(state.step)


def test_missing_values_and_gaps_are_skipped(toy_fields, tiny, tmp_path):
    """A cell is missing at two times, and hours are left out after the first and in the middle: every loss is
    finite, and the spacing of the prior is an hour."""
    values = toy_fields.values.copy()
    values[[20, 117], 0, 2, 3] = np.nan
    keep = np.delete(np.arange(120), [1, 2, 50])
    fields = dataclasses.replace(toy_fields, values=values).isel_times(keep)
    seen = []
    prior = train_prior(fields, tmp_path, **tiny, on_progress=seen.append)
    assert np.all(np.isfinite([[p.training_loss, p.validation_loss] for p in seen]))
    leaves = jax.tree.leaves((prior.denoiser, prior.standardisation))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    assert np.all(np.diff(prior.times) == np.timedelta64(1, "h"))


def test_data_larger_than_memory(trained_folder, toy_fields, tiny, tmp_path):
    """Left on disk, with all of it for the statistics: the same weights, byte for byte. With half of it: finite."""
    toy_fields.to_dataset().to_zarr(tmp_path / "toy.zarr", consolidated=False)
    lazy = open_lazy(tmp_path / "toy.zarr")
    assert lazy.values.shape == toy_fields.values.shape
    np.testing.assert_array_equal(lazy.values[5:9], toy_fields.values[5:9])
    train_prior(lazy, tmp_path / "all", **tiny)
    weights = lambda folder: {n: data for n, data in contents(folder).items() if n.endswith(".safetensors")}
    assert weights(tmp_path / "all") == weights(trained_folder)
    seen = []
    train_prior(lazy, tmp_path / "half", **tiny, statistics=60 * 42, on_progress=seen.append)
    assert np.all(np.isfinite([p.validation_loss for p in seen]))


def test_statistics_come_from_spans_of_whole_windows():
    usable = np.arange(120) != 30
    used = some_steps(usable, 42, 60 * 42, 3)
    assert 50 < used.size <= 60
    assert 30 not in used
    assert (used[0], used[-1]) == (0, 119)
    assert np.sum(np.diff(used) > 2) == 4
    np.testing.assert_array_equal(some_steps(usable, 42, 120 * 42, 3), np.flatnonzero(usable))


def test_pieces_have_the_checksum_of_the_whole(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 1, 3, 4)).astype(np.float32)
    values[[3, 40], 0, 1, 1] = np.nan
    monkeypatch.setattr("bayesdownscale.prior.feed.PIECE", 12 * 7)
    missing, digest = scan(values)
    assert digest == hashlib.sha256(values.tobytes()).hexdigest()
    np.testing.assert_array_equal(np.flatnonzero(missing), [3, 40])


class Counted:
    """Values that say which slices were read."""

    def __init__(self, values: np.ndarray):
        self.values, self.read = values, []

    @property
    def shape(self):
        return self.values.shape

    def __getitem__(self, steps: slice) -> np.ndarray:
        self.read.append(steps.start)
        return self.values[steps]


def test_windows_that_are_cut_again_are_read_once():
    """As far as they fit in memory: three windows of 8 numbers, with room for two and a half."""
    values = Counted(np.arange(48.0, dtype=np.float32).reshape(12, 1, 2, 2))
    context, starts = Context.at(HOURS), np.array([0, 4, 9])
    windows = Windows(Remembered(values, 20), context, starts)
    first, again = windows.cut(starts, 2), windows.some(2).cut(starts, 2)
    assert values.read == [0, 4, 9, 9]
    np.testing.assert_array_equal(first.x[1], values.values[4:6])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_but_missing_values_is_refused(toy_fields, tiny, tmp_path):
    empty = dataclasses.replace(toy_fields, values=np.full_like(toy_fields.values, np.nan))
    with pytest.raises(ValueError, match="toy: every time step has missing values"):
        train_prior(empty, tmp_path, **tiny)


class TestWindowStarts:
    def test_all_of_an_unbroken_series(self):
        np.testing.assert_array_equal(window_starts(HOURS, 5), np.arange(8))
        np.testing.assert_array_equal(window_starts(HOURS, 12), [0])
        np.testing.assert_array_equal(window_starts(HOURS, 1), np.arange(12))

    def test_none_across_a_gap(self):
        times = np.delete(HOURS, 6)  # 0..5 and 7..11
        np.testing.assert_array_equal(window_starts(times, 5), [0, 1, 6])

    def test_none_over_a_masked_step(self):
        mask = np.arange(12) != 3
        np.testing.assert_array_equal(window_starts(HOURS, 4, mask), [4, 5, 6, 7, 8])

    def test_two_steps_and_a_gap(self):
        """The usual step is one that occurs, never the middle of two."""
        np.testing.assert_array_equal(window_starts(HOURS[[0, 1, 6]], 2), [0])

    def test_too_short_is_refused(self):
        with pytest.raises(ValueError, match="expected at least one run of 13 equally spaced times"):
            window_starts(HOURS, 13)


def test_static_channels_are_standardised(gaussian_prior):
    extra = np.random.default_rng(0).normal(3, 9, (2, 3, 2))
    channels = static_channels(gaussian_prior.standardisation, gaussian_prior.grid, extra)
    assert channels.shape == (2, 3, 2 + 5 * 2 + 2)
    np.testing.assert_allclose(channels.mean((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(channels.std((0, 1)), 1, rtol=1e-5)
    flat = static_channels(gaussian_prior.standardisation, gaussian_prior.grid, np.ones((2, 3, 1)))
    np.testing.assert_array_equal(flat[..., -1], 0)


def test_a_new_state_has_the_types_of_a_later_one(toy):
    """A weak type would compile the step twice."""
    denoiser, *_ = toy
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(start(denoiser, TrainingConfig())))


def test_a_batch_in_parts_learns_as_much(toy, learned):
    """Four parts of four windows: other noise, the same loss to within a tenth."""
    denoiser, *rest = toy
    settings = {"learning_rate": 1e-2, "warmup": 20, "validate_every": 50, "ema": 0.95, "amplitude": 0.0}
    config = TrainingConfig(steps=150, batch=16, accumulate=4, **settings)
    state = train(denoiser, *rest, config, start(denoiser, config))
    np.testing.assert_allclose(state.best_loss, learned[0].best_loss, rtol=0.1)
    with pytest.raises(ValueError, match="expected a batch of equal parts, got 16 windows in 5 parts"):
        train(denoiser, *rest, dataclasses.replace(config, accumulate=5), state)


def test_values_may_be_read_a_window_at_a_time(toy):
    """The same weights, bit for bit, as with all values in memory."""
    denoiser, levels, training, validation = toy
    config = TrainingConfig(steps=3, batch=4, warmup=1, validate_every=3)
    lazy = Counting(training.values)
    states = [
        train(denoiser, levels, training._replace(values=values), validation, config, start(denoiser, config))
        for values in (training.values, lazy)
    ]
    assert lazy.largest == 1  # the window of this denoiser
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), *(state.net for state in states))
    assert all(jax.tree.leaves(same))
