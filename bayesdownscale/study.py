"""One run of the command line: a prior, coarse fields and a program by name, to a posterior on disk."""

import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesdownscale.progress import progress_bar


class Study:
    """What `downscale` and `demo` share: a prior, coarse fields, and a program by name."""

    def __init__(self, prior, coarse, model: str, settings: dict[str, Any]):
        from bayesdownscale.likelihood.in_time import seen_in_time
        from bayesdownscale.likelihood.operators import area_mean
        from bayesdownscale.recipes import find_recipe, load_recipe

        self.prior, self.coarse, self.settings = prior, coarse, settings
        self.operator = area_mean(prior.grid, coarse.grid) @ seen_in_time(prior.times, coarse)
        self.model = load_recipe(find_recipe("models", model)).model

    def run(self, out: Path, inference: str | None, members: int, steps: int, batch: int, seed: int):
        """The posterior as a DataTree; finished batches wait in a folder beside `out` until it is written."""
        import jax

        from bayesdownscale.posterior.guided import GuidedSDE
        from bayesdownscale.recipes import find_recipe, load_recipe

        key, arguments = jax.random.key(seed), (self.prior, self.operator)
        data = {"y": self.coarse, **self.settings}
        if "coords" in inspect.signature(self.model).parameters:
            data["coords"] = self.coarse.coords
        with progress_bar("drawing members", members) as advance:
            if inference is None:
                sampler = GuidedSDE(self.model, steps=steps, batch=batch)
                result = sampler.run(key, *arguments, draws=members, on_batch=advance, keep=unfinished(out), **data)
                tree = result.to_datatree()
            else:
                recipe = load_recipe(find_recipe("inference", inference))
                batches = {"on_batch": advance, "keep": unfinished(out)}
                tree = recipe.run(key, self.model, *arguments, draws=members, **batches, **data)
        tree.attrs.update(seed=seed, command=command_line(out), source=self.coarse.source)
        return tree

    def write(self, tree, out: Path, cf: Path | None, overwrite: bool) -> None:
        import numpy as np

        from bayesdownscale.data.write import to_cf, write_atomic
        from bayesdownscale.posterior.batches import forget

        write_atomic(tree, out, overwrite)
        if cf is not None:
            draws = lambda name: np.concatenate(np.asarray(tree["posterior"][name]))  # of all chains
            members = {v.name: draws(v.name) for v in self.prior.variables}
            step = self.prior.times[1] - self.prior.times[0]
            method = "point" if step < np.timedelta64(1, "D") else ""  # daily fields may be means
            write_atomic(to_cf(members, self.prior.coords, dict(tree.attrs), method), cf, overwrite)
        forget(unfinished(out))


def prior_from(folder: Path | None, precision: str = "float32") -> Any:
    """The prior of a folder (None: the shipped one), with its network in "float32" or "bf16"."""
    from bayesdownscale.prior.precision import in_bfloat16
    from bayesdownscale.prior.trained import load_prior

    prior = load_prior(folder)
    return in_bfloat16(prior) if precision == "bf16" else prior


def problem_from_files(
    prior: Path | None,
    coarse: str | Path | Sequence[str | Path],
    model: str,
    settings: dict[str, Any],
    names: dict[str, str] | None = None,
    units: dict[str, str] | None = None,
    precision: str = "float32",
    stamp: str | None = None,
    at: dict[str, str] | None = None,
) -> Any:
    """The `Problem` of an ensemble: a prior's folder (None: the shipped one), coarse files and a program by name or
    path. A top-level function of plain arguments, so that worker processes can call it too. `names`: what the file
    calls the prior's variables; `units` of those that lack them; `precision` of the network, "float32" or "bf16";
    `stamp`, what its times mark, where it does not say (`Fields.stamped_at`); `at`, the level or member to read."""
    from bayesdownscale.ensemble.problem import CoarseFile, Problem
    from bayesdownscale.recipes import find_recipe, load_recipe

    loaded = prior_from(prior, precision)
    program = load_recipe(find_recipe("models", model)).model
    called = {v.name: v.name for v in loaded.variables} | (names or {})
    return Problem(loaded, CoarseFile(coarse, loaded, called, units or {}, stamp, at), program, settings)


def unfinished(out: Path) -> Path:
    """Where the finished members of an unfinished run wait."""
    return out.parent / f".{out.name}.unfinished"


def command_line(out: Path) -> str:
    """The command as it was typed, with the output's name in place of its path."""
    words = [out.name if word == str(out) else word for word in sys.argv[1:]]
    return shlex.join(["bayesdownscale", *words])
