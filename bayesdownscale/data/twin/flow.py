"""The twin's dynamics: two-layer quasi-geostrophic flow over orography, pseudo-spectral, integrated by diffrax.

    dq_i/dt = -J(psi_i, q_i + b_i) - U_i d(q_i + b_i)/dx - Q_i dpsi_i/dx - r_i del^2 psi_i - damping      i = 1, 2
    q_1 = del^2 psi_1 + F (psi_2 - psi_1),    q_2 = del^2 psi_2 + F (psi_1 - psi_2)
    dT/dt = -(u_s + U_s) . grad T + G (v_s + V_s) - (T - kappa (psi_1 - psi_2)) / memory - damping

psi streamfunctions, q anomalies of potential vorticity, 1 the upper layer, U_i mean winds, Q_i = beta -+ F (U_2 - U_1)
mean gradients of potential vorticity, b_2 = f height / depth of the layer, r_2 Ekman damping; T anomaly of the air at
the surface, carried by the surface wind (u_s, v_s), which is weaker than the geostrophic wind of the lower layer and
turned towards low pressure; kappa and G = kappa (U_1 - U_2) by thermal wind. The last equation makes fronts.

Phillips 1954, doi:10.3402/tellusa.v6i3.8734; Vallis 2017, doi:10.1017/9781107588417, sections 5.3 and 9.4. Products are
dealiased by the 2/3 rule, so that the flow without mean winds, forcing and damping conserves energy and enstrophy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from bayesdownscale._types import Key, Scalar
from bayesdownscale.data.twin.planet import PLANET, Planet, geography

DAMPING_ORDER = 8
STEP_S = 600.0  # at the resolution of PLANET: stable for winds up to about 95 m/s
Spectral = Float[Array, "3 ky kx 2"]  # q_1, q_2, T: real and imaginary parts


class Waves(NamedTuple):
    """Wave numbers of a planet's grid [m-1] (ky, kx): eastward `k`, northward `l`, squared, and which ones are kept."""

    k: np.ndarray
    l: np.ndarray
    squared: np.ndarray
    kept: np.ndarray


def waves(planet: Planet) -> Waves:
    n, unit = planet.cells, 2 * np.pi / (1e3 * planet.size_km)
    k, l = np.meshgrid(np.fft.rfftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n))
    kept = (np.abs(k) < n / 3) & (np.abs(l) < n / 3) & (k**2 + l**2 > 0)
    return Waves(unit * k, unit * l, unit**2 * (k**2 + l**2), kept)


def complex_of(state: Spectral) -> Complex[Array, "3 ky kx"]:
    return jax.lax.complex(state[..., 0], state[..., 1])


def real_of(spectral: Complex[Array, "3 ky kx"]) -> Spectral:
    return jnp.stack([spectral.real, spectral.imag], axis=-1)


def streamfunctions(planet: Planet, q: Complex[Array, "2 ky kx"]) -> Complex[Array, "2 ky kx"]:
    """psi_1 and psi_2 [m2 s-1] of anomalies of potential vorticity [s-1]."""
    w = waves(planet)
    inverse = np.where(w.kept, 1 / np.where(w.squared > 0, w.squared, 1), 0)
    both = -(q[0] + q[1]) / 2 * inverse.astype(np.float32)
    shear = -(q[0] - q[1]) / 2 * (w.kept / (w.squared + 2 * planet.stretching)).astype(np.float32)
    return jnp.stack([both + shear, both - shear])


def vorticities(planet: Planet, psi: Complex[Array, "2 ky kx"]) -> Complex[Array, "2 ky kx"]:
    """q_1 and q_2 of streamfunctions."""
    square, F = waves(planet).squared.astype(np.float32), planet.stretching
    return jnp.stack([-square * psi[0] + F * (psi[1] - psi[0]), -square * psi[1] + F * (psi[0] - psi[1])])


def surface_wind(planet: Planet, land: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """The wind that friction leaves of the geostrophic wind (u, v): weaker, and turned towards low pressure."""
    share = planet.sea_wind + (planet.land_wind - planet.sea_wind) * land
    turn = jnp.deg2rad(planet.sea_turn + (planet.land_turn - planet.sea_turn) * land)
    return share * (jnp.cos(turn) * u - jnp.sin(turn) * v), share * (jnp.sin(turn) * u + jnp.cos(turn) * v)


def tendency(planet: Planet) -> Callable[[Any, Any, Any], Spectral]:
    """The right-hand side of the equations above, as diffrax asks for it."""
    w, n, F = waves(planet), planet.cells, planet.stretching
    metres = (np.arange(n) - n / 2) * 1e3 * planet.size_km / n
    land, height = (jnp.asarray(a, jnp.float32) for a in geography(planet, metres, metres))
    U = np.asarray([planet.westerly + planet.shear, planet.westerly], np.float32)
    Q = np.asarray([planet.beta + F * planet.shear, planet.beta - F * planet.shear], np.float32)
    day, hour = 86_400.0, 3_600.0
    ekman = np.asarray([1 / (day * planet.drag_days), 1 / (day * planet.friction_days)], np.float32)
    largest = w.squared[w.kept].max()
    damping = (w.kept * (w.squared / largest) ** (DAMPING_ORDER / 2) / (hour * planet.damping_hours)).astype(np.float32)
    to_grid = lambda a: jnp.fft.irfft2(a, s=(n, n), norm="forward")
    to_waves = lambda a: jnp.fft.rfft2(a, norm="forward")
    ik, il = (jnp.asarray(1j * a, jnp.complex64) for a in (w.k, w.l))
    kept, squared = w.kept.astype(np.float32), w.squared.astype(np.float32)
    bottom = kept * to_waves(planet.f * height / (planet.depth_m / 2))
    warm_gradient = planet.warmth * planet.shear

    def right_hand_side(t: Any, state: Spectral, args: Any) -> Spectral:
        q, T = complex_of(state)[:2], complex_of(state)[2]
        psi = streamfunctions(planet, q)
        total = q.at[1].add(bottom)
        grid = to_grid(jnp.concatenate([-il[None] * psi, ik[None] * psi, total, jnp.stack([ik * T, il * T])]))
        u, v, total_q, (T_x, T_y) = grid[:2], grid[2:4], grid[4:6], grid[6:]
        u_s, v_s = surface_wind(planet, land, u[1] + planet.westerly, v[1])
        carried = u_s * T_x + v_s * (T_y - warm_gradient)
        products = to_waves(jnp.concatenate([u * total_q, v * total_q, carried[None]]))
        flux_x, flux_y, carried = products[:2], products[2:4], products[4]
        columns = lambda a: a[:, None, None]
        dq = -ik[None] * (flux_x + columns(U) * total + columns(Q) * psi) - il[None] * flux_y
        cooling = F / (day * planet.radiation_days) * (psi[0] - psi[1])
        dq = dq + columns(ekman) * squared[None] * psi + jnp.stack([cooling, -cooling])
        dT = -carried - (T - planet.warmth * (psi[0] - psi[1])) / (hour * planet.memory_hours)
        # The mean of T is forced by the surface wind too; every other field has none.
        mask = jnp.stack([kept, kept, kept + (squared == 0)])
        return real_of(mask * jnp.concatenate([dq, dT[None]]) - damping[None] * complex_of(state))

    return right_hand_side


def steps_an_hour(planet: Planet) -> int:
    """Time steps that keep the explicit solver stable: their length is that of the default planet's grid scaled."""
    return max(1, round(3600 / STEP_S * (planet.cells / planet.size_km) / (PLANET.cells / PLANET.size_km)))


def advance(planet: Planet, state: Spectral, seconds: float, steps: int) -> Spectral:
    """The state after `seconds`, in `steps` equal steps of Bogacki and Shampine's third-order method."""
    term = diffrax.ODETerm(tendency(planet))
    solution = diffrax.diffeqsolve(
        term, diffrax.Bosh3(), 0.0, seconds, seconds / steps, state,
        max_steps=steps + 1, adjoint=diffrax.DirectAdjoint(),
    )  # fmt: skip
    assert solution.ys is not None
    return solution.ys[0]


def random_state(planet: Planet, key: Key, speed: float = 8.0) -> Spectral:
    """Random eddies in both layers, of `speed` [m s-1] and lengths about the deformation radius, with T in balance."""
    w = waves(planet)
    radius = np.sqrt(w.squared) * 1e3 * planet.deformation_km
    shape = w.kept * np.exp(-((radius - 0.7) ** 2) / 0.1)
    noise = jax.random.normal(key, (2, planet.cells, planet.cells))
    psi = jnp.fft.rfft2(noise, norm="forward") * shape.astype(np.float32)[None]
    velocity = jnp.fft.irfft2(1j * w.k.astype(np.float32)[None] * psi, norm="forward")
    psi = psi * speed / jnp.sqrt(jnp.mean(velocity**2))
    return real_of(jnp.concatenate([vorticities(planet, psi), planet.warmth * (psi[:1] - psi[1:])]))


def _mean_product(a: Array, b: Array) -> Array:
    """The domain mean of products of fields given by their waves (..., ky, kx)."""
    weight = np.full(a.shape[-1], 2.0, np.float32)
    weight[0] = 1.0
    weight[-1] = 1.0  # the highest wave is not kept
    return jnp.sum(weight[None, None] * (a * jnp.conj(b)).real, axis=(-2, -1))


def energy(planet: Planet, state: Spectral) -> Scalar:
    """Kinetic and available potential energy of the eddies [m2 s-2], a mean over both layers."""
    q = complex_of(state)[:2]
    return -jnp.sum(_mean_product(streamfunctions(planet, q), q)) / 4


def enstrophy(state: Spectral) -> Scalar:
    """Half the squared anomalies of potential vorticity [s-2], a mean over both layers."""
    q = complex_of(state)[:2]
    return jnp.sum(_mean_product(q, q)) / 4
