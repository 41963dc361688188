"""What commands share: options, and the parsing of NAME=VALUE and FIRST/LAST."""

from pathlib import Path
from typing import Any

import click

path = click.Path(path_type=Path)
seed_option = click.option("--seed", default=0, show_default=True, help="Seed of all random numbers.")
stamp_option = click.option(
    "--stamp",
    type=click.Choice(["point", "start", "middle", "end"]),
    help="What the times of the file mark, where it does not say: points, or a part of means.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="Numbers inside the network; bf16 is meant for GPUs.",
)
guidance_option = click.option(
    "--guidance",
    type=click.Choice(["moment_matching", "fixed_covariance"]),
    default="moment_matching",
    show_default=True,
    help="fixed_covariance: no products with the network's Jacobian, a covariance stored with the prior instead.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")

at_option = click.option(
    "--at", multiple=True, metavar="DIM=VALUE", help="Level, member or the like to read: plev=85000, member=0."
)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs; numbers become numbers."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"expected NAME=VALUE, got {setting!r}; write the name, an equals sign and the value")
        try:
            parsed[name] = float(value)
        except ValueError:
            parsed[name] = value
    return parsed


def parse_words(settings: tuple[str, ...]) -> dict[str, str]:
    """NAME=WORD pairs; words stay as they are."""
    parse_settings(settings)  # raises
    return {name: word for name, _, word in (setting.partition("=") for setting in settings)}


def parse_days(text: str) -> tuple[Any, Any]:
    """The two days of FIRST/LAST."""
    import numpy as np

    try:
        first, last = (np.datetime64(day.strip(), "D") for day in text.split("/"))
    except ValueError:
        raise ValueError(f"expected FIRST/LAST, such as 1981-01-01/2010-12-31, got {text!r}") from None
    return first, last


def parse_span(text: str) -> Any:
    """A length of time such as 36h, 10D or 2W."""
    import numpy as np

    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in ("h", "D", "W") or int(number) < 1:
        raise ValueError(f"expected a span of hours, days or weeks, such as 36h, 10D or 2W, got {text!r}")
    return np.timedelta64(int(number), unit)
