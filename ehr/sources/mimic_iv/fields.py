"""Fields of a CSV row as numbers: whole numbers, decimal numbers, times. Compiled; each takes a block and where the
field begins and ends in it."""

from __future__ import annotations

import numpy as np
from numba import njit

NO_INTEGER = np.int64(-(2**63))
NO_TIME = NO_INTEGER
_TENS = 10.0 ** np.arange(23)
# Whole numbers up to here and powers of ten up to 22 are exact, so their quotient is rounded once, as by float().
_EXACT = np.int64(2**53)


@njit(nogil=True, cache=True)
def integer_of(block, start, stop):
    """A whole number of at most 18 digits; NO_INTEGER if it is none."""
    negative = stop > start and block[start] == 45
    if negative:
        start += 1
    if stop - start < 1 or stop - start > 18:
        return NO_INTEGER
    value = np.int64(0)
    for place in range(start, stop):
        digit = np.int64(block[place]) - 48
        if digit < 0 or digit > 9:
            return NO_INTEGER
        value = value * 10 + digit
    return -value if negative else value


@njit(nogil=True, cache=True)
def number_of(block, start, stop):
    """A decimal number, sign and exponent allowed; NaN if it is none. Correctly rounded up to 15 digits."""
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
def seconds_of(block, start, stop):
    """YYYY-MM-DD, or with a blank or T and HH:MM[:SS[.f]], as seconds since 1970; NO_TIME if it is none."""
    length = stop - start
    if length < 10 or block[start + 4] != 45 or block[start + 7] != 45:
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
    hour, minute, second = np.int64(0), np.int64(0), np.int64(0)
    if length > 10:
        if length < 16 or (block[start + 10] != 32 and block[start + 10] != 84) or block[start + 13] != 58:
            return NO_TIME
        hour, minute = _two(block, start + 11), _two(block, start + 14)
        if length > 16:
            if length < 19 or block[start + 16] != 58:
                return NO_TIME
            second = _two(block, start + 17)
            if length > 19 and block[start + 19] != 46:
                return NO_TIME
            for place in range(start + 20, stop):
                if block[place] < 48 or block[place] > 57:
                    return NO_TIME
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return NO_TIME
    # Days since 1970 of a date of the Gregorian calendar: years begin in March, so that the leap day comes last.
    shifted = year - (1 if month <= 2 else 0)
    era, of_era = shifted // 400, shifted % 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return ((days * 24 + hour) * 60 + minute) * 60 + second
