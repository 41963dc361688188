"""Programs by name or path, and studies made of them."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
from problems import small_data, small_prior

import bayesdownscale as bd
from bayesdownscale import recipes
from bayesdownscale.recipes import copy_recipes, find_recipe, list_recipes, load_recipe

ROOT = Path(__file__).parents[1]


def written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["models", "inference"])
def test_programs_are_found_by_name(kind):
    names = list_recipes(kind)
    assert names == sorted(path.stem for path in (ROOT / kind).glob("*.py"))
    for name in names:
        assert find_recipe(kind, name) == ROOT / kind / f"{name}.py"


def test_programs_of_the_wheel_come_first(tmp_path, monkeypatch):
    package = tmp_path / "bayesdownscale"
    (package / "_recipes" / "models").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    written(tmp_path / "models" / "other.py", "")
    monkeypatch.setattr(recipes, "_package", lambda: package)
    ours = written(package / "_recipes" / "models" / "mine.py", "")
    assert list_recipes("models") == ["mine"]
    assert find_recipe("models", "mine") == ours


def test_a_path_is_taken_as_it_is(tmp_path):
    path = written(tmp_path / "mine.py", "")
    assert find_recipe("models", path) == path
    assert find_recipe("models", str(path)) == path


@pytest.mark.parametrize("name", ["area_maen", "area_mean.py", "../models/area_mean", ""])
def test_an_unknown_program_lists_the_names(name):
    with pytest.raises(ValueError, match=r"a name among .*area_mean.* \(models/\), got '.*'; check the spelling"):
        find_recipe("models", name)


def test_a_program_is_loaded_under_a_name_of_its_own(tmp_path):
    first = load_recipe(find_recipe("models", "area_mean"))
    (tmp_path / "models").mkdir()
    other = load_recipe(written(tmp_path / "models" / "area_mean.py", "def model(y=None): return 3"))
    assert callable(first.model)
    assert other.model() == 3
    assert first.__name__ != other.__name__
    loaded = {name for name in sys.modules if "area_mean" in name or name.startswith("models")}
    assert {first.__name__, other.__name__} <= loaded
    assert all(name.startswith("_bayesdownscale_area_mean_") for name in loaded)


def test_a_program_may_hold_dataclasses(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Settings:\n    steps: int = 3\n\ndef run(key): return Settings().steps\n"
    )
    assert load_recipe(written(tmp_path / "mine.py", text)).run(0) == 3


def test_a_program_without_its_function_is_refused(tmp_path):
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"mine\.py: expected a function model\(...\) or run\(...\)"):
        load_recipe(written(tmp_path / "mine.py", "modle = 3"))
    with pytest.raises(ZeroDivisionError):
        load_recipe(written(tmp_path / "broken.py", "1 / 0"))
    assert not {name for name in set(sys.modules) - before if name.startswith("_bayesdownscale")}


def test_a_study_has_the_programs_a_script_and_a_readme(tmp_path):
    study = copy_recipes(tmp_path / "new" / "study")
    assert study == tmp_path / "new" / "study"
    for kind in ("models", "inference"):
        copied = {path.name: path.read_text() for path in (study / kind).iterdir()}
        assert copied == {path.name: path.read_text() for path in (ROOT / kind).glob("*.py")}
    assert {path.name for path in study.iterdir()} == {"models", "inference", "README.md", "study.py"}
    assert list(study.parent.iterdir()) == [study]


def test_a_study_replaces_nothing(tmp_path, monkeypatch):
    study = tmp_path / "study"
    study.mkdir()
    copy_recipes(study)  # empty until now
    (study / "study.py").write_text("mine")
    with pytest.raises(FileExistsError, match=r"study exists and is not an empty folder; choose another name"):
        copy_recipes(study)
    assert (study / "study.py").read_text() == "mine"
    with pytest.raises(FileExistsError, match="choose another name"):
        copy_recipes(study / "README.md")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(FileExistsError, match="choose another name"):
        copy_recipes(".")


def test_a_study_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(source, target):
        if Path(target).name == "study.py":
            raise OSError("disk full")
        return copy(source, target)

    copy = shutil.copyfile
    monkeypatch.setattr(recipes.shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        copy_recipes(tmp_path / "study")
    assert list(tmp_path.iterdir()) == []


def test_a_study_runs(tmp_path, monkeypatch):
    """The script as it is copied, with a small exact prior and few draws."""
    prior = small_prior()
    study = copy_recipes(tmp_path / "study")
    text = (study / "study.py").read_text()
    settings = "steps=32).run(jax.random.key(0), prior, H, y=coarse, draws=16)"
    assert settings in text
    (study / "study.py").write_text(text.replace("steps=32", "steps=4").replace("draws=16", "draws=4"))
    small_data(prior)[1].to_dataset().to_netcdf(study / "coarse.nc")
    monkeypatch.chdir(study)
    monkeypatch.syspath_prepend(study)
    monkeypatch.setattr(bd, "load_prior", lambda: prior)
    try:
        made = runpy.run_path("study.py")
    finally:
        sys.modules.pop("models.area_mean", None)
        sys.modules.pop("models", None)
    assert Path(made["model"].__code__.co_filename).is_relative_to(study)
    assert made["tree"]["posterior"]["t2m"].shape == (1, 4, *prior.event_shape[:1], *prior.event_shape[2:])
    assert (study / "posterior.zarr").is_dir()
    assert (study / "report.html").is_file()
