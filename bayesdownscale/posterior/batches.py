"""Many draws in batches of one compiled shape, with progress, and kept on disk as they finish."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from bayesdownscale.posterior.digest import digest
from bayesdownscale.prior.checkpoint import load_arrays, load_description, save_checkpoint

PART = "draws"


def draw_keys(rng_key: Array, draws: int) -> Array:
    """One key a draw, folded from its number: draw i is the same whatever the batch or the number of draws."""
    if draws < 1:
        raise ValueError(f"expected at least one draw, got {draws}")
    return jax.vmap(lambda i: jax.random.fold_in(rng_key, i))(jnp.arange(draws))


def in_batches(
    draw_batch: Callable[[Array], dict[str, Array]],
    keys: Array,
    batch: int,
    *,
    on_batch: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
    mark: dict[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """All draws of `draw_batch` (keys of one batch -> arrays with a leading batch axis), gathered on the host.

    The last batch is filled up with repeated keys, so one shape is compiled. With a folder `keep`, each batch is
    written there when it is done, and a later call with the same `mark` (see `fingerprint`) continues after it; call
    `forget(keep)` once the result is safe. `on_batch` hears the number of draws done.
    """
    n = keys.shape[0]
    batch = min(batch, n)
    done: list[dict[str, np.ndarray]] = []
    for start in range(0, n, batch):
        name = f"{PART}-{start:06d}"
        description = {"mark": {**(mark or {}), "batch": batch, "draws": n}}
        finished = None if keep is None else _finished(keep, name, description)
        if finished is None:
            index = jnp.minimum(start + jnp.arange(batch), n - 1)
            finished = {k: np.asarray(v)[: n - start] for k, v in draw_batch(keys[index]).items()}
            if keep is not None:
                save_checkpoint(keep, name, description, finished)
        done.append(finished)
        on_batch(min(start + batch, n))
    return {k: np.concatenate([part[k] for part in done]) for k in done[0]}


def _finished(keep: Path, name: str, description: dict) -> dict[str, np.ndarray] | None:
    if not (keep / f"{name}.json").exists():
        return None
    record = load_description(keep, name)
    if record["mark"] != description["mark"]:
        raise ValueError(
            f"{keep}: holds the finished draws of another run (other data, model, seed or settings); "
            "delete this folder or choose another output"
        )
    return load_arrays(keep, record)[1]


def forget(keep: Path) -> None:
    """Remove the folder of finished batches."""
    shutil.rmtree(keep, ignore_errors=True)


def fingerprint(*trees: PyTree, **settings: Any) -> dict[str, Any]:
    """What a run is made of, to tell whether finished batches belong to it: a checksum of all arrays, numbers, labels
    and functions in `trees` (keys, prior, data, program) with their places, shapes and types (`digest`), and the
    `settings`."""
    return {"sha256": digest(trees), **settings}


def finite(tree: PyTree) -> Array:
    """Whether every number of a draw is finite: scalar bool."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
