"""Frame rates: as people write them, and as exact fractions."""

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

MIN_FRAME_RATE = 0.1
MAX_FRAME_RATE = 240.0

# NTSC rates are a nominal one, a multiple of one of these, times 1000/1001.
NTSC_MULTIPLES = (12, 15)

FRACTION = re.compile(r"[0-9]{1,9}/[0-9]{1,9}")


def exact_rate(rate: float | Fraction) -> Fraction:
    """The fraction that a finite frame rate stands for.

    23.976, 23.98, 29.97, 59.94 and their like are roundings of n * 1000/1001, which is returned.
    """
    nominal = math.ceil(rate)
    ntsc = Fraction(nominal * 1000, 1001)
    if any(nominal % multiple == 0 for multiple in NTSC_MULTIPLES) and any(
        math.isclose(rate, round(float(ntsc), digits), rel_tol=1e-9) for digits in range(2, 9)
    ):
        return ntsc
    return Fraction(rate).limit_denominator(1001)


def read_rate(value: Any) -> Any:
    """A rate as a number, a Fraction, or text (`24`, `24000/1001`), as the exact rate's float.

    So models, sound and files all count with one number. What has no sensible size, or is no rate
    at all, is left as it is to who checks that. Raises ValueError for text that is neither.
    """
    if isinstance(value, str):
        value = _read_text(value)
    if not isinstance(value, int | float | Fraction):
        return value
    if not MIN_FRAME_RATE <= value <= MAX_FRAME_RATE:
        return float(value) if isinstance(value, Fraction) else value
    return float(exact_rate(value))


def _read_text(text: str) -> float | Fraction:
    try:
        if FRACTION.fullmatch(text):
            return Fraction(text)
        # Digits of other scripts are numbers to Python, but were hardly meant as such.
        return float(text.encode("ascii"))
    except (ValueError, ZeroDivisionError):
        raise ValueError("must be a number, or a fraction such as 24000/1001") from None


Sensible = Annotated[float, Field(ge=MIN_FRAME_RATE, le=MAX_FRAME_RATE, allow_inf_nan=False)]

# A field's type: an exact rate, of a size that a video can have.
FrameRate = Annotated[
    Sensible,
    BeforeValidator(
        read_rate,
        json_schema_input_type=Sensible | Annotated[str, Field(pattern=rf"^{FRACTION.pattern}$")],
    ),
]
