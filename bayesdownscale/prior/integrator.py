"""How the reverse process is solved: by which solver, on which Brownian path, with which steps, at what cost."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesdownscale._types import Count, Field, Key
from bayesdownscale.prior.solver import ExponentialMultistep

SOLVERS = (ExponentialMultistep, diffrax.Euler, diffrax.EulerHeun, diffrax.AbstractERK, diffrax.AbstractSRK)
ONLY_SDE = (diffrax.EulerHeun, diffrax.AbstractSRK)
FOR_SDE = (diffrax.AbstractItoSolver, diffrax.AbstractStratonovichSolver)
SMALLEST_STEP = 1 / 4096  # of an adaptive solve, as a part of the whole range of log sigma


class Integrator(eqx.Module):
    """How the reverse process is solved: by which `solver`, with which `stochasticity` lambda in [0, 1] (0 the
    probability-flow ODE, 1 the SDE), and to which `tolerance`.

    `tolerance` None makes one step between neighbouring noise levels. A number makes adaptive steps between the
    first and the last level: the root mean square over cells of each step's estimated error over 1 + |x| stays
    below it (PID control: Soderlind 2003; for SDEs Burrage et al. 2004); a path that would need a step shorter
    than 1/4096 of the range of log sigma comes back as NaN.

    Solvers: `ExponentialMultistep`, `diffrax.Euler`, any explicit Runge-Kutta method of diffrax for lambda = 0,
    and for lambda > 0 those that are marked for SDEs (`Heun`, `Midpoint`, `Ralston`, `EulerHeun`) and the
    stochastic ones (`SEA`, `SRA1`, `ShARK`, ...); the noise is additive, so that Ito and Stratonovich agree.
    Adaptive steps need one that estimates its error. Raises `ValueError` where these do not fit together.
    No arrays inside: a static setting of compiled functions.
    """

    solver: diffrax.AbstractSolver = ExponentialMultistep()
    stochasticity: float = eqx.field(static=True, default=1.0)
    tolerance: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        solver, name = self.solver, type(self.solver).__name__
        if not 0 <= self.stochasticity <= 1:
            raise ValueError(f"expected a stochasticity from 0 (ODE) to 1 (SDE), got {self.stochasticity}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"expected a positive tolerance, or None for fixed steps, got {self.tolerance}")
        if isinstance(solver, diffrax.AbstractWrappedSolver) or not isinstance(solver, SOLVERS):
            raise ValueError(
                f"expected ExponentialMultistep, or an Euler or explicit Runge-Kutta solver of diffrax, got {name}"
            )
        if self.stochasticity == 0 and isinstance(solver, ONLY_SDE):
            raise ValueError(f"expected a solver of ODEs for stochasticity 0, got {name}; try diffrax.Heun()")
        if self.stochasticity > 0 and not isinstance(solver, FOR_SDE):
            raise ValueError(
                f"expected a solver of SDEs for stochasticity {self.stochasticity}, got {name}; try diffrax.ShARK()"
            )
        if self.tolerance is not None and not _estimates_its_error(solver):
            remedy = "diffrax.Tsit5()" if self.stochasticity == 0 else "diffrax.ShARK()"
            raise ValueError(
                f"expected a solver that estimates its error for adaptive steps, got {name}; try {remedy}, or leave "
                "out the tolerance"
            )

    def path(self, key: Key, t0: Array, t1: Array, x: Field) -> diffrax.AbstractBrownianPath:
        """Brownian motion of the shape of `x` over tau from `t0` to `t1`, with the Levy area the solver reads.
        Adaptive steps return to a time already seen, and need a path that is the same there."""
        shape, area = jax.ShapeDtypeStruct(x.shape, x.dtype), _levy_area(self.solver)
        if self.tolerance is None:
            return diffrax.UnsafeBrownianPath(shape, key, area)
        return diffrax.VirtualBrownianTree(t0, t1, (t1 - t0) * SMALLEST_STEP / 2, shape, key, area)

    def controller(self, taus: Float[Array, " level"]) -> diffrax.AbstractStepSizeController:
        """The steps between neighbouring `taus`, or adaptive ones from the first to the last."""
        if self.tolerance is None:
            return diffrax.StepTo(taus)
        pcoeff, icoeff = (0.0, 1.0) if self.stochasticity == 0 else (0.1, 0.3)
        shortest = jnp.abs(taus[-1] - taus[0]) * SMALLEST_STEP
        pid = diffrax.PIDController(
            self.tolerance, self.tolerance, pcoeff=pcoeff, icoeff=icoeff, dtmin=shortest, force_dtmin=False
        )
        first, later = evaluations_a_step(self.solver)
        return CountingSteps(pid, first, later)  # pyright: ignore[reportCallIssue]


class CountingSteps(diffrax.AbstractAdaptiveStepSizeController):
    """The steps of `pid`, and a count of what they cost, rejected ones included: `first` evaluations a step until
    one is accepted, `later` a step from then on (see `evaluations_a_step`)."""

    pid: diffrax.PIDController
    first: int = eqx.field(static=True)
    later: int = eqx.field(static=True)

    @property
    def rtol(self):
        return self.pid.rtol

    @property
    def atol(self):
        return self.pid.atol

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.pid.norm

    def wrap(self, direction):
        return CountingSteps(self.pid.wrap(direction), self.first, self.later)  # pyright: ignore[reportCallIssue]

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        tnext, state = self.pid.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return tnext, (state, jnp.zeros((), jnp.int32), jnp.asarray(False))

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        state, count, begun = controller_state
        count = count + jnp.where(begun, self.later, self.first)
        keep, *rest, state, result = self.pid.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, state
        )
        return keep, *rest, (state, count, begun | keep), result


def evaluations_a_step(solver: diffrax.AbstractSolver) -> tuple[int, int]:
    """Evaluations of the drift in the first step and in each later one: the stages of the method, less one where
    the last stage of a step is the first of the next."""
    if isinstance(solver, diffrax.AbstractERK):
        assert isinstance(solver.tableau, diffrax.ButcherTableau)
        stages = solver.tableau.num_stages
        return stages, stages - int(solver.tableau.fsal)
    if isinstance(solver, diffrax.AbstractSRK):
        ignored = solver.tableau.ignore_stage_f
        stages = len(solver.tableau.b_sol) - (0 if ignored is None else int(ignored.sum()))
        return stages, stages
    return 1, 1


def evaluations(integrator: Integrator, solution: diffrax.Solution) -> Count:
    """How often a solve of `controller`'s steps evaluated the drift."""
    if integrator.tolerance is not None:
        assert solution.controller_state is not None
        return solution.controller_state[1]
    first, later = evaluations_a_step(integrator.solver)
    return jnp.asarray(first - later + later * solution.stats["num_steps"], jnp.int32)


def _estimates_its_error(solver: diffrax.AbstractSolver) -> bool:
    if isinstance(solver, diffrax.AbstractSRK):
        return solver.tableau.b_error is not None
    return isinstance(solver, diffrax.AbstractERK)


def _levy_area(solver: diffrax.AbstractSolver) -> type:
    if not isinstance(solver, diffrax.AbstractSRK):
        return diffrax.BrownianIncrement
    for area in (diffrax.BrownianIncrement, diffrax.SpaceTimeLevyArea):
        if issubclass(area, solver.minimal_levy_area):
            return area
    return diffrax.SpaceTimeTimeLevyArea


DEFAULT = Integrator()
