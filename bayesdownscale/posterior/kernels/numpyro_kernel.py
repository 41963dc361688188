"""The kernels of the field as a kernel of NumPyro's MCMC, alone or as a block of Gibbs sampling with NUTS on theta."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer.mcmc import MCMCKernel
from numpyro.primitives import Messenger
from numpyro.util import is_prng_key

from bayesdownscale._types import Count, Field
from bayesdownscale.likelihood.program import AbstractProgram, Program, ProgramError, Theta
from bayesdownscale.likelihood.sites import mask_field, set_field
from bayesdownscale.posterior.collect import is_field
from bayesdownscale.posterior.kernels.base import AbstractFieldKernel
from bayesdownscale.posterior.kernels.noise_denoise import NoiseDenoiseMH
from bayesdownscale.posterior.likelihood import ProgramLikelihood
from bayesdownscale.prior.distribution import FieldPrior

CONDITIONED = "_gibbs_sites"  # numpyro.infer.gibbs.GIBBS_SITES_KWARG, which older releases do not have


def unscored(model: Callable) -> Messenger:
    """The program with its field's log-density zero, and never computed, for NUTS on theta beside a `FieldKernel`:
    p(theta | x, y) needs p(x) only where the prior depends on theta, which a field prior does not."""
    return mask_field(model, is_field)


class FieldKernelState(NamedTuple):
    """`z`, the field in physical units by its site's name; the state of the `field`'s kernel, and the `info` of its
    last step; the number `i` of steps so far."""

    z: dict[str, Field]
    field: Any
    info: Any
    i: Count
    rng_key: Array


class FieldKernel(MCMCKernel):
    """Draws the field of a program given its parameters, by `kernel`, a class of `AbstractFieldKernel` or a partial of
    one, adapted in warm-up. With all parameters fixed:

        numpyro.infer.MCMC(bd.FieldKernel(model), num_warmup=100, num_samples=400).run(key, prior, H, y=y)

    With unknown ones it is a block of Gibbs sampling (Geman and Geman 1984), in turns with NUTS, which calls no
    network; all blocks share one model, whose field is not scored:

        model = bd.unscored(model)
        gibbs = numpyro.infer.Gibbs([(bd.FieldKernel(model), ["weather"]), (NUTS(model), None)])

    Start it near the posterior: `init_params={"weather": x}`, a guided draw in physical units (one a chain, in front);
    from the prior otherwise. What a step did is in `extra_fields=("info",)`, in a block `"block_states.0.info"`. Pass
    a large prior as an argument of the model and set `jit_model_args=True`, or its weights are compiled in as
    constants. `chain_method` "vectorized" works, but not inside Gibbs, which takes `jax.vmap` itself there. Data are
    arrays. Raises `ProgramError` for a program that cannot be read, or has parameters that no other block draws.
    """

    sample_field = "z"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, model: Callable, kernel: Callable[..., AbstractFieldKernel] = NoiseDenoiseMH):
        self._model, self._readable, self._kernel = model, model, kernel
        self._program: AbstractProgram | None = None
        self._num_warmup, self._sample_fn = 0, None

    @property
    def model(self) -> Callable:
        return self._model

    def wrap_model(self, wrapper: Callable) -> "FieldKernel":
        """A copy for a model that others see wrapped, say conditioned; what it is conditioned on is read here from the
        keyword arguments."""
        kernel = copy.copy(self)
        kernel._model, kernel._program, kernel._sample_fn = wrapper(self._model), None, None
        return kernel

    def init(
        self, rng_key: Array, num_warmup: int, init_params: dict | None, model_args: tuple, model_kwargs: dict | None
    ) -> FieldKernelState:
        data, theta = split_arguments(model_args, model_kwargs)
        with jax.ensure_compile_time_eval():  # what is known before tracing is checked before tracing
            program = Program(self._readable, *data, is_field)
        missing = [name for name in program.latents if name not in theta]
        if missing:
            raise ProgramError(
                f"expected every parameter fixed or drawn by another block of Gibbs, got {missing[0]!r} unknown; "
                "use numpyro.infer.Gibbs with NUTS"
            )
        self._program, self._num_warmup = program.abstract(), num_warmup

        def start(key: Array, params: dict | None) -> FieldKernelState:
            k_draw, k_init, key = jax.random.split(key, 3)
            kernel, prior = self._bind(model_args, model_kwargs)
            x = prior.sample(k_draw) if params is None else params[program.field]
            field = kernel.init(k_init, prior.standardisation.forward(x, prior.context))
            info = jax.tree.map(
                lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda: kernel.step(key, field)[1])
            )
            z = {program.field: prior.standardisation.backward(field.x, prior.context)}
            return FieldKernelState(z, field, info, jnp.zeros((), jnp.int32), key)

        params = init_params or None
        if is_prng_key(rng_key):
            self._sample_fn = self._sample_one
            return jax.jit(start)(rng_key, params)
        self._sample_fn = lambda state, args, kwargs: jax.vmap(lambda s: self._sample_one(s, args, kwargs))(state)
        return jax.jit(jax.vmap(start, (0, None if params is None else 0)))(rng_key, params)

    def sample(self, state: FieldKernelState, model_args: tuple, model_kwargs: dict | None) -> FieldKernelState:
        assert self._sample_fn is not None, "init comes first"
        return self._sample_fn(state, model_args, model_kwargs)

    def _sample_one(self, state: FieldKernelState, model_args: tuple, model_kwargs: dict | None) -> FieldKernelState:
        kernel, prior = self._bind(model_args, model_kwargs)
        k_step, key = jax.random.split(state.rng_key)
        field, info = kernel.step(k_step, state.field)
        warming_up = state.i < self._num_warmup
        field = jax.tree.map(lambda a, b: jnp.where(warming_up, a, b), kernel.adapt(field, info), field)
        (name,) = state.z
        z = {name: prior.standardisation.backward(field.x, prior.context)}
        return FieldKernelState(z, field, info, state.i + 1, key)

    def refresh(self, state: FieldKernelState, model_args: tuple, model_kwargs: dict | None) -> FieldKernelState:
        kernel, _ = self._bind(model_args, model_kwargs)
        return state._replace(field=kernel.refresh(state.field))

    def _bind(self, model_args: tuple, model_kwargs: dict | None) -> tuple[AbstractFieldKernel, FieldPrior]:
        """The kernel for these arguments, traced ones too, and the prior among them."""
        assert self._program is not None, "init comes first"
        data, theta = split_arguments(model_args, model_kwargs)
        program = self._program.bind(data)
        prior = find_prior(program)
        likelihood = ProgramLikelihood.of(program, prior, {name: theta[name] for name in program.latents})
        return self._kernel(prior.denoiser, likelihood, prior.context, prior.levels), prior


def split_arguments(args: tuple, kwargs: dict | None) -> tuple[tuple[tuple, dict], Theta]:
    """The model's own arguments, and the values of the sites that other blocks of Gibbs own."""
    kwargs = dict(kwargs or {})
    theta = kwargs.pop(CONDITIONED, {})
    return (args, kwargs), theta


def find_prior(program: Program) -> FieldPrior:
    """The field prior in a program, made of its present arguments."""
    model = set_field(program.model, jnp.zeros(program.shape), program.is_field)
    sites = handlers.trace(handlers.seed(model, rng_seed=0)).get_trace(*program.args, **program.kwargs)
    return sites[program.field]["infer"]["field_prior"]
