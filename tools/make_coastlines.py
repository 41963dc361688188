"""Make bayesdownscale/diagnostics/coastlines_50m.npz from Natural Earth.

Source: Natural Earth 4.1.0, physical vectors 1:50m, land (public domain, naturalearthdata.com), as the
TopoJSON file `land-50m.json` of the npm package world-atlas 2.0.2 (packaging under the ISC licence).

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python tools/make_coastlines.py package/land-50m.json bayesdownscale/diagnostics/coastlines_50m.npz

TopoJSON already holds every line as integer steps on a grid of 0.0036 by 0.0017 degrees; the steps are kept
as they are (int16), so nothing is lost. A step from one side of the antimeridian to the other is made the
short way round, so a line may run past 180 degrees. Edges that are no coast are cut out: the antimeridian,
and the southern rim of Antarctica at 90 S.

Arrays written: `steps` (points, 2) int16, the first row of each line being zero; `starts` (lines, 2) int32,
each line's first point; `lengths` (lines,) int32; `scale` and `origin` (2,) float64. Degrees, columns lon and
lat, are origin + scale * (start + cumulated steps).
"""

import json
import sys
from pathlib import Path

import numpy as np


def short_way_round(arc: np.ndarray, turn: int) -> np.ndarray:
    """The points (n, 2) of a TopoJSON arc of steps (n, 2), longitudes continuous; `turn`: 360 degrees."""
    points = np.cumsum(arc, axis=0)
    steps = np.diff(points[:, 0])
    points[1:, 0] = points[0, 0] + np.cumsum((steps + turn // 2) % turn - turn // 2)
    return points


def coast_lines(arc: np.ndarray, scale: np.ndarray, origin: np.ndarray) -> list[np.ndarray]:
    """The parts (n >= 2, 2) of one `arc` (n, 2), in grid units, that are coast."""
    degrees = origin + scale * arc
    at_seam, at_pole = np.abs(np.abs(degrees[:, 0]) - 180) < 0.001, degrees[:, 1] < -89.9
    is_edge = (at_seam[1:] & at_seam[:-1]) | (at_pole[1:] & at_pole[:-1])
    parts = np.split(np.arange(len(arc)), np.flatnonzero(is_edge) + 1)
    return [arc[part] for part in parts if len(part) > 1]


def main(source: str, target: str) -> None:
    topology = json.loads(Path(source).read_text())
    scale, origin = (np.array(topology["transform"][key], dtype=np.float64) for key in ("scale", "translate"))
    turn = round(360 / scale[0])
    arcs = [short_way_round(np.array(arc, dtype=np.int64), turn) for arc in topology["arcs"]]
    lines = [line for arc in arcs for line in coast_lines(arc, scale, origin)]
    steps = np.concatenate([np.diff(line, axis=0, prepend=line[:1]) for line in lines])
    if np.abs(steps).max() > np.iinfo(np.int16).max:
        raise ValueError("a step between neighbouring points does not fit into 16 bits; store steps as int32")
    np.savez_compressed(
        target,
        steps=steps.astype(np.int16),
        starts=np.stack([line[0] for line in lines]).astype(np.int32),
        lengths=np.array([len(line) for line in lines], dtype=np.int32),
        scale=scale,
        origin=origin,
    )
    print(f"{len(lines)} lines, {len(steps)} points, {Path(target).stat().st_size / 1024:.0f} KB -> {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
