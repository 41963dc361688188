"""The twin's flow against theory: invariants, growth of baroclinic waves, Rossby waves, balance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.data.twin.flow import (
    advance,
    complex_of,
    energy,
    enstrophy,
    random_state,
    real_of,
    streamfunctions,
    vorticities,
    waves,
)
from bayesdownscale.data.twin.planet import PLANET

FOREVER = 1e9  # days of a damping that is none
FREE = replace(
    PLANET, cells=32, friction_days=FOREVER, drag_days=FOREVER, radiation_days=FOREVER, damping_hours=FOREVER,
    memory_hours=FOREVER, westerly=0.0, shear=0.0, flow_only=True,
)  # fmt: skip


def one_wave(planet, m, amplitudes):
    """The state of a streamfunction with `m` waves eastward, of complex `amplitudes` (2,) in the layers."""
    psi = jnp.zeros((2, planet.cells, planet.cells // 2 + 1), jnp.complex64).at[:, 0, m].set(jnp.asarray(amplitudes))
    return real_of(jnp.concatenate([vorticities(planet, psi), 0 * psi[:1]]))


def wave_of(planet, state, m):
    return np.asarray(streamfunctions(planet, complex_of(state)[:2])[:, 0, m])


def test_energy_and_enstrophy_are_conserved():
    """Five days of eddies without forcing and damping, in which the flow changes wholly: the Galerkin truncation
    conserves both, third-order steps of 5 minutes lose less than 1e-4 of them, and single precision less."""
    state = random_state(FREE, jax.random.key(0))
    late = jax.jit(lambda s: advance(FREE, s, 5 * 86400.0, 5 * 24 * 12))(state)
    apart = jnp.sum((late - state)[:2] ** 2) / jnp.sum(state[:2] ** 2)
    assert apart > 0.5
    for quantity in (lambda s: energy(FREE, s), enstrophy):
        np.testing.assert_allclose(quantity(late), quantity(state), rtol=1e-4)


def test_steps_are_of_third_order():
    state = random_state(FREE, jax.random.key(0))
    after = [jax.jit(lambda s, n=n: advance(FREE, s, 86400.0 / 2, n))(state) for n in (6, 12, 96)]
    rough, fine = (float(jnp.linalg.norm(a - after[-1])) for a in after[:2])
    assert 2.5 < np.log2(rough / fine) < 3.5


@pytest.mark.parametrize("m", [1, 2, 3])
def test_rossby_waves_move_as_theory_says(m):
    """Barotropic: phase speed c = -beta / k^2; baroclinic: -beta / (k^2 + 2 F) (Vallis 2017, eq. 6.66)."""
    k, day = waves(FREE).k[0, m], 86_400.0
    for amplitudes, square in (([1.0, 1.0], k**2), ([1.0, -1.0], k**2 + 2 * FREE.stretching)):
        late = wave_of(FREE, jax.jit(lambda s: advance(FREE, s, day, 24))(one_wave(FREE, m, amplitudes)), m)
        expected = np.asarray(amplitudes) * np.exp(1j * k * FREE.beta / square * day)
        np.testing.assert_allclose(late, expected, atol=2e-4)


def phillips_growth(planet, k):
    """Growth rates [s-1] of Phillips' model in closed form, equal layers and U_1 = -U_2 = U (Vallis 2017, eq. 9.95):

        c = -beta / (k^2 + k_d^2) (1 + k_d^2 / (2 k^2) +- k_d^2 / (2 k^2) sqrt(1 + 4 k^4 (k^4 - k_d^4) / (k_b^4 k_d^4)))

    with k_d^2 = 2 F and k_b^2 = beta / U.
    """
    kd2, kb2 = 2 * planet.stretching, planet.beta / (planet.shear / 2)
    root = np.sqrt(1 + 4 * k**4 * (k**4 - kd2**2) / (kb2**2 * kd2**2) + 0j)
    return k * planet.beta / (k**2 + kd2) * kd2 / (2 * k**2) * np.abs(root.imag)


def growing_mode(planet, k):
    """The streamfunctions (2,) of the mode that grows, from the linear equations M dpsi/dt = -i k (U M + Q) psi."""
    F, U = planet.stretching, planet.shear / 2
    M = np.asarray([[-(k**2) - F, F], [F, -(k**2) - F]])
    winds, gradients = np.diag([U, -U]), np.diag([planet.beta + 2 * F * U, planet.beta - 2 * F * U])
    rates, modes = np.linalg.eig(np.linalg.solve(M, -1j * k * (winds @ M + gradients)))
    return modes[:, np.argmax(rates.real)]


def test_baroclinic_waves_grow_as_phillips_model_says():
    """Over two days. Waves shorter and longer than these are stable, as they are in the atmosphere."""
    planet = replace(FREE, shear=15.0, westerly=-7.5, deformation_km=500.0, size_km=12_000.0)
    k = waves(planet).k[0]
    growth = [86_400 * phillips_growth(planet, k[m]) for m in (1, 2, 3, 4)]
    assert growth[0] == growth[3] == 0
    run = jax.jit(lambda s: advance(planet, s, 2 * 86_400.0, 48))
    for m in (2, 3):
        mode = growing_mode(planet, k[m])
        ratio = np.abs(wave_of(planet, run(one_wave(planet, m, mode)), m)) / np.abs(mode)
        np.testing.assert_allclose(np.log(ratio) / 2, growth[m - 1], rtol=1e-3)
