"""A program as a graph: its sites, their distributions, and who depends on whom."""

from typing import TypedDict

import jax.numpy as jnp
from numpyro.infer.inspect import get_model_relations

from bayesdownscale.likelihood.program import Program
from bayesdownscale.likelihood.sites import set_field


class Node(TypedDict):
    """A site: its `kind` (field, parameter, given, deterministic or data), the name of its `distribution` and the
    sites on which that depends."""

    kind: str
    distribution: str
    parents: list[str]


def model_graph(program: Program) -> dict[str, Node]:
    """The sites of a program by name, parents before children. The field's prior is not run."""
    bare = set_field(program.model, jnp.zeros(program.shape), program.is_field)
    found = get_model_relations(bare, program.args, program.kwargs)
    parents, distributions = found["sample_sample"], found["sample_dist"]
    kinds = dict.fromkeys(program.latents, "parameter") | dict.fromkeys(program.observed, "data")
    kinds |= dict.fromkeys(program.given, "given") | {program.field: "field"}
    graph: dict[str, Node] = {}
    for name in parents:
        distribution = type(program.prior).__name__ if name == program.field else distributions[name]
        above = [parent for parent in parents[name] if parent != name]
        graph[name] = Node(kind=kinds.get(name, "deterministic"), distribution=distribution, parents=above)
    return graph
