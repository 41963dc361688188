"""Where and what a field is: the grid, the variables and the times. Labels live here, arrays elsewhere."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .edges import edges_from_centres
from .rotated import RotatedPole

if TYPE_CHECKING:
    import xarray as xr

EARTH_RADIUS_KM = 6371.0
OVERLAP_TOLERANCE = 1e-6  # degrees


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid regular in latitude and longitude, the true ones or those of a rotated pole.

    **Arguments:** `lat` (n_lat,) and `lon` (n_lon,) cell centres in degrees, in either order; `lat_bounds`
    (n_lat + 1,) and `lon_bounds` (n_lon + 1,) cell edges in degrees, in the order of the centres
    (half-way between centres when not given); `pole`, the rotated pole to which all these refer (None: true ones).
    """

    lat: np.ndarray
    lon: np.ndarray
    lat_bounds: np.ndarray = field(default=None)  # type: ignore[assignment]
    lon_bounds: np.ndarray = field(default=None)  # type: ignore[assignment]
    pole: RotatedPole | None = None

    def __post_init__(self):
        for name in ("lat", "lon"):
            centres = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, centres)
            bounds = getattr(self, f"{name}_bounds")
            bounds = edges_from_centres(centres) if bounds is None else np.asarray(bounds, dtype=np.float64)
            if bounds.shape != (centres.size + 1,):
                raise ValueError(f"expected {centres.size + 1} {name} edges, got an array of {bounds.shape}")
            if name == "lat":
                bounds = np.clip(bounds, -90.0, 90.0)
            object.__setattr__(self, f"{name}_bounds", bounds)

    def to_json(self) -> dict[str, Any]:
        """Numbers to make the grid from again: `Grid.from_json`."""
        edges = {k: getattr(self, k).tolist() for k in ("lat", "lon", "lat_bounds", "lon_bounds")}
        return edges if self.pole is None else {**edges, "pole": asdict(self.pole)}

    @staticmethod
    def from_json(record: dict[str, Any]) -> "Grid":
        """The grid of `to_json`; raises KeyError or TypeError where parts are missing or unknown."""
        pole = record.get("pole")
        edges = {k: np.asarray(v) for k, v in record.items() if k != "pole"}
        return Grid(**edges, pole=None if pole is None else RotatedPole(**pole))

    @property
    def shape(self) -> tuple[int, int]:
        return self.lat.size, self.lon.size

    def cell_areas(self) -> np.ndarray:
        """Cell areas (n_lat, n_lon) on the unit sphere [sr]."""
        heights = np.abs(np.diff(np.sin(np.deg2rad(self.lat_bounds))))
        widths = np.abs(np.diff(np.deg2rad(self.lon_bounds)))
        return heights[:, None] * widths[None, :]

    def distances_km(self) -> np.ndarray:
        """Great-circle distances (cells, cells) between cell centres [km], cells in row-major order."""
        lat, lon = np.meshgrid(np.deg2rad(self.lat), np.deg2rad(self.lon), indexing="ij")
        lat, lon = lat.ravel(), lon.ravel()
        haversine = (
            np.sin((lat[:, None] - lat) / 2) ** 2
            + np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
        )
        return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(haversine, 0, 1)))

    def coarsen(self, factor: int) -> "Grid":
        """The grid whose cells are blocks of `factor` x `factor` cells; both sizes are multiples of it."""
        if self.lat.size % factor or self.lon.size % factor:
            raise ValueError(
                f"expected a grid whose sizes are multiples of {factor}, got {self.shape}; "
                "crop the grid or choose another factor"
            )
        lat_bounds, lon_bounds = self.lat_bounds[::factor], self.lon_bounds[::factor]
        lat, lon = (lat_bounds[1:] + lat_bounds[:-1]) / 2, (lon_bounds[1:] + lon_bounds[:-1]) / 2
        return Grid(lat, lon, lat_bounds, lon_bounds, self.pole)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """True latitudes and longitudes (n_lat, n_lon) of the cell centres [degrees]."""
        lat, lon = np.meshgrid(self.lat, self.lon, indexing="ij")
        return (lat, lon) if self.pole is None else self.pole.to_geographic(lat, lon)

    def unit_vectors(self) -> np.ndarray:
        """Unit vectors (cells, 3) from the centre of the Earth to the cell centres, cells in row-major order."""
        lat, lon = (np.deg2rad(each).ravel() for each in self.places())
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)

    def crop(self, n_lat: int, n_lon: int) -> "Grid":
        """The first `n_lat` rows and `n_lon` columns."""
        lat_bounds, lon_bounds = self.lat_bounds[: n_lat + 1], self.lon_bounds[: n_lon + 1]
        return Grid(self.lat[:n_lat], self.lon[:n_lon], lat_bounds, lon_bounds, self.pole)

    def restrict(self, domain: "Grid") -> "tuple[np.ndarray, np.ndarray, Grid]":
        """The cells of this coarse grid that lie wholly in a prior's `domain`, in the order and convention of
        that: their rows and columns in this grid, and the grid they form.

        Raises `ValueError` where there is none, where they do not lie side by side, or where the poles differ.
        """
        if self.pole != domain.pole:
            raise ValueError(f"expected grids with one pole, got {self.pole} and {domain.pole}; use overlap_areas")
        middle = (domain.lon_bounds[0] + domain.lon_bounds[-1]) / 2
        turns = 360 * np.round((middle - self.lon) / 360)
        axes = []
        for centres, bounds, shift, limits in (
            (self.lat, self.lat_bounds, 0.0, domain.lat_bounds),
            (self.lon, self.lon_bounds, turns, domain.lon_bounds),
        ):
            edges = np.sort(np.round(np.stack([bounds[:-1] + shift, bounds[1:] + shift]), 9), axis=0)
            centres, start, stop = np.round(centres + shift, 9), min(limits), max(limits)
            inside = (edges[0] >= start - OVERLAP_TOLERANCE) & (edges[1] <= stop + OVERLAP_TOLERANCE)
            order = np.argsort(centres)
            if limits[0] > limits[-1]:
                order, edges = order[::-1], edges[::-1]
            index = order[inside[order]]
            axes.append((index, centres[index], edges[:, index]))
            gaps = edges[0, index[1:]] - edges[1, index[:-1]]
            if not np.all(np.abs(gaps) <= 1e-3 * np.ptp(edges, 0).max()):
                raise ValueError("expected each cell once, side by side, got gaps or repeated cells; cut the grid")
        (rows, lat, lat_edges), (columns, lon, lon_edges) = axes
        if not (rows.size and columns.size):
            raise ValueError(
                f"coarse grid outside the prior's domain: expected whole cells within {domain.extent()}, "
                f"got {self.extent()}; choose files of one region"
            )
        lat_bounds, lon_bounds = (np.append(e[0], e[1, -1]) for e in (lat_edges, lon_edges))
        return rows, columns, Grid(lat, lon, lat_bounds, lon_bounds, self.pole)

    def extent(self) -> str:
        """The outer edges in words, for messages."""
        lat, lon = self.lat_bounds, self.lon_bounds
        return f"lat {min(lat):g} to {max(lat):g} and lon {min(lon):g} to {max(lon):g}"

    def _key(self) -> tuple:
        return *(a.tobytes() for a in (self.lat, self.lon, self.lat_bounds, self.lon_bounds)), self.pole

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True)
class Variable:
    """A physical variable: `name` in files and trees, `units` (UDUNITS), CF `standard_name` or ""."""

    name: str
    units: str
    standard_name: str = ""
    long_name: str = ""

    def cf_attrs(self) -> dict[str, str]:
        """The CF attributes that are known: units, standard_name, long_name."""
        attrs = {"units": self.units, "standard_name": self.standard_name, "long_name": self.long_name}
        return {key: value for key, value in attrs.items() if value}


@dataclass(frozen=True, eq=False)
class Coords:
    """The labels of a field (time, variable, lat, lon): `times` (n_time,) datetime64[ns], UTC."""

    times: np.ndarray
    variables: tuple[Variable, ...]
    grid: Grid

    def __post_init__(self):
        object.__setattr__(self, "times", np.asarray(self.times, dtype="datetime64[ns]"))
        object.__setattr__(self, "variables", tuple(self.variables))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.times.size, len(self.variables), *self.grid.shape

    def to_xarray(self) -> "dict[str, xr.Variable]":
        """The CF coordinate variables: time, lat, lon and their bounds, with attributes and encodings.

        On a rotated pole `lat` and `lon` are CF's grid_latitude and grid_longitude, and carry the pole as attributes.
        """
        import xarray as xr

        whole_seconds = np.all(self.times == self.times.astype("datetime64[s]"))
        time_encoding = {
            "units": "seconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
            "dtype": "int64" if whole_seconds else "float64",
        }
        time_attrs = {"standard_name": "time", "long_name": "time", "axis": "T"}
        out = {"time": xr.Variable("time", self.times, time_attrs, time_encoding)}
        # CF allows no missing values in coordinates, and bounds take their attributes from their coordinate.
        hygiene = {"dtype": "float64", "_FillValue": None, "coordinates": None}
        for name, long_name, units, axis in (
            ("lat", "latitude", "degrees_north", "Y"),
            ("lon", "longitude", "degrees_east", "X"),
        ):
            attrs = {"standard_name": long_name, "long_name": long_name, "units": units, "axis": axis}
            if self.grid.pole is not None:
                attrs |= {"standard_name": f"grid_{long_name}", "long_name": f"{long_name} in rotated pole grid"}
                attrs |= {"units": "degrees"} | self.grid.pole.cf_attrs()
            centres, edges = getattr(self.grid, name), getattr(self.grid, f"{name}_bounds")
            out[name] = xr.Variable(name, centres, attrs, {"bounds": f"{name}_bnds"} | hygiene)
            bounds = np.stack([edges[:-1], edges[1:]], axis=1)
            out[f"{name}_bnds"] = xr.Variable((name, "bnds"), bounds, {}, dict(hygiene))
        return out

    def _key(self) -> tuple:
        return self.times.tobytes(), self.variables, self.grid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coords) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())
