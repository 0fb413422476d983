"""A number as it is printed: its value and its digits, which say what rounding hides."""

from __future__ import annotations

import math
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

KEPT = ("published", "published_sd", "value", "low", "high")  # where the digits as written are the digits as printed


class Printed(float):
    """A float that remembers how it was written: Printed("2.80") has two decimals, Printed("27") none."""

    text: str

    def __new__(cls, text: str) -> Printed:
        number = super().__new__(cls, text)
        number.text = text.replace("_", "").removeprefix("+")
        return number

    @property
    def decimals(self) -> int:
        exponent = Decimal(self.text).as_tuple().exponent
        return -exponent if isinstance(exponent, int) else 0

    @property
    def half_unit(self) -> float:
        """Half a unit in the last place: how far rounding may have moved the value."""
        return 0.5 * 10.0**-self.decimals

    def __deepcopy__(self, memo: Any) -> Printed:
        return self

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)  # pickled by its digits


def as_number(value: Any) -> Printed:
    if isinstance(value, Printed):
        number = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = Printed(repr(value))
    else:
        raise ValueError("a number is needed, without quotes")
    if not math.isfinite(number):
        raise ValueError('a finite number is needed; an infinite cell is written "inf", an empty one is left out')
    return number


def as_cell(value: Any) -> Printed | str:
    return value if isinstance(value, str) else as_number(value)


Number = Annotated[Printed, PlainValidator(as_number)]
Cell = Annotated[Printed | str, PlainValidator(as_cell)]  # words only in a column of words, and "inf"


def read(path: Path) -> dict[str, Any]:
    """A TOML file; numbers under `published` and the like keep their digits. Raises ValueError, one line."""
    try:
        raw = tomllib.loads(path.read_text(), parse_float=Printed)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} is not TOML: {error}.") from None
    found = plain(raw)
    assert isinstance(found, dict)
    return found


def plain(raw: Any) -> Any:
    """The same with ordinary floats, except where digits matter."""
    if isinstance(raw, dict):
        return {key: value if key in KEPT else plain(value) for key, value in raw.items()}
    if isinstance(raw, list):
        return [plain(value) for value in raw]
    return float(raw) if isinstance(raw, Printed) else raw
