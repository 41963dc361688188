"""The twin's constants: the planet, its geography, its surface, and what its coarse climate model gets wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bayesdownscale.data.grid import EARTH_RADIUS_KM, Grid, Variable

OMEGA, GRAVITY = 7.292e-5, 9.81  # rotation [s-1], gravity [m s-2]
PSL, UAS, VAS, TAS = VARIABLES = (
    Variable("psl", "Pa", "air_pressure_at_mean_sea_level", "sea level pressure"),
    Variable("uas", "m s-1", "eastward_wind", "eastward near-surface wind"),
    Variable("vas", "m s-1", "northward_wind", "northward near-surface wind"),
    Variable("tas", "K", "air_temperature", "near-surface air temperature"),
)


@dataclass(frozen=True)
class Planet:
    """A doubly periodic beta plane of `size_km` around `lat` and `lon` [degrees], on `cells` x `cells` points.

    Flow: two layers of `depth_m` in all and density `density` [kg m-3], deformation radius `deformation_km`, mean
    lower wind `westerly` and mean shear `shear` between the layers [m s-1]; eddies damped over `friction_days` (Ekman)
    in the lower layer and `drag_days` in the upper, temperature aloft over `radiation_days`, the smallest waves over
    `damping_hours`. Surface: heights times `relief`, air that relaxes to the temperature aloft over
    `memory_hours`, `mean_k` [K] at sea level in the middle, `lapse` [K m-1] with height, a daily cycle of amplitude
    `daily_k` [K] on land under a clear sky with its maximum at `peak_hour` local solar time; winds are `sea_wind` and
    `land_wind` times the geostrophic one, turned to low pressure by `sea_turn` and
    `land_turn` [degrees]. Mesoscale: random waves of `mesoscale_km`, of standard deviation `mesoscale_pa`,
    `mesoscale_wind` [m s-1] and `mesoscale_k`, remembered for `mesoscale_hours`. `flow_only`: no geography,
    for tests of the flow.
    """

    cells: int = 72
    size_km: float = 5120.0
    lat: float = 48.0
    lon: float = -152.0
    depth_m: float = 10_000.0
    density: float = 1.2
    deformation_km: float = 400.0
    westerly: float = 7.0
    shear: float = 14.5
    friction_days: float = 2.0
    drag_days: float = 3.0
    radiation_days: float = 4.0
    damping_hours: float = 1.5
    relief: float = 1.0
    memory_hours: float = 24.0
    mean_k: float = 284.0
    lapse: float = 6.5e-3
    daily_k: float = 5.0
    peak_hour: float = 15.0
    sea_wind: float = 0.8
    land_wind: float = 0.55
    sea_turn: float = 15.0
    land_turn: float = 30.0
    mesoscale_km: tuple[float, float] = (220.0, 1000.0)
    mesoscale_pa: float = 40.0
    mesoscale_wind: float = 1.0
    mesoscale_k: float = 0.8
    mesoscale_hours: float = 6.0
    flow_only: bool = False

    @property
    def f(self) -> float:
        """Coriolis parameter in the middle [s-1]."""
        return 2 * OMEGA * float(np.sin(np.deg2rad(self.lat)))

    @property
    def beta(self) -> float:
        """Its northward gradient [m-1 s-1]."""
        return 2 * OMEGA * float(np.cos(np.deg2rad(self.lat))) / (1e3 * EARTH_RADIUS_KM)

    @property
    def stretching(self) -> float:
        """F = 1 / (2 deformation radius^2) of either layer [m-2]."""
        return 0.5 / (1e3 * self.deformation_km) ** 2

    @property
    def warmth(self) -> float:
        """Temperature for a difference of streamfunction between the layers, by hydrostatic and geostrophic balance
        (thermal wind): f T0 / g over the distance of the layers' middles [K m-2 s]."""
        return self.f * self.mean_k / GRAVITY / (self.depth_m / 2)

    def metres(self, lat: ArrayLike, lon: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Northward and eastward distance [m] of latitudes and longitudes from the middle of the plane."""
        per_degree = 1e3 * EARTH_RADIUS_KM * np.pi / 180
        east = (np.asarray(lon) - self.lon + 180) % 360 - 180
        return per_degree * (np.asarray(lat) - self.lat), per_degree * np.cos(np.deg2rad(self.lat)) * east


# A land with a range of mountains along its western coast and hills inland, and an island off the coast:
# middle north, middle east, half-widths along and across, angle [km, km, km, km, degrees], height [m].
_LAND = ((0, 450, 1500, 520, 20), (-60, -390, 130, 80, 30))
_HEIGHTS = ((60, 130, 420, 75, 20, 1500.0), (-250, 420, 200, 110, -40, 900.0), (-60, -390, 90, 55, 30, 700.0))


def geography(planet: Planet, north: np.ndarray, east: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Land fraction in [0, 1] and height [m] (y, x) at distances `north` (y,) and `east` (x,) [m] from the middle."""
    size = 1e3 * planet.size_km
    y, x = ((d + size / 2) % size - size / 2 for d in np.meshgrid(north, east, indexing="ij"))

    def distance(mid_y, mid_x, along, across, angle):  # elliptic, 1 at the half-widths
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        dy, dx = y / 1e3 - mid_y, x / 1e3 - mid_x
        return np.hypot((dy * cos + dx * sin) / along, (dx * cos - dy * sin) / across)

    inside = [1 / (1 + np.exp((distance(*ellipse) - 1) * ellipse[3] / 25.0)) for ellipse in _LAND]  # coasts of 25 km
    land = 1 - np.prod([1 - part for part in inside], axis=0)
    height = sum(top * np.exp(-0.5 * distance(*ellipse) ** 2) for *ellipse, top in _HEIGHTS)
    return (0 * land, 0 * land) if planet.flow_only else (land, planet.relief * land * height)


PLANET = Planet()
# The same planet as a coarse climate model has it: few waves, low mountains, too little shear and too much friction,
# a daily cycle that is too small and too early, a cold bias, winds too weak over land and too strong over the sea, and
# no mesoscale.
MODEL = Planet(
    cells=36, shear=14.0, friction_days=2.2, damping_hours=4.0, relief=0.5, mean_k=282.5, daily_k=3.0, peak_hour=13.0,
    sea_wind=0.9, land_wind=0.45, mesoscale_pa=0.0, mesoscale_wind=0.0, mesoscale_k=0.0,
)  # fmt: skip
GRID = Grid(44.25 + 0.5 * np.arange(16), -159.75 + 0.5 * np.arange(32))
