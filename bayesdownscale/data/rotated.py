"""Rotated poles: the grids of regional climate models, regular in latitudes and longitudes of a turned sphere."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RotatedPole:
    """CF's grid mapping `rotated_latitude_longitude` (CF-1.11, appendix F): the north pole of the rotated grid lies at
    `lat` and `lon` [degrees], and `north_pole_lon` is the rotated longitude of the true north pole [degrees]."""

    lat: float
    lon: float
    north_pole_lon: float = 0.0

    @staticmethod
    def fit(rlat: np.ndarray, rlon: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> "RotatedPole":
        """The pole of a grid whose coordinates (rlat,) and (rlon,) and places `lat` and `lon` (rlat, rlon) are known,
        all in degrees: the rotation nearest to them (Kabsch 1976, doi:10.1107/S0567739476001873).

        **Raises:** ValueError where none brings the two together within 0.01 degrees.
        """
        wanted = _vectors(lat, lon).reshape(-1, 3)
        own = _vectors(*np.meshgrid(rlat, rlon, indexing="ij")).reshape(-1, 3)
        u, _, vt = np.linalg.svd(wanted.T @ own)
        turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        far = np.rad2deg(np.linalg.norm(wanted - own @ turn.T, axis=1).max())
        if far > 0.01:
            raise ValueError(f"expected a rotated pole to explain latitudes and longitudes, got {far:.2g} degrees")
        pole, true_pole = _angles(turn[:, 2]), _angles(turn[2])
        return RotatedPole(*(round(float(angle), 4) for angle in (*pole, true_pole[1])))

    @staticmethod
    def from_attrs(attrs: Mapping[Any, Any]) -> "RotatedPole | None":
        """The pole in the attributes of a grid mapping variable, None where they hold none."""
        names = ("grid_north_pole_latitude", "grid_north_pole_longitude")
        if not set(names) <= set(attrs):
            return None
        start = attrs.get("north_pole_grid_longitude", 0.0)
        return RotatedPole(float(attrs[names[0]]), float(attrs[names[1]]), float(start))

    @cached_property
    def _turn(self) -> np.ndarray:
        """The rotation (3, 3) from rotated to geographic unit vectors."""
        lat, lon, start = np.deg2rad([self.lat, self.lon, self.north_pole_lon])
        # The rotated pole is tilted by 90 degrees - lat towards lon; the true pole lies at the rotated longitude start.
        return _about_z(lon) @ _about_y(np.pi / 2 - lat) @ _about_z(np.pi - start)

    def to_geographic(self, rlat: np.ndarray, rlon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes [degrees, -180 to 180] of points given in the rotated ones."""
        return _angles(_vectors(rlat, rlon) @ self._turn.T)

    def from_geographic(self, lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotated latitudes and longitudes [degrees, -180 to 180] of points."""
        return _angles(_vectors(lat, lon) @ self._turn)

    def cf_attrs(self) -> dict[str, str | float]:
        """The attributes of the grid mapping variable."""
        return {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": self.lat,
            "grid_north_pole_longitude": self.lon,
            "north_pole_grid_longitude": self.north_pole_lon,
        }


def _vectors(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3)."""
    lat, lon = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _angles(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes [degrees] of unit vectors (..., 3)."""
    lat, lon = np.arcsin(np.clip(v[..., 2], -1.0, 1.0)), np.arctan2(v[..., 1], v[..., 0])
    return np.asarray(np.rad2deg(lat)), np.asarray(np.rad2deg(lon))


def _about_y(angle: float) -> np.ndarray:
    """The rotation (3, 3) that tilts the z axis by `angle` towards the x axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
