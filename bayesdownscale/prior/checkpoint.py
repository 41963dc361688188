"""Checkpoints: a folder with JSON and safetensors. Loading one never executes code from it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load, save

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, altered or of another format; the sentence names the file."""


def flatten(tree: PyTree) -> dict[str, np.ndarray]:
    """Arrays of a tree under the names of their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def unflatten(template: PyTree, arrays: dict[str, np.ndarray], file: Path) -> PyTree:
    """The tree of `template` (arrays or shapes) with `arrays` in their places."""
    is_array = lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    dynamic, static = eqx.partition(template, is_array)
    leaves, structure = jax.tree_util.tree_flatten_with_path(dynamic)
    found = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in arrays or arrays[name].shape != leaf.shape:
            got = f"shape {arrays[name].shape}" if name in arrays else "nothing"
            raise CheckpointError(
                f"{file}: expected tensor {name!r} of shape {leaf.shape}, got {got}; "
                "the weights do not belong to this description, train again or fetch both files again"
            )
        found.append(jnp.asarray(arrays[name], leaf.dtype))
    return eqx.combine(jax.tree_util.tree_unflatten(structure, found), static)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_checkpoint(folder: Path, name: str, description: dict[str, Any], tree: PyTree) -> None:
    """Write `name`.safetensors, then `name`.json with its checksum; the JSON makes the pair valid.

    The weights of each pair have a name of their own (from their content), so a kill between the two files
    leaves the former pair whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save(flatten(tree))
    digest = hashlib.sha256(content).hexdigest()
    weights = f"{name}-{digest[:12]}.safetensors"
    write_bytes(folder / weights, content)
    record = {"format": FORMAT, **description, "weights": {"file": weights, "sha256": digest}}
    write_bytes(folder / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    for old in folder.glob(f"{name}-*.safetensors"):
        if old.name != weights:
            old.unlink()


def load_description(folder: Path, name: str) -> dict[str, Any]:
    """The JSON half of a checkpoint, checked for format."""
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint's description here, found no file")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format"]
        _ = record["weights"]["file"], record["weights"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint's description, could not read it ({error})") from None
    if version != FORMAT:
        raise CheckpointError(
            f"{path}: expected checkpoint format {FORMAT}, got {version}; use the version that wrote it"
        )
    return record


def load_arrays(folder: Path, record: dict[str, Any]) -> tuple[Path, dict[str, np.ndarray]]:
    """The tensors of a checkpoint, after their checksum was compared with the description's."""
    path = Path(folder) / Path(record["weights"]["file"]).name
    if not path.is_file():
        raise CheckpointError(f"{path}: expected the checkpoint's weights here, found no file")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != record["weights"]["sha256"]:
        raise CheckpointError(
            f"{path}: the file is truncated or altered (sha256 {digest[:12]}, expected "
            f"{record['weights']['sha256'][:12]}); fetch or train it again"
        )
    try:
        return path, load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from None
