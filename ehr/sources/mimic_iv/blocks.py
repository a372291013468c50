"""An event table as blocks of parsed rows of interest, whatever its file format.

In: a `layout.Table` and the items wanted. Out: `Rows`, some ten thousand at a time, in the file's order. Unpacking runs
in a thread of its own, blocks are scanned side by side; at most a few blocks are in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.errors import DataError
from ehr.sources.mimic_iv.layout import Table
from ehr.sources.mimic_iv.sieve import NO_INTEGER, NO_TIME, REASONS, Found, Sieve, digest
from ehr.sources.mimic_iv.unpacking import LONGEST_ROW, Block, Unpacker
from ehr.sources.places import seekable

# Blocks that are scanned or wait for it.
_AHEAD = 4
_SCANS = 2
IDENTIFIERS = ("subject_id", "hadm_id", "stay_id")
TEXTS = ("value", "valueuom")


@dataclass(frozen=True)
class Rows:
    """R rows of interest of one block.

    Attributes:
        item, subject, hadm, stay: (R,), NO_INTEGER where empty. time: (R,) seconds since 1970, NO_TIME where empty.
        number: (R,) NaN where empty. value, unit: (R,) digests of the texts.
        spelling: what a digest of this block stands for.
        row: (R,) rows of the file before it. rows: all rows of the block. returns: rows that end with CR LF.
        bad: (row, reason, text) of rows that cannot be read, the text cut to 200 characters.
        read: bytes of the packed file read so far.
    """

    item: np.ndarray
    subject: np.ndarray
    hadm: np.ndarray
    stay: np.ndarray
    time: np.ndarray
    number: np.ndarray
    value: np.ndarray
    unit: np.ndarray
    spelling: Callable[[int], str]
    row: np.ndarray
    rows: int
    returns: int
    bad: list[tuple[int, str, str]]
    read: int


def blocks(table: Table, wanted: list[int]) -> Iterator[Rows]:
    """Reads the table once, front to back.

    Raises:
        DataError: the file is truncated or damaged, has no row, changes while it is read, a quote never closes, or its
            times have a zone.
    """
    before = table.path.stat()
    source = _parquet(table, wanted) if table.format == "parquet" else _csv(table, wanted)
    total = 0
    for rows in source:
        total += rows.rows
        yield rows
    after = table.path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{table.path.name} changed while it was read", "an extract stands still while it is read",
                        "wait until it is copied, then run again")
    if not total:
        raise DataError(f"{table.path.name} has a header and no row", "a table has rows", "copy the file again")


def _csv(table: Table, wanted: list[int]) -> Iterator[Rows]:
    """Blocks are scanned side by side, each as if it began and ended with a row. Where one ends inside quotes after
    all, the next one is scanned again together with what it left."""
    integers = [name for name in IDENTIFIERS if name in table.columns]
    sieve = Sieve(table.columns, "itemid", wanted, integers, "charttime", "valuenum", TEXTS)
    left, before = b"", 0
    with Unpacker(table, _AHEAD + 2) as unpacker, closing(_scanned(unpacker, sieve)) as scanned:
        for found, block in scanned:
            data = block.data
            if left:
                data = np.frombuffer(bytearray(left) + data.tobytes(), np.uint8)
                found = sieve.scan(data, block.last)
            left = data[found.consumed:].tobytes()
            if len(left) > LONGEST_ROW or (left and block.last):
                raise DataError(f"{table.path.name}: a quote that opens after data row {before + found.rows} never "
                                "closes", "quotes come in pairs", "correct that row, or copy the file again")
            yield _rows(found, data, integers, before, block.read)
            before += found.rows
            unpacker.give_back(block)


def _scanned(unpacker: Unpacker, sieve: Sieve) -> Generator[tuple[Found, Block], None, None]:
    """What the sieve found in each block; in the file's order, a few blocks ahead."""
    waiting: deque[tuple[Future[Found], Block]] = deque()
    with ThreadPoolExecutor(_SCANS, "scan") as pool:
        try:
            for block in unpacker:
                waiting.append((pool.submit(sieve.scan, block.data, block.last), block))
                if len(waiting) > _AHEAD:
                    yield waiting[0][0].result(), waiting.popleft()[1]
            while waiting:
                yield waiting[0][0].result(), waiting.popleft()[1]
        finally:
            for found, _ in waiting:
                found.cancel()


def _rows(found: Found, data: np.ndarray, integers: list[str], before: int, read: int) -> Rows:
    columns = {name: found.integers[place] for place, name in enumerate(integers)}
    absent = np.full(found.key.size, NO_INTEGER)

    def text(span: np.ndarray) -> str:
        return data[span[0]:span[1]].tobytes().decode("utf-8", "replace")

    def spelling(code: int) -> str:
        slot, row = np.argwhere(found.text == np.uint64(code))[0]
        return text(found.span[slot, row]).replace('""', '"')

    bad = [(before + int(row), REASONS[int(reason)], text(span)[:200])
           for row, reason, span in zip(found.bad_row, found.bad_reason, found.bad_span, strict=True)]
    subject, hadm, stay = (columns.get(name, absent) for name in IDENTIFIERS)
    return Rows(found.key, subject, hadm, stay, found.time, found.number, found.text[0], found.text[1], spelling,
                found.row + before, found.rows, found.returns, bad, read)


def _parquet(table: Table, wanted: list[int]) -> Iterator[Rows]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [name for name in (*IDENTIFIERS, "charttime", "itemid", "valuenum", *TEXTS) if name in table.columns]
    size, done = table.path.stat().st_size, 0
    try:
        file = pq.ParquetFile(seekable(table.path))
        _check_zone(table, file.schema_arrow.field("charttime").type)
        total = file.metadata.num_rows
        for batch in file.iter_batches(batch_size=1 << 18, columns=names):
            rows, before = batch.num_rows, done
            done += rows
            chosen = pc.is_in(batch["itemid"].cast(pa.int64()), value_set=pa.array(wanted, pa.int64()))
            place = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
            yield _from_arrow(pa.Table.from_batches([batch.take(pa.array(place))]), place + before, rows,
                              size * done // max(total, 1))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise DataError(f"{table.path.name}: {str(error).splitlines()[0]}",
                        "a whole parquet file with the types of MIMIC-IV", "write it again") from error


def _check_zone(table: Table, kind: Any) -> None:
    """Times with a zone would be read as those of UTC, hours away from the stays that they belong to."""
    zone = getattr(kind, "tz", None)
    if zone is not None:
        raise DataError(f"{table.path.name}: charttime has the zone {zone}",
                        "times are those of the hospital's clock, as in the other tables",
                        "write local times without zone")


def _from_arrow(rows: Any, place: np.ndarray, count: int, read: int) -> Rows:
    import pyarrow as pa
    import pyarrow.compute as pc

    def numbers(name: str, kind: Any, empty: Any) -> np.ndarray:
        if name not in rows.column_names:
            return np.full(rows.num_rows, empty)
        values: np.ndarray = pc.fill_null(rows[name].cast(kind), empty).to_numpy()
        return values

    spellings: dict[int, str] = {}

    def texts(name: str) -> np.ndarray:
        words = pc.fill_null(rows[name].cast(pa.string()), "").combine_chunks().dictionary_encode()
        known = words.dictionary.to_pylist()
        codes = np.array([digest(word) for word in known], dtype=np.uint64)
        spellings.update(zip(codes.tolist(), known, strict=True))
        return codes[words.indices.to_numpy()] if known else np.empty(0, np.uint64)

    when = rows["charttime"]
    when = when.cast(pa.timestamp("s"), safe=False) if not pa.types.is_string(when.type) else pc.strptime(
        when, "%Y-%m-%d %H:%M:%S", "s")
    seconds = pc.fill_null(when.cast(pa.int64()), int(NO_TIME)).to_numpy()
    subject, hadm, stay = (numbers(name, pa.int64(), int(NO_INTEGER)) for name in IDENTIFIERS)
    return Rows(numbers("itemid", pa.int64(), 0), subject, hadm, stay, seconds,
                numbers("valuenum", pa.float64(), float("nan")), texts("value"), texts("valueuom"),
                spellings.__getitem__, place, count, 0, [], read)
