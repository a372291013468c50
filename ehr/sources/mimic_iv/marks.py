"""Where commas, line ends and quotes stand in a block of bytes, as bits of 64-bit words.

Sixty-four bytes are compared at once; from then on a row is a few machine words (the way of simdjson: Langdale and
Lemire 2019). Compiled; in: a block (B,) uint8. Out: (4, B // 64 + 2) words: of
commas, line ends and quotes, and how many commas stand before each word.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

QUOTE, _COMMA, _NEWLINE = 34, 44, 10
WORD = 64
_FULL = np.uint64(2**64 - 1)


@intrinsic
def _ones(_context, word):  # noqa: ARG001 - an intrinsic gets types here, values in what it generates
    """How many bits of a word are set."""
    return types.uint64(types.uint64), lambda _c, builder, _s, values: builder.ctpop(values[0])


@intrinsic
def _lowest(_context, word):  # noqa: ARG001
    """Where the lowest bit that is set stands in a word that has one."""
    return types.uint64(types.uint64), lambda _c, builder, _s, values: builder.cttz(values[0], ir.Constant(
        ir.IntType(1), 1))


@intrinsic
def _matches(_context, block, place, byte):  # noqa: ARG001
    """64 bytes of the block from `place` on, each a bit: is it `byte`?"""
    def generate(context, builder, signature, values):
        array = context.make_array(signature.args[0])(context, builder, values[0])
        bytes_, bits = ir.VectorType(ir.IntType(8), WORD), ir.VectorType(ir.IntType(32), WORD)
        at = builder.bitcast(builder.gep(array.data, [values[1]]), bytes_.as_pointer())
        read = builder.load(at)
        read.align = 1
        one = builder.insert_element(ir.Constant(bytes_, ir.Undefined), values[2], ir.Constant(ir.IntType(32), 0))
        same = builder.shuffle_vector(one, ir.Constant(bytes_, ir.Undefined), ir.Constant(bits, [0] * WORD))
        return builder.bitcast(builder.icmp_unsigned("==", read, same), ir.IntType(64))
    return types.uint64(block, types.int64, types.uint8), generate


@njit(nogil=True, cache=True)
def _within(quotes):
    """Bits from each odd quote on up to the next even one, which is left out (the parity of the quotes so far)."""
    for step in (1, 2, 4, 8, 16, 32):
        quotes ^= quotes << np.uint64(step)
    return quotes


@njit(nogil=True, cache=True)
def mark(block, marks, blind):
    """Bits of commas and line ends outside of quotes, and of quotes.

    Args:
        blind: mark commas and line ends wherever they stand.

    Returns:
        1 where the block ends inside quotes, -1 where a quote stands inside of a field that does not begin with one
        (then what is inside of quotes is not to be had this way), else 0.
    """
    inside, before, stray, total = np.uint64(0), np.uint64(1), np.uint64(0), np.uint64(0)
    rest = np.zeros(WORD, np.uint8)
    whole = block.size // WORD
    rest[:block.size - whole * WORD] = block[whole * WORD:]
    for word in range(whole + 1):
        if word < whole:
            commas = _matches(block, word * WORD, np.uint8(_COMMA))
            lines = _matches(block, word * WORD, np.uint8(_NEWLINE))
            quotes = _matches(block, word * WORD, np.uint8(QUOTE))
        else:
            commas = _matches(rest, 0, np.uint8(_COMMA))
            lines = _matches(rest, 0, np.uint8(_NEWLINE))
            quotes = _matches(rest, 0, np.uint8(QUOTE))
        ends = commas | lines | quotes
        if (quotes | inside) and not blind:
            within = _within(quotes) ^ inside
            # A quote opens at the begin of a field; a doubled one closes and opens again.
            stray |= quotes & within & ~((ends << np.uint64(1)) | before)
            inside = _FULL if within >> np.uint64(63) else np.uint64(0)
            commas &= ~within
            lines &= ~within
        before = ends >> np.uint64(63)
        marks[0, word], marks[1, word], marks[2, word], marks[3, word] = commas, lines, quotes, total
        total += _ones(commas)
    marks[3, whole + 1] = total
    return -1 if stray else np.int64(inside & np.uint64(1))


@njit(nogil=True, cache=True)
def first(marks, place, size):
    """Where the first mark at or behind a place stands; `size` if there is none."""
    word = place >> 6
    bits = marks[word] & (_FULL << np.uint64(place & 63))
    while not bits:
        word += 1
        if word << 6 >= size:
            return size
        bits = marks[word]
    return (word << 6) + np.int64(_lowest(bits))


@njit(nogil=True, cache=True)
def count(marks, begin, end):
    """Marks from `begin` on and before `end`."""
    word, last = begin >> 6, end >> 6
    bits = marks[word] & (_FULL << np.uint64(begin & 63))
    total = np.int64(0)
    while word < last:
        total += np.int64(_ones(bits))
        word += 1
        bits = marks[word]
    return total + np.int64(_ones(bits & ~(_FULL << np.uint64(end & 63))))


@njit(nogil=True, cache=True)
def before(marks, totals, place):
    """Marks before a place."""
    word = place >> 6
    return np.int64(totals[word] + _ones(marks[word] & ~(_FULL << np.uint64(place & 63))))


@njit(nogil=True, cache=True)
def nth(marks, totals, place, number):
    """Where the mark stands before which there are `number` others in the block, at or behind a place; it is there."""
    word = place >> 6
    while np.int64(totals[word + 1]) <= number:
        word += 1
    bits = marks[word]
    for _ in range(number - np.int64(totals[word])):
        bits &= bits - np.uint64(1)
    return (word << 6) + np.int64(_lowest(bits))
