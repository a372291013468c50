"""Fields of a CSV row as numbers: whole numbers, decimal numbers, times. Compiled; each takes a block and where the
field begins and ends in it."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

NO_INTEGER = np.int64(-(2**63))
NO_TIME = NO_INTEGER
_TENS = 10.0 ** np.arange(23)
# Whole numbers up to here and powers of ten up to 22 are exact, so their quotient is rounded once, as by float().
_EXACT = np.int64(2**53)


@intrinsic
def eight(_context, block, place):  # noqa: ARG001 - an intrinsic gets types here, values in what it generates
    """Eight bytes of the block from `place` on as a word, the first one lowest."""
    def generate(context, builder, signature, values):
        array = context.make_array(signature.args[0])(context, builder, values[0])
        at = builder.bitcast(builder.gep(array.data, [values[1]]), ir.IntType(64).as_pointer())
        read = builder.load(at)
        read.align = 1
        return read
    return types.uint64(block, types.int64), generate


@njit(nogil=True, cache=True)
def integer_of(block, start, stop):
    """A whole number of at most 18 digits; NO_INTEGER if it is none."""
    negative = stop > start and block[start] == 45
    if negative:
        start += 1
    length = stop - start
    if length < 1 or length > 18:
        return NO_INTEGER
    if length <= 8 and stop >= 8:
        value = _up_to_eight(eight(block, stop - 8), length)
        return -value if negative and value >= 0 else value
    value = np.int64(0)
    for place in range(start, stop):
        digit = np.int64(block[place]) - 48
        if digit < 0 or digit > 9:
            return NO_INTEGER
        value = value * 10 + digit
    return -value if negative else value


@njit(nogil=True, cache=True)
def _up_to_eight(word, length):
    """The number that the last `length` bytes of a word spell; NO_INTEGER if one is no digit.

    All digits at once: pairs, then fours, then all eight (Lemire and Mula 2018).
    """
    ahead = (np.uint64(1) << np.uint64(64 - 8 * length)) - np.uint64(1)
    word = (word & ~ahead) | (np.uint64(0x3030303030303030) & ahead)
    high = np.uint64(0xF0F0F0F0F0F0F0F0)
    if word & high | ((word + np.uint64(0x0606060606060606)) & high) >> np.uint64(4) != np.uint64(0x3333333333333333):
        return NO_INTEGER
    word = (word & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(2561) >> np.uint64(8)
    word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601) >> np.uint64(16)
    return np.int64((word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001) >> np.uint64(32))


@njit(nogil=True, cache=True)
def number_of(block, start, stop):
    """A decimal number, sign and exponent allowed; NaN if it is none. Correctly rounded up to 15 digits."""
    whole = integer_of(block, start, stop)
    if whole != NO_INTEGER and -_EXACT <= whole <= _EXACT:
        return float(whole)
    negative = block[start] == 45
    if negative or block[start] == 43:
        start += 1
    value, scale, digits, point, place = np.int64(0), 0, 0, False, start
    while place < stop:
        byte = block[place]
        if byte == 46 and not point:
            point = True
        elif 48 <= byte <= 57:
            digits += 1
            if value < 100_000_000_000_000_000:
                value = value * 10 + (np.int64(byte) - 48)
                scale -= 1 if point else 0
            elif not point:
                scale += 1
        else:
            break
        place += 1
    if digits == 0:
        return np.nan
    if place < stop and (block[place] == 101 or block[place] == 69):
        if place + 1 < stop and block[place + 1] == 43:
            place += 1
        exponent = integer_of(block, place + 1, stop)
        if exponent == NO_INTEGER or exponent > 400 or exponent < -400:
            return np.nan
        scale += exponent
        place = stop
    if place < stop:
        return np.nan
    if -22 <= scale <= 0 and value <= _EXACT:
        result = value / _TENS[-scale]
    elif 0 < scale <= 22 and value <= _EXACT:
        result = value * _TENS[scale]
    else:
        result = value * 10.0 ** scale
    return -result if negative else result


@njit(nogil=True, cache=True)
def _two(block, place):
    """Two digits; -1 if they are none."""
    first, second = np.int64(block[place]) - 48, np.int64(block[place + 1]) - 48
    if first < 0 or first > 9 or second < 0 or second > 9:
        return np.int64(-1)
    return first * 10 + second


@njit(nogil=True, cache=True)
def seconds_of(block, start, stop, day):
    """YYYY-MM-DD, or with a blank or T and HH:MM[:SS[.f]], as seconds since 1970; NO_TIME if it is none.

    Args:
        day: (3,) the date that was read before, as two words, and its days since 1970: rows of one day come together.
    """
    length = stop - start
    if length < 10:
        return NO_TIME
    first, second = np.int64(eight(block, start)), np.int64(eight(block, start + 2))
    if first != day[0] or second != day[1]:
        days = _days_of(block, start)
        if days == NO_TIME:
            return NO_TIME
        day[0], day[1], day[2] = first, second, days
    if length == 10:
        return day[2] * 86400
    if block[start + 10] != 32 and block[start + 10] != 84:
        return NO_TIME
    clock = _clock(eight(block, start + 11)) if length == 19 else _other_clock(block, start + 11, stop)
    return NO_TIME if clock < 0 else day[2] * 86400 + clock


@njit(nogil=True, cache=True)
def _clock(word):
    """HH:MM:SS as seconds; -1 if it is none."""
    colons = np.uint64(0x0000FF0000FF0000)
    if word & colons != np.uint64(0x00003A00003A0000):
        return np.int64(-1)
    word = (word & ~colons) | (np.uint64(0x3030303030303030) & colons)
    high = np.uint64(0xF0F0F0F0F0F0F0F0)
    if (word & high) | ((word + np.uint64(0x0606060606060606)) & high) >> np.uint64(4) != np.uint64(0x3333333333333333):
        return np.int64(-1)
    digits = word & np.uint64(0x0F0F0F0F0F0F0F0F)
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    hour, minute, second = pairs & np.uint64(255), pairs >> np.uint64(24) & np.uint64(255), pairs >> np.uint64(48)
    second &= np.uint64(255)
    if hour > 23 or minute > 59 or second > 59:
        return np.int64(-1)
    return (np.int64(hour) * 60 + np.int64(minute)) * 60 + np.int64(second)


@njit(nogil=True, cache=True)
def _other_clock(block, start, stop):
    """HH:MM, or HH:MM:SS with a fraction, which is cut off; -1 if it is none."""
    length = stop - start
    if length != 5 and (length < 8 or block[start + 5] != 58):
        return np.int64(-1)
    hour, minute = _two(block, start), _two(block, start + 3)
    second = _two(block, start + 6) if length > 5 else np.int64(0)
    if length > 8 and block[start + 8] != 46:
        return np.int64(-1)
    for place in range(start + 9, stop):
        if block[place] < 48 or block[place] > 57:
            return np.int64(-1)
    if block[start + 2] != 58 or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return np.int64(-1)
    return (hour * 60 + minute) * 60 + second


@njit(nogil=True, cache=True)
def _days_of(block, start):
    """YYYY-MM-DD as days since 1970; NO_TIME if it is none."""
    if block[start + 4] != 45 or block[start + 7] != 45:
        return NO_TIME
    century, years = _two(block, start), _two(block, start + 2)
    month, day = _two(block, start + 5), _two(block, start + 8)
    if century < 0 or years < 0 or month < 1 or month > 12 or day < 1:
        return NO_TIME
    year = century * 100 + years
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 30 + (month + (month > 7)) % 2
    if month == 2:
        longest = 29 if leap else 28
    if day > longest:
        return NO_TIME
    # Days since 1970 of a date of the Gregorian calendar: years begin in March, so that the leap day comes last.
    shifted = year - (1 if month <= 2 else 0)
    era, of_era = shifted // 400, shifted % 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
