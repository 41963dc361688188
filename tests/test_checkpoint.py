"""Checkpoints: they come back as they were, and whatever is wrong with one is said in a sentence with its file."""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdownscale.prior import checkpoint
from bayesdownscale.prior.checkpoint import CheckpointError, load_arrays, load_description, save_checkpoint
from bayesdownscale.prior.trained import load_gaussian_prior, load_prior, train_prior

TREE = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.asarray(3), jnp.zeros((0, 2))]}


@pytest.fixture
def folder(trained_folder, tmp_path):
    return Path(shutil.copytree(trained_folder, tmp_path / "copy"))


def weights(folder: Path) -> Path:
    (path,) = folder.glob("prior-*.safetensors")
    return path


def edit(folder: Path, change) -> None:
    """Apply `change` to the description."""
    path = folder / "prior.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def replace_weights(folder: Path, content: bytes) -> None:
    """Other weights with the right checksum."""
    weights(folder).write_bytes(content)
    edit(folder, lambda r: r["weights"].update(sha256=hashlib.sha256(content).hexdigest()))


def refuse(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_prior(folder)
    for word in (str(folder), *words):
        assert word in str(error.value)


def test_a_tree_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path, "x", {"note": "ü"}, TREE)
    record = load_description(tmp_path, "x")
    assert record["note"] == "ü"
    file, arrays = load_arrays(tmp_path, record)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), TREE)
    back = checkpoint.unflatten(shapes, arrays, file)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)


def test_a_prior_comes_back_as_it_was(trained_folder):
    first, second = load_prior(trained_folder), load_prior(trained_folder)
    assert first.event_shape == (3, 1, 6, 7)
    assert first.grid == second.grid
    assert first.variables[0].standard_name == "air_temperature"
    jax.tree.map(np.testing.assert_array_equal, first.denoiser, second.denoiser)


def test_the_gaussian_inside_is_a_prior_too(trained_folder):
    prior = load_gaussian_prior(trained_folder)
    draw = jax.jit(prior.sample)(jax.random.key(0))
    assert draw.shape == prior.event_shape
    assert jnp.isfinite(prior.log_prob(draw))


def test_a_description_from_before_there_were_blocks_and_tails(folder, trained_folder):
    edit(folder, lambda r: (r["architecture"].pop("block"), r["architecture"].pop("tail")))
    jax.tree.map(np.testing.assert_array_equal, load_prior(folder).denoiser, load_prior(trained_folder).denoiser)


def test_modes_in_blocks_come_back(toy_fields, tiny, tmp_path):
    """Five modes asked for, in blocks of two: four, in two blocks over 2 x 3 rows; and a tail of three."""
    prior = load_gaussian_prior(train_prior(toy_fields, tmp_path, **{**tiny, "block": 2, "n_tail": 3}) and tmp_path)
    assert prior.field.modes.shape[0] == 7
    assert prior.field.tail is not None
    assert prior.field.bases.shape == (2, 6, 6)
    assert jnp.isfinite(prior.log_prob(prior.sample(jax.random.key(0))))


def test_missing_files(folder):
    weights(folder).unlink()
    refuse(folder, "prior-", "found no file")
    (folder / "prior.json").unlink()
    refuse(folder, "prior.json", "found no file")


def test_truncated_weights(folder):
    path = weights(folder)
    path.write_bytes(path.read_bytes()[:-10])
    refuse(folder, path.name, "truncated or altered")


def test_altered_weights(folder):
    path = weights(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    refuse(folder, path.name, "truncated or altered")


def test_another_format(folder):
    edit(folder, lambda r: r.update(format=99))
    refuse(folder, "prior.json", "expected checkpoint format 2, got 99")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1}', b"\xff\xfe"])
def test_a_description_that_is_none(folder, text):
    (folder / "prior.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refuse(folder, "prior.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("weights"),
        lambda r: r["weights"].pop("file"),
        lambda r: r.update(weights="x"),
        lambda r: r.update(window="3"),
        lambda r: r.update(window=4),
        lambda r: r.pop("architecture"),
        lambda r: r["architecture"].update(modes=4),
        lambda r: r["architecture"].update(block=0),
        lambda r: r["architecture"].update(block=5),
        lambda r: r["architecture"].update(tail=1),
        lambda r: r["architecture"]["network"].update(widths=[8]),
        lambda r: r["architecture"]["network"].update(depth=3),
        lambda r: r["levels"].update(sigma_min=1e9),
        lambda r: r["levels"].pop("sigma_max"),
        lambda r: r.pop("stride"),
        lambda r: r["grid"].update(lat=[1.0, 2.0]),
        lambda r: r["grid"].update(lat_bounds=[1.0]),
        lambda r: r["grid"].pop("lon"),
        lambda r: r["variables"][0].pop("units"),
        lambda r: r.update(start="yesterday"),
        lambda r: r.update(step_seconds="x"),
    ],
)
def test_an_altered_description(folder, change):
    edit(folder, change)
    refuse(folder)


def test_weights_of_another_network(folder):
    """Files of two checkpoints, mixed but each whole."""
    save_checkpoint(folder, "other", {}, TREE)
    (other,) = folder.glob("other-*.safetensors")
    replace_weights(folder, other.read_bytes())
    refuse(folder, weights(folder).name, "train again or fetch both files again")


class Payload:
    def __reduce__(self):
        return (os.mkdir, (os.environ["PAYLOAD"],))


def test_a_pickle_is_refused_and_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "ran"))
    replace_weights(folder, pickle.dumps(Payload()))
    refuse(folder, weights(folder).name, "not a safetensors file")
    assert not (tmp_path / "ran").exists()


def test_weights_are_read_from_the_folder_only(folder, tmp_path):
    path = weights(folder)
    shutil.copy(path, tmp_path / "outside.safetensors")
    edit(folder, lambda r: r["weights"].update(file="../outside.safetensors"))
    refuse(folder, "outside.safetensors", "found no file")


def test_a_kill_between_the_two_files_leaves_the_former_pair(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, "x", {"n": 1}, TREE)
    write, calls = checkpoint.write_bytes, []

    def killed(path, content):
        calls.append(path)
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, "x", {"n": 2}, {"a": jnp.ones(3)})
    assert len(calls) == 2
    record = load_description(tmp_path, "x")
    assert record["n"] == 1
    np.testing.assert_array_equal(load_arrays(tmp_path, record)[1]["a"], TREE["a"])
    monkeypatch.undo()
    save_checkpoint(tmp_path, "x", {"n": 3}, TREE)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.write_bytes(tmp_path / "x.json", b"1")
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_usual_permissions(tmp_path):
    """Others may read a prior that they may read at all."""
    (tmp_path / "plain").write_bytes(b"")
    checkpoint.write_bytes(tmp_path / "x.json", b"1")
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_training_state_altered_is_refused(folder, toy_fields, tiny):
    (path,) = folder.glob("training-*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=path.name):
        train_prior(toy_fields, folder, **tiny)
