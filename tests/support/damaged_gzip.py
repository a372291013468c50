"""A packed file whose beginning is sound and whose deflate stream is not: what a disk or a wire does to its middle."""

from __future__ import annotations

import gzip
import zlib

_NO_BLOCK = b"\x07"  # a last block of the type 3, which deflate (RFC 1951, 3.2.3) does not have


def damaged_gzip(text: bytes) -> bytes:
    """`text` as gzip that can be read to its end but for the last block: there zlib itself gives up."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = gzip.compress(b"")[:10]
    return head + packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH) + _NO_BLOCK + b"\0" * 64
