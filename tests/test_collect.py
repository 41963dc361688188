"""What `collect` makes of any sampler: the program that was read and no other, and whose draws it goes on with."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from ensembles import EVERY, SPAN, data, windowed_prior
from problems import tiny_prior

import bayesdownscale as bd
from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
from bayesdownscale.ensemble.solve import Solver
from bayesdownscale.posterior import collect as module
from bayesdownscale.prior.distribution import UndatedError

KEY = jax.random.key(3)
DAY = np.timedelta64(1, "D")
Y = jnp.full((3, 1, 4, 4), 2.0)


@pytest.fixture(scope="module")
def prior():
    return tiny_prior()


def nothing(program, prior):
    """A sampler whose every draw is a field of zeros: its `coarse_residual` is that of the data themselves."""
    return lambda key: {"field": jnp.zeros(prior.event_shape)}


def collected(program, labels, **how):
    return bd.collect(nothing, KEY, program, labels, method="a test", approximate=False, **{"draws": 2, **how})


def zeros(model, *args, **kwargs):
    return collected(*bd.read_model(model, args, kwargs))


def known(prior, y, sigma=0.5):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(x, sigma).to_event(4), obs=y)


def by_month(prior, y):
    """Noise of 0.1 K in March and 1 K otherwise."""
    x = numpyro.sample("weather", prior)
    march = prior.times.astype("datetime64[M]").astype(int) % 12 == 2
    numpyro.sample("coarse", dist.Normal(x, jnp.where(march, 0.1, 1.0)[:, None, None, None]).to_event(4), obs=y)


class TestTimes:
    def test_a_program_that_reads_the_times_is_sampled_with_them(self, prior):
        for days, residual in ((0, 20.0), (29, 20.0), (30, np.sqrt((400 + 2 * 4) / 3)), (60, 2.0)):
            start = prior.times[0] + days * DAY + np.timedelta64(23, "h") * (days == 30)
            later = prior.at(start + (prior.times - prior.times[0]))
            np.testing.assert_allclose(zeros(by_month, later, Y).stats["coarse_residual"], residual, rtol=1e-5)

    def test_an_operator_may_be_made_of_them(self, prior):
        def snapshots(prior, y):
            x = numpyro.sample("weather", prior)
            seen = prior.coords.times[:1]
            numpyro.sample("coarse", dist.Normal(bd.snapshots(prior.times, seen)(x), 0.5).to_event(4), obs=y)

        np.testing.assert_allclose(zeros(snapshots, prior, Y[:1]).stats["coarse_residual"], 4.0, rtol=1e-5)

    def test_other_programs_compile_once_for_all_spans(self, prior):
        zeros(known, prior, Y)
        before = module._draw_batch._cached._cache_size()
        zeros(known, prior.at(prior.times + 200 * DAY), Y)
        assert module._draw_batch._cached._cache_size() == before

    def test_the_rest_of_the_labels_stays(self, prior):
        bare = prior.unlabelled()
        assert bare.coords.shape == prior.event_shape
        assert bare.grid == prior.grid
        assert bare.variables == prior.variables
        for read in (lambda: bare.times, lambda: bare.coords.times, lambda: bare.at(prior.times)):
            with pytest.raises(UndatedError, match=r"expected a program that is the same for every span of time"):
                read()


def of_sites(prior, H, y, sigma):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", dist.Normal(H(x), sigma).mask(jnp.isfinite(y)).to_event(4), obs=y)


class TestEnsembles:
    """One compiled function draws all spans, so a program may not depend on the date."""

    def problem(self, model, **settings):
        return Problem(windowed_prior(), CoarseInMemory(data(21)[1]), model, settings)

    def test_dates_are_refused_before_anything_is_written(self, tmp_path):
        def by_prior(prior, H, y):
            of_sites(prior, H, y, 0.1 if prior.times[0] < np.datetime64("2021") else 1.0)

        def by_month(prior, H, y, coords):
            july = coords.times.astype("datetime64[M]").astype(int) % 12 == 6
            of_sites(prior, H, y, jnp.where(july, 0.1, 1.0)[:, None, None, None])

        for model, got in ((by_prior, "reads prior.times"), (by_month, "depends on the date")):
            with pytest.raises(ValueError, match=rf"got one that {got}; read the hour of day"):
                bd.Ensemble(lambda model=model: self.problem(model), tmp_path / "all.zarr", members=1, **SPAN)
            assert not (tmp_path / "all.zarr").exists()

    def test_a_store_is_of_one_program_and_prior(self, tmp_path):
        """That a number is bound to the program by `partial` does not hide it."""
        of = lambda sigma, prior: replace(self.problem(partial(of_sites, sigma=sigma)), prior=prior)
        prior = windowed_prior()
        wider = bd.FieldPrior(prior.denoiser, prior.standardisation, bd.NoiseLevels(0.02, 24.0), prior.coords)
        start = lambda sigma, prior: bd.Ensemble(lambda: of(sigma, prior), tmp_path / "all.zarr", members=1, **SPAN)
        record = start(1.0, prior).store.record
        assert start(1.0, prior).store.record == record
        assert start(2.0, prior).store.record == {**record, "model": start(2.0, prior).store.record["model"]} != record
        assert start(1.0, wider).store.record == {**record, "prior": start(1.0, wider).store.record["prior"]} != record

    def test_differences_of_times_are_the_data_s(self, tmp_path):
        """Noise that grows with the hours of a block, which a program reads from `coords` or gets as numbers."""

        def by_lag(prior, H, y, coords):
            hours = (coords.times - coords.times[0]) / np.timedelta64(1, "h")
            of_sites(prior, H, y, jnp.asarray(1.0 + hours)[:, None, None, None])

        def by_hours(prior, H, y, hours):
            of_sites(prior, H, y, 1.0 + hours[:, None, None, None])

        plan = bd.Ensemble(lambda: self.problem(by_lag), tmp_path / "all.zarr", members=1, **SPAN).plan
        given = self.problem(by_hours, hours=jnp.arange(plan.rows) * float(EVERY))
        draw = lambda problem: Solver(problem, plan, steps=2, seed=0)([0], 1)
        np.testing.assert_allclose(draw(self.problem(by_lag)), draw(given), atol=1e-3)


def programs(what, noise=0.5):
    """The same program from one place in the source, again and again, as a new process would make it."""
    scope = {"numpyro": numpyro, "dist": dist, "NOISE": noise}
    exec(
        "def program(prior, y, transform=abs):\n"
        f"    x = {what}\n"
        "    numpyro.sample('coarse', dist.Normal(x, NOISE).to_event(4), obs=y)\n",
        scope,
    )
    return scope["program"]


class TestKeep:
    weather = "numpyro.sample('weather', prior)"

    def kept(self, folder, prior, model, **kwargs):
        """How often the sampler was asked for a batch in a run that keeps its batches in `folder`."""
        program, labels = bd.read_model(model, (prior, Y), kwargs)
        before = len(list(folder.glob("*.safetensors")))
        residual = collected(program, labels, keep=folder, batch=1).stats["coarse_residual"]
        return len(list(folder.glob("*.safetensors"))) - before, float(residual[0])

    def test_a_run_goes_on_with_its_own_draws_only(self, prior, tmp_path):
        assert self.kept(tmp_path, prior, programs(self.weather)) == (2, 4.0)
        assert self.kept(tmp_path, prior, programs(self.weather)) == (0, 4.0)
        for other in (
            programs(f"1 - {self.weather}"),  # another likelihood
            programs(self.weather, noise=0.25),  # another number that it names
        ):
            with pytest.raises(ValueError, match="finished draws of another run"):
                self.kept(tmp_path, prior, other)
        wider = bd.NoiseLevels(prior.levels.sigma_min, 2 * prior.levels.sigma_max)
        for changed in (
            bd.GaussianPrior(prior.field, prior.standardisation, wider, prior.coords),
            prior.at(prior.times + 366 * DAY),
        ):
            with pytest.raises(ValueError, match="finished draws of another run"):
                self.kept(tmp_path, changed, programs(self.weather))

    def test_functions_among_the_arguments_count_by_what_they_do(self, prior, tmp_path):
        make = lambda power: lambda x: x**power
        for transform, new in ((make(2), 2), (make(2), 0)):
            assert self.kept(tmp_path, prior, programs(self.weather), transform=transform)[0] == new
        with pytest.raises(ValueError, match="finished draws of another run"):
            self.kept(tmp_path, prior, programs(self.weather), transform=make(3))


class TestDensity:
    def test_data_without_a_density_are_never_silent(self, prior):
        def noisy(prior, y):
            x = numpyro.sample("weather", prior)
            sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
            numpyro.sample("coarse", dist.Normal(x, sigma).to_event(4), obs=y)

        for sigma in (0.0, -1.0):
            program, labels = bd.read_model(noisy, (prior, Y), {})
            with pytest.raises(FloatingPointError, match=r"expected data with a density .* each of 2 draws; check"):
                collected(program.fix({"sigma": sigma}), labels)

    @pytest.mark.filterwarnings("ignore:Out-of-support")  # NumPyro's own, once at most
    def test_data_outside_the_support_are_never_silent(self, prior):
        def rain(prior, y):
            x = numpyro.sample("weather", prior)
            numpyro.sample("coarse", dist.Gamma(2.0, jnp.exp(-x)).to_event(4), obs=y)

        with pytest.raises(FloatingPointError, match="check the support of the data, their units"):
            zeros(rain, prior, -Y)

    def test_draws_that_exclude_the_data_are_marked(self, prior):
        """Draws of which every other lies outside the support of what was seen."""

        def within(prior, y):
            x = numpyro.sample("weather", prior)
            numpyro.sample("coarse", dist.Uniform(x - 3, x + 3).to_event(4), obs=y)

        def build(program, prior):
            moved = jnp.asarray([0.0, 9.0, jnp.nan, 4.0])[:, None, None, None, None]
            return lambda key: {"field": moved + jnp.zeros((4, *prior.event_shape))}

        program, labels = bd.read_model(within, (prior, Y), {})
        with pytest.warns(RuntimeWarning) as told:
            made = bd.collect(build, KEY, program, labels, draws=4, chains=1, method="a test", approximate=False)
        assert sorted(str(w.message)[:22] for w in told) == ["1 of 4 draws are not f", "given 1 of 4 draws the"]
        np.testing.assert_array_equal(made.stats["diverging"], [False, True, True, False])
        assert set(made.stats) == {"diverging", "coarse_residual"}

    def test_missing_data_have_one(self, prior):
        def gaps(prior, y):
            x = numpyro.sample("weather", prior)
            numpyro.sample("coarse", dist.Normal(x, 0.5).mask(jnp.isfinite(y)).to_event(4), obs=y)

        made = zeros(gaps, prior, Y.at[0].set(jnp.nan))
        assert not made.stats["diverging"].any()
        assert np.isnan(made.log_likelihood["coarse"][:, 0]).all()


def program_with(power, cells):
    """A program that uses a class and an operator of its own module, in which neither is an argument."""
    grid = bd.Grid(55 - 0.25 * np.arange(4), -3 + 0.25 * np.arange(4))
    scope = {"__name__": "study", "H": bd.area_mean(grid, grid.coarsen(cells))}
    exec(
        "class Power:\n"
        "    def __call__(self, x): return Power.of(x)\n"
        "    @staticmethod\n"
        f"    def of(x): return x ** {power}\n"
        "def program(x): return Power()(H(x))\n",
        scope,
    )
    return scope["program"]


def test_fingerprints_differ_where_a_run_would():
    def factorial(n):
        return 1 if n == 0 else n * factorial(n - 1)

    class Scale:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return self.by * x

    one = lambda x: bd.fingerprint(x)["sha256"]
    a = np.arange(6.0)
    scaled = lambda by: partial(Scale(by), 1.0)
    things = [
        {"a": 1.0}, {"b": 1.0}, {"a": 1}, {"a": True}, {"a": None}, {"a": "1.0"}, a, a.reshape(2, 3), a.reshape(3, 2),
        a.astype(np.float32), a.view("datetime64[s]"), [a, a], KEY, jax.random.key(4), lambda x: x, lambda x: -x,
        lambda x, y=1: x, lambda x, y=2: x, factorial, Scale, Scale(1.0), Scale(2.0), Scale(1.0).__call__, scaled(1.0),
        scaled(2.0), jax.jit(lambda x: x + 1), jnp.tanh, jnp.cosh, abs, windowed_prior(), windowed_prior().coords,
    ]  # fmt: skip
    assert len({one(thing) for thing in things}) == len(things)
    assert one(scaled(2.0)) == one(scaled(2.0))
    assert one(program_with("1.0", 2)) == one(program_with("1.0", 2))
    assert len({one(program_with(*w)) for w in (("1.0", 2), ("1.5", 2), ("1.0", 4))}) == 3
    assert one(windowed_prior()) == one(windowed_prior())
    assert one(jax.jit(make := lambda x: x + 1)) == one(jax.jit(make))


class TestLabels:
    def fields(self, prior, days=0, n=3, grid=None):
        coords = bd.Coords(prior.times[:n] + days * DAY, prior.variables, grid or prior.grid)
        return bd.Fields(np.ones(coords.shape, np.float32), coords)

    def test_each_site_has_its_own(self, prior):
        """Three sites with the same values: two at the same places and times, one days later in the same shape; and one
        of another shape."""

        def several(prior, y, later, shorter):
            x = numpyro.sample("weather", prior)
            numpyro.sample("late", dist.Normal(x, 1.0).to_event(4), obs=later)
            numpyro.sample("coarse", dist.Normal(x, 1.0).to_event(4), obs=y)
            numpyro.sample("again", dist.Normal(x, 2.0).to_event(4), obs=y)
            numpyro.sample("short", dist.Normal(x[:2], 1.0).to_event(4), obs=shorter)

        given = self.fields(prior), self.fields(prior, 5), self.fields(prior, 9, 2)
        made = zeros(several, prior, *given)
        tree = made.to_datatree()
        seen = tree["observed_data"]
        assert seen["again"].dims == seen["coarse"].dims == ("time_coarse", "variable", "lat_coarse", "lon_coarse")
        assert seen["late"].dims == ("time_late", "variable_late", "lat_late", "lon_late")
        for name, site in (("coarse", "coarse"), ("late", "late"), ("short", "short")):
            want = given[("coarse", "late", "short").index(site)].times
            np.testing.assert_array_equal(seen[f"time_{name}"], want)
        assert tree["log_likelihood"]["short"].dims == ("chain", "draw", *seen["short"].dims)
        assert tree["log_likelihood"]["short"].shape == (1, 2, 2, 1, 4, 4)
        back = bd.Posterior.from_datatree(tree)
        place = lambda labels: {name: (f.times.tolist(), f.grid) for name, f in labels.items()}
        assert place(back.labels) == place(made.labels)
        assert back.to_datatree().identical(tree)

    def test_what_a_program_computes_is_labelled_where_that_is_certain(self, prior):
        def roots(prior, y, z):
            x = numpyro.sample("weather", prior)
            numpyro.sample("coarse", dist.Normal(x, 1.0).to_event(4), obs=jnp.sqrt(y))
            numpyro.sample("mean", dist.Normal(x.mean(), 1.0), obs=jnp.mean(z))

        here, later = self.fields(prior), self.fields(prior, 5)
        assert bd.read_model(roots, (prior, here, here), {})[1].keys() == {"coarse"}
        assert bd.read_model(roots, (prior, here, Y), {})[1]["coarse"].coords == here.coords
        assert not bd.read_model(roots, (prior, here, later), {})[1]


@pytest.mark.parametrize(("name", "what"), [("t2m", "a variable"), ("time", "a coordinate")])
def test_a_parameter_needs_a_name_of_its_own(prior, name, what):
    def model(prior, y):
        x = numpyro.sample("weather", prior)
        bias = numpyro.sample(name, dist.Normal(0.0, 1.0))
        numpyro.sample("coarse", dist.Normal(x + bias, 1.0).to_event(4), obs=y)

    with pytest.raises(ValueError, match=f"site '{name}': expected a name of its own .* that of {what} of the field"):
        bd.read_model(model, (prior, Y), {})


@pytest.mark.parametrize("when", [np.datetime64("2020-01-01"), np.arange(2).astype("timedelta64[h]")])
def test_dates_among_the_arguments_are_one_sentence(prior, when):
    with pytest.raises(ValueError, match=r"expected numbers among the arguments .*64\[.* bd.Coords"):
        bd.read_model(lambda prior, y, times: known(prior, y), (prior, Y, when), {})
    labels = bd.Coords(prior.times, prior.variables, prior.grid)
    bd.read_model(lambda prior, y, labels: known(prior, y), (prior, Y, labels), {})
