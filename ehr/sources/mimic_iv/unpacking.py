"""A large file as blocks of whole lines, unpacked in a thread of its own into a few buffers that are used in turn.

In: a `layout.Table`, csv or csv.gz. Out: `Block`s in the file's order, without the header; who has worked on one gives
it back. Fresh memory for each block would cost a third of the time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from contracts.errors import DataError
from ehr.sources.mimic_iv.layout import Table

BLOCK = 4 << 20
# A row that is longer than this is a quote that was never closed.
LONGEST_ROW = 64 << 20
_PACKED = 1 << 20


@dataclass(frozen=True)
class Block:
    """Some lines.

    Attributes:
        data: (B,) uint8; ends with a line end, or with the file.
        read: bytes of the packed file read so far. last: is it the file's last?
    """

    data: np.ndarray
    read: int
    last: bool
    buffer: bytearray = field(repr=False)


class Unpacker:
    """Unpacks while it is open.

    Args:
        buffers: how many blocks may be out at once, and one more.
    """

    def __init__(self, table: Table, buffers: int) -> None:
        self._table, self._stop = table, threading.Event()
        self._free: queue.Queue[bytearray] = queue.Queue()
        for _ in range(buffers + 1):
            self._free.put(bytearray(BLOCK))
        self._blocks: queue.Queue[Block | Exception] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name=f"unpack {table.name}", daemon=True)

    def __enter__(self) -> Unpacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._free.put(bytearray())  # wakes a thread that waits for one
        self._thread.join()

    def __iter__(self) -> Iterator[Block]:
        """All blocks.

        Raises:
            DataError: the file is truncated or damaged, or a line does not end.
        """
        while True:
            block = self._blocks.get()
            if isinstance(block, Exception):
                raise _damaged(self._table, block) from block
            yield block
            if block.last:
                return

    def give_back(self, block: Block) -> None:
        """Nobody looks at the block any more."""
        self._free.put(block.buffer)

    def _work(self) -> None:
        try:
            with self._table.path.open("rb") as packed:
                self._unpack(packed, _stream(packed, self._table.format))
        except Exception as error:  # noqa: BLE001 - it is raised again in the thread that reads
            self._blocks.put(error)

    def _unpack(self, packed: BinaryIO, stream: Any) -> None:
        left, header, last = b"", True, False
        while not last:
            buffer = self._free.get()
            if self._stop.is_set():
                return
            if len(buffer) < len(left) + BLOCK:
                buffer = bytearray(len(left) + BLOCK)
            buffer[:len(left)] = left
            filled = _fill(stream, buffer, len(left))
            last = filled < len(buffer)
            begin = buffer.find(b"\n", 0, filled) + 1 if header else 0
            if header and last and not begin:
                begin = filled
            end = filled if last else buffer.rfind(b"\n", 0, filled) + 1
            left, header = bytes(buffer[end:filled]), header and not begin
            if len(left) > LONGEST_ROW:
                raise DataError(f"{self._table.path.name}: no line end in {LONGEST_ROW >> 20} MiB",
                                "rows end with LF or CR LF", "copy the file again, as text with such line ends")
            data = np.frombuffer(buffer, np.uint8)[min(begin, end):end]
            self._blocks.put(Block(data, packed.tell(), last, buffer))


def _fill(stream: Any, buffer: bytearray, filled: int) -> int:
    """Reads until the buffer is full or the file ends; returns how full it is."""
    with memoryview(buffer) as view:
        while filled < len(buffer):
            count = stream.readinto(view[filled:])
            if not count:
                break
            filled += count
    return filled


def _stream(packed: BinaryIO, kind: str) -> Any:
    if kind == "csv":
        return packed
    from isal import igzip
    # What stands below IGzipFile: the file object itself would copy what is read into a buffer.
    return igzip._GzipReader(packed, _PACKED)


def _damaged(table: Table, error: Exception) -> Exception:
    if isinstance(error, EOFError | OSError) or type(error).__name__ in ("IsalError", "error", "BadGzipFile"):
        return DataError(f"{table.path.name} is truncated or damaged: {error}", "a whole gzip file",
                         "copy it again and compare its checksum with SHA256SUMS.txt")
    return error
