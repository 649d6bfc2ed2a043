"""Damaged bytes for readers, and the one rule for what a reader may do with them.

Every mutant is a function of its seed, so that a failure is found again from its number.
"""

import os
import random
import time
from collections.abc import Callable, Sequence

# What formats are full of: limits of integers, lengths that lie, and signs with a meaning.
TOKENS = (
    b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xff",
    b"\x00" * 8, b"\xff" * 8, b"-1", b"0", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"',
    b"[" * 64, b"{\"a\":" * 64, b"9" * 400, b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"=",
)  # fmt: skip

# Seconds for each reader where the slow tests run; an hour of them finds what this does not.
# Commands refuse variables that they do not know, so it is taken out.
SECONDS = float(os.environ.get("FUZZ_SECONDS", "15"))


def mutant(seeds: Sequence[bytes], number: int, tokens: Sequence[bytes] = ()) -> bytes:
    """The number-th mutant of some valid files."""
    rng = random.Random(number)
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        # Headers lead: most damage is done near the beginning.
        place = rng.randrange(min(len(data), rng.choice((64, 512, len(data) or 1))) or 1)
        match rng.randrange(7):
            case 0 if data:
                data[place] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[place] = rng.randrange(256)
            case 2:
                data[place:place] = rng.choice((*TOKENS, *tokens))
            case 3:
                token = rng.choice((*TOKENS, *tokens))
                data[place : place + len(token)] = token
            case 4:
                del data[place : place + rng.choice((1, 4, 64))]
            case 5:
                del data[place:]
            case _:
                other = rng.choice(seeds)
                begin = rng.randrange(len(other) or 1)
                data[place:place] = other[begin : begin + rng.choice((4, 64, 1024))]
    return bytes(data)


def fuzz(
    read: Callable[[bytes], object],
    seeds: Sequence[bytes],
    allowed: tuple[type[Exception], ...],
    tokens: Sequence[bytes] = (),
    seconds: float = SECONDS,
) -> int:
    """Read mutants until the time is over; returns how many.

    read: reads bytes as the product does. It may succeed, or raise what is `allowed`; whatever else
    it raises fails the test, with the mutant's number.
    """
    for seed in seeds:
        read(seed)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or number < 50:
        number += 1
        try:
            read(mutant(seeds, number, tokens))
        except allowed:
            continue
        except Exception as error:
            raise AssertionError(f"mutant {number}: {type(error).__name__}: {error}") from error
    return number
