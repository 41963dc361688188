"""The figures of a report: which there are, with caption and alternative text."""

import base64
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from bayesdownscale.diagnostics.calibration_figures import coverage_curve, pit_histogram, reliability_diagram
from bayesdownscale.diagnostics.field_scores import ScoredField
from bayesdownscale.diagnostics.figures import between_snapshots, spread_and_error, time_series, widest_point
from bayesdownscale.diagnostics.frame import true_place
from bayesdownscale.diagnostics.maps import maps, unobserved_time
from bayesdownscale.diagnostics.report_tables import number
from bayesdownscale.diagnostics.structure_figures import jerk_figure, spectra_figure
from bayesdownscale.diagnostics.style import name_of, place, png, units_of, utc


def figures_of(one: ScoredField) -> Iterator[dict[str, Any]]:
    """Title, caption, alternative text and picture of every figure that the variable allows."""
    field, name = one.field, name_of(one.field.ensemble)
    ensemble, truth, coarse, observed = field.ensemble, field.truth, field.coarse, field.observed
    draws = ensemble.sizes["draw"]
    time = unobserved_time(ensemble["time"], observed)
    lat, lon = widest_point(ensemble)
    against = " against the truth" if truth is not None else ""
    no_input = "an hour as far from any input as there is" if observed is not None else "the middle of the run"
    yield picture(
        maps(ensemble, time, truth, coarse, observed),
        "One moment on the map",
        f"{utc(time)}: {no_input}. Maps of values share one colour scale. Each draw is one weather that fits "
        "the input; their mean is smoother than any weather."
        + (" Differences: red too high, blue too low." if truth is not None and draws > 1 else ""),
        f"Maps of {name} at {utc(time)}: the posterior draws, their mean and spread{against}.",
        wide=True,
    )
    where = place(*true_place(ensemble, lat, lon))
    yield picture(
        time_series(ensemble, (lat, lon), truth, coarse),
        "One cell over time",
        f"The cell with the largest posterior spread away from the border, {where}: a hard case, "
        "not a typical one. The input is the mean of a whole coarse cell; draws need not pass through it.",
        f"Time series of {name} at {where}: {draws} posterior draws{against}.",
        wide=True,
    )
    if one.curves and truth is not None:
        yield picture(
            pit_histogram(one.curves["all"], int(truth.notnull().sum())),
            "Rank of the truth (PIT)",
            "Flat where calibrated, a hump where the draws differ too much, a bowl where they are too alike, "
            "a slope where they are biased. The dashed band takes cells and hours as independent. They are "
            "not: neighbours share their errors, so that band is too narrow and a histogram outside it proves"
            " nothing. The blue band shows what 90 % of the draws do when put in the truth's place, with all "
            "their correlation.",
            f"Histogram of the rank of the true {name} among the draws; flat means calibrated.",
        )
        yield picture(
            coverage_curve(one.curves["all"], one.curves.get("between")),
            "Coverage",
            "How often central intervals hold the truth. Below the diagonal the posterior is overconfident.",
            f"Empirical against nominal coverage of central intervals of {name}.",
        )
    if one.rare is not None:
        tail = one.numbers["tail"]
        event = f"{name} above {number(tail['threshold'])} {units_of(ensemble)}".rstrip()
        yield picture(
            reliability_diagram(one.rare),
            "Reliability of a rare event",
            f"{event}, the 95 % quantile of the input; it happened at {number(100 * tail['frequency'])} % of cells and "
            "hours. On the diagonal, what was given a probability happened as often. Below: how often each was given.",
            f"Reliability diagram of {event}: observed frequency against the probability given by the draws.",
        )
    if draws > 1:
        yield from _spread(one)
    if observed is not None and not bool(observed.all()) and ensemble.sizes["time"] > 2:
        yield picture(
            jerk_figure(ensemble, observed, truth, one.interpolation),
            "Jerk",
            "Second differences in time, root mean square over the domain. Guidance that pushes only hours with "
            "input shows as peaks there.",
            f"Second differences in time of {name} by hour: {draws} draws{against}; hours with input are marked.",
            wide=True,
        )
    if one.spectra:
        yield picture(
            spectra_figure(one.spectra),
            "Spectra",
            "Power by scale, not normalised. Draws below the truth are too smooth, above it too rough; interpolation "
            "has no small scales at all.",
            f"Power spectra of {name} in space and in time: draws{against} and the interpolated input.",
            wide=True,
        )


def _spread(one: ScoredField) -> Iterator[dict[str, Any]]:
    """Spread and error over time, and by hours since the last input."""
    ensemble, truth, observed = one.field.ensemble, one.field.truth, one.field.observed
    name, against = name_of(ensemble), " against the truth" if truth is not None else ""
    yield picture(
        spread_and_error(ensemble, truth, one.interpolation, observed),
        "Spread and error over time" if truth is not None else "Spread over time",
        "Root mean square over the domain, cells weighted by area. "
        + ("Calibrated where the two are of one size." if truth is not None else "Without a truth: spread alone."),
        f"Spread of the posterior draws of {name} over time{against}.",
        wide=True,
    )
    if observed is not None and int(observed.sum()) > 1 and not bool(observed.all()):
        yield picture(
            between_snapshots(ensemble, observed, truth, one.interpolation),
            "Between inputs",
            "By hours since the last input. Scores of hours with input alone miss what happens in between.",
            f"Spread{' and error' if truth is not None else ''} of {name} by hours since the last input.",
        )


def picture(figure: Figure, title: str, caption: str, alt: str, wide: bool = False) -> dict[str, Any]:
    """A figure as PNG text, with the words around it."""
    encoded = base64.b64encode(png(figure)).decode("ascii")
    width, height = (round(110 * inches) for inches in figure.get_size_inches())
    return {
        "title": title,
        "caption": caption,
        "alt": alt,
        "wide": wide,
        "png": encoded,
        "width": width,
        "height": height,
    }
