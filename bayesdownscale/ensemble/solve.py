"""One job: the guided reverse SDE of one member on one block, of which the span is kept."""

import copy
import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from bayesdownscale._types import Key
from bayesdownscale.data.grid import Coords
from bayesdownscale.ensemble.devices import everywhere, mesh_over, spread
from bayesdownscale.ensemble.guide import Guidance
from bayesdownscale.ensemble.noise import KeyedNoise, KeyedPath
from bayesdownscale.ensemble.plan import Plan
from bayesdownscale.ensemble.problem import Problem
from bayesdownscale.likelihood.operators import area_mean, snapshots, time_mean
from bayesdownscale.likelihood.program import AbstractProgram, Program, Theta
from bayesdownscale.posterior.collect import is_field, unlabelled
from bayesdownscale.posterior.guidance import MomentMatching
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.prior.distribution import FieldPrior
from bayesdownscale.prior.reverse_sde import reverse_terms
from bayesdownscale.prior.solver import ExponentialMultistep, MultistepState
from bayesdownscale.prior.windows import WindowedDenoiser

ORIGIN = 2**20  # the number of the record's first time step, so that blocks before it have numbers too


class Solver:
    """Draws spans of members of a `problem` cut by a `plan`, with `steps` evaluations of the prior's denoiser and
    `batch` windows in memory at once (None: all of a block), on `devices` = (members, windows) at once (None: one),
    guided by a class of `bayesdownscale.posterior.guidance` or a partial of one.

    A draw depends on the seed, the member and the span, and on nothing that happened before. Raises `ValueError`
    for a prior without windows and for a program with unknown parameters.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        *,
        steps: int,
        seed: int,
        batch: int | None = None,
        devices: tuple[int, int] | None = None,
        guidance: Guidance = MomentMatching,
    ):
        self.problem, self.plan, self.steps, self.guidance = problem, plan, steps, guidance
        self.key = jax.random.key(seed)
        windowed = windows_of(problem.prior)
        prior = copy.copy(problem.prior)
        self.place = None if devices is None else mesh_over(*devices)
        prior.denoiser = dataclasses.replace(windowed, stride=plan.stride, batch=batch, place=self.place)
        self.prior = prior
        coarse = problem.coarse.coords
        step = np.timedelta64(plan.step, "ns")
        starts, _ = problem.cadence
        self._places = ((starts - starts[0]) // step).astype(int) // plan.every
        self._label = coarse.times[0] - starts[0]  # the time of a mean may be its middle, such as noon
        fine, seen = plan.times(0, plan.block), plan.times(0, plan.rows, plan.every)
        ends = seen + plan.mean * step
        in_time = time_mean(fine, np.stack([seen, ends], axis=1)) if plan.mean else snapshots(fine, seen)
        self.operator = area_mean(prior.grid, coarse.grid) @ in_time
        if problem.wants_coords:
            self._check_dates()

    def data(self, span: int) -> np.ndarray:
        """The coarse values of a block: (row, variable, lat, lon), NaN where there are none."""
        row = self.plan.first(span) // self.plan.every
        low, high = np.searchsorted(self._places, [row, row + self.plan.rows])
        y = np.full((self.plan.rows, *self.problem.coarse.coords.shape[1:]), np.nan, np.float32)
        y[self._places[low:high] - row] = self.problem.coarse.rows(int(low), int(high))
        return y

    def program(self, span: int) -> tuple[FieldPrior, Program]:
        """The prior and the program of a block."""
        plan, first = self.plan, self.plan.first(span)
        prior = self.prior.at(plan.times(first, plan.block))
        data: dict[str, Any] = {"y": jnp.asarray(self.data(span)), **self.problem.settings}
        if self.problem.wants_coords:  # times counted from 1970, so that all blocks share one compiled function
            labels = self.problem.coarse.coords
            times = np.datetime64(0, "ns") + self._label + (plan.times(0, plan.rows, plan.every) - plan.times(0, 1))
            data["coords"] = Coords(times, labels.variables, labels.grid)
        program = Program(self.problem.model, (prior.unlabelled(), self.operator), data, is_field)
        if program.latents:
            raise ValueError(
                f"expected every parameter of the program to be fixed, got {program.latents} free; draw them first on "
                "a short span with `downscale` and fix them here, such as --set sigma=0.1"
            )
        return prior, program

    def _check_dates(self) -> None:
        """Raise `ValueError` for a program that depends on the date in `coords`, which it does not get: seen here as
        densities that change with the month, the hour or the day of the week."""
        prior, program = self.program(0)
        args, data = program.data
        x = prior.standardisation.backward(jax.random.normal(jax.random.key(0), prior.event_shape), prior.context)
        coords, densities = data["coords"], []
        for k in range(12):
            later = dataclasses.replace(coords, times=coords.times + k * np.timedelta64(30 * 24 + 12, "h"))
            densities.append(program.bind((args, data | {"coords": later})).log_likelihood(x))
        if not np.array_equal(densities, densities[:1] * 12, equal_nan=True):
            raise ValueError(
                "expected a program that depends on coords.times by their differences only, as times are counted from "
                "each block's start in an ensemble, got one that depends on the date; read the hour of day and day of "
                "year of each time step from prior.context"
            )

    def __call__(self, members: np.ndarray | list[int], span: int) -> Float[Array, "member time variable lat lon"]:
        """The `members` over a span, in physical units: (member, span, variable, lat, lon), with the steps after the
        end of the record."""
        prior, program = self.program(span)
        first = jnp.asarray(self.plan.first(span) + ORIGIN, jnp.int32)
        arrays: tuple[Any, ...] = unlabelled(prior), unlabelled(program.data), program.given, self.key, first
        if self.place is None:
            numbers = jnp.asarray(members, jnp.int32)
        else:
            numbers, arrays = spread(members, self.place), everywhere(arrays, self.place)
        kept = self.plan.halo, self.plan.halo + self.plan.span
        return _draw(kept, self.steps, self.guidance, program.abstract(), self.place, numbers, *arrays)


def windows_of(prior: FieldPrior) -> WindowedDenoiser:
    """The denoiser of a prior of windows; raises `ValueError` for another prior."""
    if not isinstance(prior.denoiser, WindowedDenoiser):
        raise ValueError(
            f"expected a prior of windows, that describes a trajectory of any length, got one of {prior.times.size} "
            "times; wrap its denoiser in a WindowedDenoiser or use GuidedSDE"
        )
    return prior.denoiser


@eqx.filter_jit
def _draw(
    kept: tuple[int, int],
    steps: int,
    guidance: Guidance,
    abstract: AbstractProgram,
    place: NamedSharding | None,
    members: Int[Array, " member"],
    prior: FieldPrior,
    data: tuple,
    given: Theta,
    key: Key,
    first: Int[Array, ""],
) -> Float[Array, "member time variable lat lon"]:
    """Members over one span, the steps `kept` of a block. Arrays are arguments, the rest is static: one compile a
    shape and a number of members, whatever the record."""
    program = abstract.bind(data, given)
    guided = guidance(prior.denoiser, ProgramLikelihood.of(program, prior))
    sigmas = prior.levels.levels(steps)
    # One step more than the draw has, whose evaluation is the mean that ends it: the guidance is compiled once.
    taus = jnp.asarray(-np.log([*sigmas, sigmas[-1] / 2]), jnp.float32)

    def one(member: Int[Array, ""]) -> Float[Array, "time variable lat lon"]:
        noise = KeyedNoise(key, member, first, prior.coords.shape)
        solution = diffrax.diffeqsolve(
            reverse_terms(guided, prior.context, 1.0, KeyedPath(noise, taus)),
            ExponentialMultistep(),
            t0=taus[0],
            t1=taus[-1],
            dt0=None,
            y0=float(sigmas[0]) * noise(0),
            stepsize_controller=diffrax.StepTo(taus),
            saveat=diffrax.SaveAt(t1=True, solver_state=True),
            max_steps=len(taus),
            adjoint=diffrax.ForwardMode(),
        )
        assert isinstance(solution.solver_state, MultistepState)
        field = prior.standardisation.backward(solution.solver_state.denoised, prior.context)
        return jax.lax.slice_in_dim(field, *kept)

    if place is None:  # a member alone, as in jobs, is not vmapped: loops under vmap copy all they carry
        return one(members[0])[None] if members.shape[0] == 1 else jax.vmap(one)(members)
    fields = jax.vmap(one, spmd_axis_name="member")(members)
    return jax.lax.with_sharding_constraint(fields, NamedSharding(place.mesh, PartitionSpec()))
