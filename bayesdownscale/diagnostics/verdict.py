"""The verdict: criteria with value, limits and one sentence each. The limits are conventions, not tests."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# name: what is fine, and what is still tolerable with a warning
LIMITS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "coverage_90": ((0.85, 0.95), (0.75, 0.98)),
    "coverage_50": ((0.4, 0.6), (0.3, 0.7)),
    "coverage_90_observed": ((0.85, 0.95), (0.75, 0.98)),
    "coverage_90_between": ((0.85, 0.95), (0.75, 0.98)),
    "spread_skill": ((0.85, 1.15), (0.7, 1.4)),
    "crps_ratio": ((-np.inf, 0.6), (-np.inf, 1.0)),
    "temporal_jerk": ((0.8, 1.25), (0.6, 1.67)),
    "small_scales": ((-0.1, 0.1), (-0.3, 0.3)),
    "exchangeable": ((0.05, np.inf), (0.01, np.inf)),
    "coarse_residual": ((0.8, 1.2), (0.5, 2.0)),
    "non_finite_draws": ((0, 0), (0, 0)),
    "diverging_draws": ((0, 0), (0, np.inf)),
    "draws": ((20, np.inf), (2, np.inf)),
    "rhat": ((-np.inf, 1.01), (-np.inf, 1.05)),
}
TITLES = {
    "coverage_90": "coverage of the 90 % interval",
    "coverage_50": "coverage of the 50 % interval",
    "coverage_90_observed": "coverage, hours with input",
    "coverage_90_between": "coverage, hours without input",
    "spread_skill": "spread over error",
    "crps_ratio": "CRPS over the error of interpolation",
    "temporal_jerk": "jerk at hours with input",
    "small_scales": "power over scales, log10 ratio to the truth",
    "exchangeable": "truth among the draws, p-value",
    "coarse_residual": "distance to the input, in noise sd",
    "non_finite_draws": "draws that are not finite",
    "diverging_draws": "draws marked as diverging",
    "draws": "number of draws",
    "rhat": "R-hat",
}
ORDER = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Criterion:
    """`status` is ok, warn or fail; `threshold` is what would be ok, in words; `variable` may be ""."""

    name: str
    title: str
    variable: str
    value: float
    threshold: str
    status: str
    sentence: str


def judge(name: str, value: float, sentence: str, variable: str = "", chance: list | None = None) -> Criterion:
    """One criterion. A value outside its limits is no more than a warning where it lies inside `chance`, the
    range that draws put in the truth's place show."""
    (low, high), (least, most) = LIMITS[name]
    if not np.isfinite(value):
        status = "fail"
    elif low <= value <= high:
        status = "ok"
    elif least <= value <= most or (chance and None not in chance and chance[0] <= value <= chance[1]):
        status = "warn"
    else:
        status = "fail"
    if low == high:
        threshold = f"{low:g}"
    elif np.isinf(high):
        threshold = f"at least {low:g}"
    else:
        threshold = f"at most {high:g}" if np.isinf(low) else f"{low:g} to {high:g}"
    return Criterion(name, TITLES[name], variable, float(value), threshold, status, sentence)


def field_criteria(name: str, numbers: dict[str, Any]) -> list[Criterion]:
    """The criteria of one variable with a truth, from the `numbers` of `summary.score_field`."""
    scores = numbers["scores"]
    if scores is None:
        return []
    total, out = scores["all"], []
    for level in (90, 50):
        if total.get(f"coverage_{level}") is not None:
            value, chance = total[f"coverage_{level}"], total[f"coverage_{level}_chance"]
            said = f"The {level} % interval holds the truth at {_percent(value)} of cells and hours"
            if None not in chance:
                said += f"; draws in the truth's place score {_percent(chance[0])} to {_percent(chance[1])}"
            out.append(judge(f"coverage_{level}", value, said + ".", name, chance))
    for period, which in (("observed", "with"), ("between", "without")):
        part = scores.get(period) or {}
        if part.get("coverage_90") is not None:
            said = f"At hours {which} input the 90 % interval holds it at {_percent(part['coverage_90'])}."
            chance = part.get("coverage_90_chance")
            out.append(judge(f"coverage_90_{period}", part["coverage_90"], said, name, chance))
    if total.get("spread_skill") is not None:
        value = total["spread_skill"]
        low, high = LIMITS["spread_skill"][0]
        kind = "the draws are too alike" if value < low else "they differ too much" if value > high else "of one size"
        said = f"The spread of the draws is {value:.2f} times the error of their mean: {kind}."
        out.append(judge("spread_skill", value, said, name))
    if total.get("crps_ratio") is not None:
        value = total["crps_ratio"]
        said = f"The CRPS is {value:.2f} times the mean absolute error of the interpolated input."
        out.append(judge("crps_ratio", value, said, name))
    p = [value for value in (numbers["calibration"] or {}).values() if value is not None]
    if p:
        said = (
            f"The smallest p-value of {len(p)} tests of whether the truth is one more draw, times their number; "
            "exact for correlated fields."
        )
        out.append(judge("exchangeable", min(1.0, min(p) * len(p)), said, name))
    return out


def structure_criteria(name: str, numbers: dict[str, Any]) -> list[Criterion]:
    """The criteria of how draws hang together, from the `numbers` of `field_structure.structure`."""
    out = []
    jerk, radial = numbers.get("jerk_ratio") or {}, numbers.get("radial_spectrum") or {}
    if jerk.get("posterior") is not None:
        low, high = sorted((1.0, jerk["truth"] or 1.0))
        nearest = min(max(jerk["posterior"], low), high)
        ends = [jerk["posterior"] / end if end else None for end in (jerk["range"] or [None])[::-1]]
        value = jerk["posterior"] / nearest
        beside = f" (the truth: {jerk['truth']:.2f}; judged by the nearer of that and 1)" if jerk["truth"] else ""
        said = f"Second differences in time at hours with input are {jerk['posterior']:.2f} times others{beside}: " + (
            "the draws move smoothly through the input." if value < 1.25 else "draws jump at the input."
        )
        out.append(judge("temporal_jerk", value, said, name, ends))
    if radial.get("posterior") is not None:
        value = radial["posterior"]
        chance = [-end for end in radial["range"][::-1]] if radial["range"] else None
        kind = "too smooth" if value < -0.1 else "too rough" if value > 0.1 else "as rough as the truth"
        said = f"Averaged over scales, the draws hold {10**value:.2f} times the power of the truth: {kind}."
        out.append(judge("small_scales", value, said, name, chance))
    return out


def run_criteria(draws: dict[str, int], stats: dict[str, Any], convergence: dict[str, Any]) -> list[Criterion]:
    """The criteria that need no truth."""
    bad, used = draws["non_finite"], draws["used"]
    said = "All draws are finite." if not bad else f"{bad} of {draws['total']} draws are not finite and were left out."
    out = [judge("non_finite_draws", bad, said)]
    said = f"Draws scored: {used}" + ("." if used >= 20 else "; fewer than 20 tell little of the tails.")
    out.append(judge("draws", used, said))
    if "diverging" in stats:
        count = stats["diverging"]["total"]
        said = "No draw is marked as diverging." if not count else f"{count:.0f} draws are marked as diverging."
        out.append(judge("diverging_draws", count, said))
    if stats.get("coarse_residual", {}).get("rms") is not None:
        value = stats["coarse_residual"]["rms"]
        said = f"The draws miss the input by {value:.2f} noise standard deviations (rms); the model says 1."
        out.append(judge("coarse_residual", value, said))
    known = {name: numbers["rhat"] for name, numbers in convergence.items() if numbers["rhat"] is not None}
    if known:
        name = max(known, key=lambda name: known[name])
        said = f"The largest R-hat of {len(known)} parameters, functionals and cells is that of {name}."
        out.append(judge("rhat", known[name], said, name))
    return out


def overall(criteria: list[Criterion], assessed: bool) -> tuple[str, str]:
    """The worst status, and the verdict in one sentence; `assessed`: whether there was a truth. Without one,
    criteria that are all met make the verdict "not assessed"."""
    worst = max((c.status for c in criteria), key=ORDER.index)
    named = "; ".join(f"{c.title}{f' ({c.variable})' if c.variable else ''}" for c in criteria if c.status == worst)
    if worst == "ok":
        said = f"All {len(criteria)} criteria are met" + (
            ", judged on one truth." if assessed else " that need no truth."
        )
    else:
        said = f"{'Look at' if worst == 'warn' else 'Not fit for use as it is'}: {named}."
    if assessed:
        return worst, said
    return "not assessed" if worst == "ok" else worst, f"Calibration was not assessed: no truth was given. {said}"


def worst_first(criteria: list[Criterion]) -> list[Criterion]:
    """Failures, then warnings, then the rest, otherwise in the given order."""
    return sorted(criteria, key=lambda criterion: -ORDER.index(criterion.status))


def as_dict(criterion: Criterion) -> dict[str, Any]:
    """For report.json."""
    return asdict(criterion)


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"
