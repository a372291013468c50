"""The CSV sieve: reads a huge CSV file once, keeps the rows of interest, parses nothing else.

In: blocks of bytes of a CSV file with a header (RFC 4180: fields may be quoted, quotes doubled, a quoted field may hold
line ends). Out: for each row whose key is wanted its integers, time and number, the digests of its texts, and where it
stands in the block; and for each row that cannot be read its place and the reason. Nine of ten rows of MIMIC-IV's
chartevents are of no interest: of those only the key is looked at and the fields are counted.

The scan is compiled (numba) and runs without the GIL, so that unpacking and scanning overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from ehr.sources.mimic_iv.fields import NO_INTEGER, NO_TIME, integer_of, number_of, seconds_of
from ehr.sources.mimic_iv.marks import QUOTE, WORD, any_of, mark

# Why a row could not be read.
FIELDS, INTEGER, TIME, NUMBER, KEY = 1, 2, 3, 4, 5
REASONS = {FIELDS: "another number of fields than the header", INTEGER: "an identifier that is no whole number",
           TIME: "a time that is no YYYY-MM-DD HH:MM:SS", NUMBER: "a number that cannot be read",
           KEY: "an item that is no whole number"}
_SKIP, _KEY, _INTEGER, _TIME, _NUMBER, _TEXT = 0, 1, 2, 3, 4, 5
_COMMA, _NEWLINE, _RETURN = 44, 10, 13
_FNV, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
# Digest of an empty field.
EMPTY = _FNV


@dataclass(frozen=True)
class Found:
    """R rows of one block.

    Attributes:
        row: (R,) how many rows of the block stand before it.
        key: (R,). integers: (I, R), NO_INTEGER where empty. time: (R,) seconds since 1970, NO_TIME where empty.
        number: (R,) NaN where empty. text: (X, R) digests, EMPTY where empty. span: (X, R, 2) their bytes in the block.
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
    """One file's sieve; several threads may scan blocks of it at once.

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
        self._integers, self._texts = len(integers), len(texts)
        self._own = threading.local()

    def scan(self, block: np.ndarray, last: bool) -> Found:
        """Scans whole rows of a block.

        Args:
            block: (B,) uint8; begins at the begin of a row.
            last: no more bytes follow, so that a row without a line end is whole.
        """
        buffers = self._room(block.size)
        found, bad, rows, returns, consumed = _scan(block, last, self._roles, self._slots, self._low, self._wanted,
                                                    *buffers)
        row, key, time, number = (buffer[:found].copy() for buffer in buffers[3:7])
        integers, text, span = (buffer[:, :found].copy() for buffer in buffers[7:10])
        bad_row, bad_reason, bad_span = (buffer[:bad].copy() for buffer in buffers[10:])
        return Found(row, key, integers, time, number, text, span, bad_row, bad_reason, bad_span, rows, returns,
                     consumed)

    def _room(self, size: int) -> tuple[np.ndarray, ...]:
        """This thread's buffers for blocks of this size, kept from block to block: fresh memory costs as much as the
        scan."""
        kept: tuple[np.ndarray, ...] | None = getattr(self._own, "buffers", None)
        if kept is not None and self._own.size >= size:
            return kept
        self._own.size = size = size + size // 4
        # All fields but the key may be empty: the shortest row that can be read has its commas and one byte; one that
        # cannot, a byte and a line end.
        room, bad_room = size // self._roles.size + 2, size // 2 + 2
        places = size + WORD + self._roles.size
        self._own.buffers = buffers = (
            np.empty(places, np.uint32), np.empty(places, np.uint32),
            np.empty(size // WORD + 2, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64),
            np.empty(room, np.int64), np.empty(room), np.empty((self._integers, room), np.int64),
            np.empty((self._texts, room), np.uint64), np.empty((self._texts, room, 2), np.int64),
            np.empty(bad_room, np.int64), np.empty(bad_room, np.int8), np.empty((bad_room, 2), np.int64))
        return buffers


def digest(text: str) -> int:
    """The digest of a text as `Found.text` holds it (FNV-1a, 64 bits, of its UTF-8 bytes)."""
    value = int(_FNV)
    for byte in text.encode():
        value = (value ^ byte) * int(_PRIME) % 2**64
    return value


@njit(nogil=True, cache=True)
def _scan(block, last, roles, slots, low, wanted, commas, lines, quotes, out_row, out_key, out_time, out_number,
          out_integers, out_text, out_span, bad_row, bad_reason, bad_span):
    size, columns = block.size, roles.size
    starts, ends = np.empty(columns + 1, np.int64), np.empty(columns + 1, np.int64)
    day = np.zeros(3, np.int64)
    key_field = 0
    for field in range(columns):
        if roles[field] == _KEY:
            key_field = field
    all_commas, open_end = mark(block, commas, lines, quotes, False, columns)
    stray = open_end < 0
    if stray:
        all_commas, open_end = mark(block, commas, lines, quotes, True, columns)
    found, bad, rows, returns, begin, line, comma = 0, 0, 0, 0, 0, 0, 0
    while begin < size:
        if stray:  # a row with quotes may end behind line ends and commas that are marked
            while lines[line] < begin:
                line += 1
            while commas[comma] < begin:
                comma += 1
        line_end = np.int64(lines[line])
        careful = stray and any_of(quotes, begin, line_end)
        if careful:
            fields, line_end = _fields(block, begin, last, starts, ends)
            if fields < 0:
                break
        elif line_end == size and (open_end or not last):
            break
        else:
            # As many commas as there should be, and the next one in another row.
            whole = (columns == 1 or commas[comma + columns - 2] < line_end) and commas[comma + columns - 1] >= line_end
            fields = columns if whole else 0
        follows = line_end + 1
        if line_end > begin and block[line_end - 1] == _RETURN:
            returns += 1
            line_end -= 1
        if line_end > begin:  # an empty line is no row
            reason, chosen, key = 0, False, np.int64(0)
            if fields != columns:
                reason = FIELDS
            else:
                if careful:
                    start, stop = starts[key_field], min(ends[key_field], line_end)
                else:
                    start = np.int64(commas[comma + key_field - 1]) + 1 if key_field else begin
                    stop = min(np.int64(commas[comma + key_field]), line_end)
                    if start < stop and block[start] == QUOTE:
                        start, stop = _bare(block, start, stop)
                key = integer_of(block, start, stop)
                if key == NO_INTEGER:
                    reason = KEY
                else:
                    chosen = key >= low and key - low < wanted.size and wanted[key - low]
            if chosen:
                if not careful:
                    _cut(block, commas, comma, begin, line_end, starts, ends)
                ends[columns - 1] = min(ends[columns - 1], line_end)
                reason = _take(block, roles, slots, starts, ends, found, out_integers, out_time, out_number, out_text,
                               out_span, day)
                if reason == 0:
                    out_row[found], out_key[found] = rows, key
                    found += 1
            if reason != 0:
                bad_row[bad], bad_reason[bad] = rows, reason
                bad_span[bad, 0], bad_span[bad, 1] = begin, line_end
                bad += 1
            rows += 1
        begin = follows
        if not stray:
            line += 1
            if fields == columns:
                comma += columns - 1
            else:
                while comma < all_commas and commas[comma] < begin:
                    comma += 1
    return found, bad, rows, returns, min(begin, size)


@njit(nogil=True, cache=True)
def _bare(block, start, stop):
    """A field without the quotes around it."""
    if stop - start >= 2 and block[start] == QUOTE and block[stop - 1] == QUOTE:
        return start + 1, stop - 1
    return start, stop


@njit(nogil=True, cache=True)
def _cut(block, commas, comma, begin, line_end, starts, ends):
    """Begin and end of each field of a row that has as many as it should; `comma` is the first one of the row."""
    last, start = starts.size - 2, begin
    for field in range(last + 1):
        stop = np.int64(commas[comma + field]) if field < last else line_end
        starts[field], ends[field] = _bare(block, start, stop)
        start = stop + 1


@njit(nogil=True, cache=True)
def _fields(block, begin, last, starts, ends):
    """The fields of a row that holds quotes, byte by byte; (-1, ...) if its end is not in the block.

    Returns:
        number of fields, and where its line end stands.
    """
    size, field, start, inside, place = block.size, 0, begin, False, begin
    opens = True  # would a quote here open? At the begin of a field, and behind one that closes (then it was doubled).
    while True:
        line_end = place >= size
        if line_end and (inside or not last):
            return -1, size
        if not line_end:
            byte = block[place]
            if byte == QUOTE:
                inside = opens and not inside
                place += 1
                continue
            if inside or (byte != _COMMA and byte != _NEWLINE):
                opens = inside
                place += 1
                continue
            line_end = byte == _NEWLINE
        if field < starts.size - 1:
            stop = place
            if line_end and stop > start and block[stop - 1] == _RETURN:
                stop -= 1
            starts[field], ends[field] = _bare(block, start, stop)
        field += 1
        if line_end:
            return field, place
        place += 1
        start, opens = place, True


@njit(nogil=True, cache=True)
def _take(block, roles, slots, starts, ends, index, out_integers, out_time, out_number, out_text, out_span, day):
    """Parses the fields of one row; returns 0 or why it cannot be read."""
    for field in range(roles.size):
        role, slot, start, stop = roles[field], slots[field], starts[field], ends[field]
        if role == _INTEGER:
            out_integers[slot, index] = NO_INTEGER
            if stop > start:
                value = integer_of(block, start, stop)
                if value == NO_INTEGER:
                    return INTEGER
                out_integers[slot, index] = value
        elif role == _TIME:
            out_time[index] = NO_TIME
            if stop > start:
                out_time[index] = seconds_of(block, start, stop, day)
                if out_time[index] == NO_TIME:
                    return TIME
        elif role == _NUMBER:
            out_number[index] = np.nan
            if stop > start:
                value = number_of(block, start, stop)
                if np.isnan(value):
                    return NUMBER
                out_number[index] = value
        elif role == _TEXT:
            value = _FNV
            for place in range(start, stop):
                value = (value ^ np.uint64(block[place])) * _PRIME
            out_text[slot, index] = value
            out_span[slot, index, 0], out_span[slot, index, 1] = start, stop
    return 0
