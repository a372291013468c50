"""The CSV sieve: reads a huge CSV file once, keeps the rows of interest, parses nothing else.

In: blocks of bytes of a CSV file with a header (RFC 4180: fields may be quoted, quotes doubled, a quoted field may hold
line ends). Out: for each row whose key is wanted its integers, time and number, the digests of its texts, and where it
stands in the block; and for each row that cannot be read its place and the reason. Nine of ten rows of MIMIC-IV's
chartevents are of no interest: of those only the key is looked at and the fields are counted.

The scan is compiled (numba) and runs without the GIL, so that unpacking and scanning overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

NO_INTEGER = np.int64(-(2**63))
NO_TIME = NO_INTEGER
# Why a row could not be read.
FIELDS, INTEGER, TIME, NUMBER, KEY = 1, 2, 3, 4, 5
REASONS = {FIELDS: "another number of fields than the header", INTEGER: "an identifier that is no whole number",
           TIME: "a time that is no YYYY-MM-DD HH:MM:SS", NUMBER: "a number that cannot be read",
           KEY: "an item that is no whole number"}
_SKIP, _KEY, _INTEGER, _TIME, _NUMBER, _TEXT = 0, 1, 2, 3, 4, 5
_QUOTE, _COMMA, _NEWLINE, _RETURN = 34, 44, 10, 13
_FNV, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
# Digest of an empty field.
EMPTY = _FNV
_TENS = 10.0 ** np.arange(23)
# Whole numbers up to here and powers of ten up to 22 are exact, so their quotient is rounded once, as by float().
_EXACT = np.int64(2**53)


@dataclass(frozen=True)
class Found:
    """R rows of one block.

    Attributes:
        row: (R,) how many rows of the file stand before it, the header not counted.
        key: (R,). integers: (R, I), NO_INTEGER where empty. time: (R,) seconds since 1970, NO_TIME where empty.
        number: (R,) NaN where empty. text: (R, X) digests, EMPTY where empty. span: (R, X, 2) their bytes in the block.
        bad_row, bad_reason, bad_span: rows that could not be read.
        rows: rows of the block, of interest or not. returns: those that end with CR LF. consumed: bytes.
    """

    row: np.ndarray
    key: np.ndarray
    integers: np.ndarray
    time: np.ndarray
    number: np.ndarray
    text: np.ndarray
    span: np.ndarray
    bad_row: np.ndarray
    bad_reason: np.ndarray
    bad_span: np.ndarray
    rows: int
    returns: int
    consumed: int


class Sieve:
    """One file's sieve.

    Args:
        header: all column names of the file, in order.
        key: the column by which rows are chosen. wanted: its values that are kept.
        integers, texts: columns to be read, in the order of the results. time, number: column names.
    """

    def __init__(self, header: Sequence[str], key: str, wanted: Sequence[int], integers: Sequence[str], time: str,
                 number: str, texts: Sequence[str]) -> None:
        place: Mapping[str, tuple[int, int]] = {
            key: (_KEY, 0), time: (_TIME, 0), number: (_NUMBER, 0),
            **{name: (_INTEGER, index) for index, name in enumerate(integers)},
            **{name: (_TEXT, index) for index, name in enumerate(texts)}}
        self._roles = np.array([place.get(name, (_SKIP, 0))[0] for name in header], dtype=np.int8)
        self._slots = np.array([place.get(name, (_SKIP, 0))[1] for name in header], dtype=np.int8)
        self._low = min(wanted)
        self._wanted = np.zeros(max(wanted) - self._low + 1, dtype=np.bool_)
        self._wanted[np.asarray(wanted) - self._low] = True
        self._integers, self._texts, self.rows = len(integers), len(texts), 0
        self._buffers: tuple[np.ndarray, ...] = ()

    def scan(self, block: np.ndarray, last: bool) -> Found:
        """Scans whole rows of a block.

        Args:
            block: (B,) uint8; begins at the begin of a row.
            last: no more bytes follow, so that a row without a line end is whole.
        """
        self._make_room(block.size)
        found, bad, rows, returns, consumed = _scan(block, last, self.rows, self._roles, self._slots, self._low,
                                                    self._wanted, *self._buffers)
        self.rows += rows
        row, key, integers, time, number, text, span = (buffer[:found].copy() for buffer in self._buffers[2:9])
        bad_row, bad_reason, bad_span = (buffer[:bad].copy() for buffer in self._buffers[9:])
        return Found(row, key, integers, time, number, text, span, bad_row, bad_reason, bad_span, rows, returns,
                     consumed)

    def _make_room(self, size: int) -> None:
        """Buffers for blocks of this size, kept from block to block: fresh memory costs as much as the scan."""
        if self._buffers and self._buffers[1].size >= size:
            return
        # The shortest row that can be read has a byte and a separator a field; one that cannot, a byte and a line end.
        room, bad_room = size // (2 * self._roles.size) + 2, size // 2 + 2
        self._buffers = (
            np.empty((size + 7) // 8 * 8, np.uint8), np.empty(size, np.int32), np.empty(room, np.int64),
            np.empty(room, np.int64), np.empty((room, self._integers), np.int64), np.empty(room, np.int64),
            np.empty(room), np.empty((room, self._texts), np.uint64), np.empty((room, self._texts, 2), np.int64),
            np.empty(bad_room, np.int64), np.empty(bad_room, np.int8), np.empty((bad_room, 2), np.int64))


def digest(text: str) -> int:
    """The digest of a text as `Found.text` holds it (FNV-1a, 64 bits, of its UTF-8 bytes)."""
    value = int(_FNV)
    for byte in text.encode():
        value = (value ^ byte) * int(_PRIME) % 2**64
    return value


@njit(nogil=True, cache=True)
def _separators(block, marks, places):
    """Where commas, line ends and quotes stand, and their number.

    Two passes: the first is a loop that becomes vector instructions, the second looks at eight bytes at once.
    """
    for place in range(block.size):
        byte = block[place]
        marks[place] = (byte == _COMMA) | (byte == _NEWLINE) | (byte == _QUOTE)
    for place in range(block.size, (block.size + 7) // 8 * 8):
        marks[place] = 0
    words = marks.view(np.uint64)
    count = 0
    for index in range((block.size + 7) // 8):
        word = words[index]
        while word:
            lowest = word & (~word + np.uint64(1))
            word ^= lowest
            place = index * 8
            if lowest & np.uint64(0xFFFFFFFF00000000):
                place += 4
                lowest >>= np.uint64(32)
            if lowest & np.uint64(0xFFFF0000):
                place += 2
                lowest >>= np.uint64(16)
            if lowest & np.uint64(0xFF00):
                place += 1
            places[count] = place
            count += 1
    return count


@njit(nogil=True, cache=True)
def _scan(block, last, row_before, roles, slots, low, wanted, marks, places, out_row, out_key, out_integers, out_time,
          out_number, out_text, out_span, bad_row, bad_reason, bad_span):
    size, columns = block.size, roles.size
    starts, ends = np.empty(columns + 1, np.int64), np.empty(columns + 1, np.int64)
    key_field = 0
    for field in range(columns):
        if roles[field] == _KEY:
            key_field = field
    count = _separators(block, marks, places)
    found, bad, rows, returns, begin, at = 0, 0, 0, 0, 0, 0
    while begin < size:
        plain = at + columns <= count and block[places[at + columns - 1]] == _NEWLINE
        if plain:
            for field in range(columns - 1):
                plain &= block[places[at + field]] == _COMMA
        if plain:
            fields, after = columns, at + columns
            line_end = np.int64(places[after - 1])
        else:
            fields, after, line_end = _fields(block, places, count, at, begin, last, starts, ends)
            if fields < 0:
                break
        follows = line_end + 1
        if line_end > begin and block[line_end - 1] == _RETURN:
            returns += 1
            line_end -= 1
        if line_end > begin:  # an empty line is no row
            reason, chosen, key = 0, False, np.int64(0)
            if fields != columns:
                reason = FIELDS
            else:
                if plain:
                    start = np.int64(places[at + key_field - 1]) + 1 if key_field else begin
                    stop = min(np.int64(places[at + key_field]), line_end)
                else:
                    start, stop = starts[key_field], min(ends[key_field], line_end)
                key = _integer(block, start, stop)
                if key == NO_INTEGER:
                    reason = KEY
                else:
                    chosen = key >= low and key - low < wanted.size and wanted[key - low]
            if chosen:
                if plain:
                    start = begin
                    for field in range(columns):
                        starts[field], ends[field] = start, min(np.int64(places[at + field]), line_end)
                        start = np.int64(places[at + field]) + 1
                else:
                    ends[columns - 1] = min(ends[columns - 1], line_end)
                reason = _take(block, roles, slots, starts, ends, found, out_integers, out_time, out_number, out_text,
                               out_span)
                if reason == 0:
                    out_row[found], out_key[found] = row_before + rows, key
                    found += 1
            if reason != 0:
                bad_row[bad], bad_reason[bad] = row_before + rows, reason
                bad_span[bad, 0], bad_span[bad, 1] = begin, line_end
                bad += 1
            rows += 1
        begin, at = follows, after
    return found, bad, rows, returns, min(begin, size)


@njit(nogil=True, cache=True)
def _fields(block, places, count, at, begin, last, starts, ends):
    """The fields of a row that holds quotes, or too many or too few fields; (-1, ...) if its end is not in the block.

    Returns:
        number of fields, the first separator after the row, where its line end stands.
    """
    size, field, start, inside = block.size, 0, begin, False
    while True:
        line_end = at >= count
        if line_end and (inside or not last):
            return -1, at, size
        place = np.int64(places[at]) if at < count else size
        if at < count:
            at += 1
            if block[place] == _QUOTE:
                # A quote opens at the begin of a field; a doubled one closes and opens again.
                if inside or place == start or block[place - 1] == _QUOTE:
                    inside = not inside
                continue
            if inside:
                continue
            line_end = block[place] == _NEWLINE
        if field < starts.size - 1:
            stop = place
            if line_end and stop > start and block[stop - 1] == _RETURN:
                stop -= 1
            if stop - start >= 2 and block[start] == _QUOTE and block[stop - 1] == _QUOTE:
                starts[field], ends[field] = start + 1, stop - 1
            else:
                starts[field], ends[field] = start, stop
        field += 1
        start = place + 1
        if line_end:
            return field, at, place


@njit(nogil=True, cache=True)
def _take(block, roles, slots, starts, ends, index, out_integers, out_time, out_number, out_text, out_span):
    """Parses the fields of one row; returns 0 or why it cannot be read."""
    for field in range(roles.size):
        role, slot, start, stop = roles[field], slots[field], starts[field], ends[field]
        if role == _INTEGER:
            out_integers[index, slot] = NO_INTEGER
            if stop > start:
                value = _integer(block, start, stop)
                if value == NO_INTEGER:
                    return INTEGER
                out_integers[index, slot] = value
        elif role == _TIME:
            out_time[index] = NO_TIME
            if stop > start:
                out_time[index] = _seconds(block, start, stop)
                if out_time[index] == NO_TIME:
                    return TIME
        elif role == _NUMBER:
            out_number[index] = np.nan
            if stop > start:
                value = _number(block, start, stop)
                if np.isnan(value):
                    return NUMBER
                out_number[index] = value
        elif role == _TEXT:
            value = _FNV
            for place in range(start, stop):
                value = (value ^ np.uint64(block[place])) * _PRIME
            out_text[index, slot] = value
            out_span[index, slot, 0], out_span[index, slot, 1] = start, stop
    return 0


@njit(nogil=True, cache=True)
def _integer(block, start, stop):
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
def _number(block, start, stop):
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
        exponent = _integer(block, place + 1, stop)
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
def _seconds(block, start, stop):
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
