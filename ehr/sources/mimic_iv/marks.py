"""Where commas and line ends stand in a block of bytes, and in which 64 bytes there are quotes.

Sixty-four bytes are compared at once, and the places are written down without asking how many there are (the way of
simdjson: Langdale and Lemire 2019): a branch that cannot be foretold costs as much as ten places. Compiled.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

QUOTE, _COMMA, _NEWLINE = 34, 44, 10
WORD = 64
AT_ONCE = 8
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
def _places(bits, base, out, filled):
    """Writes where the bits of a word stand; returns how many places there are now. Some are written in advance.

    All unsigned: of a signed index it would be asked each time whether it counts from the end.
    """
    end = filled + _ones(bits)
    for place in range(AT_ONCE):
        out[filled + np.uint64(place)] = base + np.uint32(_lowest(bits))
        bits &= bits - np.uint64(1)
    filled += np.uint64(AT_ONCE)
    while filled < end:
        out[filled] = base + np.uint32(_lowest(bits))
        bits &= bits - np.uint64(1)
        filled += np.uint64(1)
    return end


@njit(nogil=True, cache=True)
def mark(block, commas, lines, quotes, blind, columns):
    """Places of commas and line ends outside of quotes.

    Args:
        block: (B,) uint8.
        commas, lines: uint32 buffers for B + WORD places and the columns; the size of the block stands behind them.
        quotes: (B // 64 + 1,) buffer for the bits of quotes.
        blind: mark commas and line ends wherever they stand.
        columns: how many commas may be asked for behind the last one.

    Returns:
        How many commas, and 1 where the block ends inside quotes, -1 where a quote stands inside of a field that does
        not begin with one (then what is inside of quotes is not to be had this way), else 0.
    """
    inside, before, stray = np.uint64(0), np.uint64(1), np.uint64(0)
    rest = np.zeros(WORD, np.uint8)
    whole = block.size // WORD
    rest[:block.size - whole * WORD] = block[whole * WORD:]
    found, rows, one = np.uint64(0), np.uint64(0), np.uint64(1)
    for word in range(whole + 1):
        if word < whole:
            comma = _matches(block, word * WORD, np.uint8(_COMMA))
            line = _matches(block, word * WORD, np.uint8(_NEWLINE))
            quote = _matches(block, word * WORD, np.uint8(QUOTE))
        else:
            comma = _matches(rest, 0, np.uint8(_COMMA))
            line = _matches(rest, 0, np.uint8(_NEWLINE))
            quote = _matches(rest, 0, np.uint8(QUOTE))
        ends = comma | line | quote
        quotes[word] = quote
        if (quote | inside) and not blind:
            within = _within(quote) ^ inside
            # A quote opens at the begin of a field; a doubled one closes and opens again.
            stray |= quote & within & ~((ends << np.uint64(1)) | before)
            inside = _FULL if within >> np.uint64(63) else np.uint64(0)
            comma &= ~within
            line &= ~within
        before = ends >> np.uint64(63)
        base = np.uint32(word * WORD)
        found = _places(comma, base, commas, found)
        # Most words have one line end or none.
        lines[rows] = base + np.uint32(_lowest(line))
        more = line & (line - one)
        rows += np.uint64(line != np.uint64(0))
        while more:
            lines[rows] = base + np.uint32(_lowest(more))
            more &= more - one
            rows += one
    commas[np.int64(found):np.int64(found) + columns] = block.size
    lines[rows] = block.size
    return np.int64(found), -1 if stray else np.int64(inside & np.uint64(1))


@njit(nogil=True, cache=True)
def any_of(marks, begin, end):
    """Is there a mark from `begin` on and before `end`?"""
    word, last = begin >> 6, end >> 6
    bits = marks[word] & (_FULL << np.uint64(begin & 63))
    while word < last:
        if bits:
            return True
        word += 1
        bits = marks[word]
    return (bits & ~(_FULL << np.uint64(end & 63))) != np.uint64(0)
