"""What every kernel of the field is: a Markov transition that leaves p(x | y) under the learned prior invariant."""

import abc
from typing import Any

import equinox as eqx

from bayesdownscale._types import Field, Key
from bayesdownscale.posterior.likelihood import AbstractLikelihood
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context
from bayesdownscale.prior.noise import NoiseLevels


class AbstractFieldKernel(eqx.Module):
    """A transition of one standardised field, given the prior's `denoiser`, a `likelihood`, the field's `context`
    and the prior's noise `levels`.

    Pure functions of named tuples. A state holds the field `x` (time, variable, lat, lon) and its
    `log_likelihood`, and what the next step needs; an info tells what a step did, and its `cost`. Unbatched: vmap
    over keys and states for chains.
    """

    denoiser: eqx.AbstractVar[AbstractDenoiser]
    likelihood: eqx.AbstractVar[AbstractLikelihood]
    context: eqx.AbstractVar[Context]
    levels: eqx.AbstractVar[NoiseLevels]

    @abc.abstractmethod
    def init(self, key: Key, x: Field) -> Any:
        """The state that starts from the field `x`, say a guided draw."""

    @abc.abstractmethod
    def step(self, key: Key, state: Any) -> tuple[Any, Any]:
        """The next state, and what the step did."""

    @abc.abstractmethod
    def refresh(self, state: Any) -> Any:
        """The same state under another likelihood."""

    @abc.abstractmethod
    def adapt(self, state: Any, info: Any) -> Any:
        """The state with its settings improved after a step. In warm-up only: an adapted chain is not exact."""

    @abc.abstractmethod
    def tuned_as(self, state: Any, other: Any) -> Any:
        """The state with the settings that `other` was adapted to."""
