"""The network in bfloat16 is near float32 by its rounding, and nothing around it changes; float32 outside of it is not
rounded to TF32."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import FIXED, case, names, read

import bayesdownscale as bd
from bayesdownscale.posterior.batches import fingerprint
from bayesdownscale.posterior.theta import draw_theta_given_field
from bayesdownscale.prior.network import UNet, UNetConfig
from bayesdownscale.study import prior_from

EPSILON = 2.0**-8  # half the spacing of bfloat16 numbers between 1 and 2 is 2^-9


def network() -> UNet:
    """With the weights that start at zero filled, so that every layer counts."""
    net = UNet(4, 3, UNetConfig((4,), 1, 8, 2, 0.0), key=jax.random.key(0))
    leaves, tree = jax.tree.flatten(net)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    filled = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, filled)


@pytest.fixture(scope="module")
def seen():
    """Of both networks: their answers, and a product with the Jacobian."""
    x, features = jax.random.normal(jax.random.key(2), (2, 4, 5, 4)), jax.random.normal(jax.random.key(3), (2, 22))

    @eqx.filter_jit
    def look(net):
        answer, vjp = jax.vjp(lambda x: net(x, features), x)
        return answer, vjp(jnp.ones_like(answer))[0]

    net = network()
    return look(net), look(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net))


@pytest.mark.parametrize("what", [0, 1], ids=["answer", "product"])
def test_the_network_differs_by_rounding(seen, what):
    """Of a dozen layers, each rounded to a relative 2^-9: more than a tenth of that, less than ten times."""
    wide, half = (np.asarray(each[what], np.float64) for each in seen)
    error = np.sqrt(np.mean((half - wide) ** 2) / np.mean(wide**2))
    assert 0.1 * EPSILON < error < 10 * EPSILON
    assert seen[1][what].dtype == jnp.float32


def test_only_the_network_is_rounded():
    prior = bd.load_prior()
    half = prior_from(None, "bf16")  # as the commands do
    a, b = prior.denoiser.inner, half.denoiser.inner
    assert {leaf.dtype for leaf in jax.tree.leaves(b.net)} == {jnp.dtype(jnp.bfloat16)}
    outside = lambda d: jax.tree.leaves((d.gaussian, d.gain, d.statics))
    for x, y in zip(outside(a), outside(b), strict=True):
        assert y.dtype == jnp.float32
        np.testing.assert_array_equal(x, y)
    assert {leaf.dtype for leaf in jax.tree.leaves(a.net)} == {jnp.dtype(jnp.float32)}
    assert fingerprint(prior) != fingerprint(half)  # a store of the one is not gone on with by the other


def test_without_a_network_it_is_refused(gaussian_prior):
    with pytest.raises(ValueError, match="expected a prior with a network, got one of GaussianDenoiser"):
        bd.in_bfloat16(gaussian_prior)


def products(jaxpr) -> list:
    """The matrix products and convolutions of a jaxpr, and of those inside it."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append(equation)
        for inside in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            if hasattr(inside, "eqns") or hasattr(inside, "jaxpr"):
                found += products(getattr(inside, "jaxpr", inside))
    return found


def in_full(equation) -> bool:
    highest = jax.lax.Precision.HIGHEST
    return equation.params["precision"] in (highest, (highest, highest))


@pytest.mark.parametrize(
    ("name", "guidance"), [*((name, bd.MomentMatching) for name in names("models")), ("area_mean", bd.FixedCovariance)]
)
def test_all_but_the_network_is_in_full(name, guidance):
    """A GPU rounds factors to TF32 where nothing says otherwise. The prior here is Gaussian: it has no network."""
    c = case(name)
    likelihood = bd.ProgramLikelihood.of(read(c, **FIXED[name]), c.prior)
    draw = lambda key: bd.reverse_sample(
        key, guidance(c.prior.denoiser, likelihood), c.prior.context, c.prior.levels.levels(2), c.prior.event_shape
    )[0]
    found = products(jax.make_jaxpr(draw)(jax.random.key(0)).jaxpr)
    assert len(found) > 5
    assert [str(equation) for equation in found if not in_full(equation)] == []


@pytest.mark.parametrize("name", names("models"))
def test_parameters_given_the_field_are_in_full(name):
    c = case(name)
    program = read(c)
    draw = lambda key: draw_theta_given_field(key, program, c.truth, program.draw_theta(key), warmup=1)
    found = products(jax.make_jaxpr(draw)(jax.random.key(0)).jaxpr)
    assert found
    assert [str(equation) for equation in found if not in_full(equation)] == []


def test_the_network_follows_the_setting():
    """TF32 where the user's JAX has it, in full where the user asks for it."""
    look = lambda: products(jax.make_jaxpr(network())(jnp.zeros((4, 5, 4)), jnp.zeros(22)).jaxpr)
    assert not any(map(in_full, look()))
    with jax.default_matmul_precision("highest"):
        assert all(map(in_full, look()))
