"""Files: tables that are written piece by piece, as csv.gz, csv or parquet, and their checksums.

In: frames with the columns of a layout, at any number of rows. Out: one file a table. Nothing in a file tells when it
was made: equal rows give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from contracts.errors import ConfigError
from ehr.extracts.charting import short
from ehr.extracts.layouts import Schema

FORMATS = ("csv.gz", "csv", "parquet")
CHECKSUMS = "SHA256SUMS.txt"
_LEVEL = 1


class Table(Protocol):
    """A table that is being written."""

    def write(self, rows: pl.DataFrame) -> None:
        """Adds rows; columns that the table does not have are left out."""

    def close(self) -> None:
        """Ends the file."""


def open_table(path: Path, schema: Schema, file_format: str) -> Table:
    """Opens `path` + "." + `file_format` for writing.

    Raises:
        ConfigError: no such format.
    """
    if file_format not in FORMATS:
        raise ConfigError(f"format {file_format!r}", f"one of {', '.join(FORMATS)}", "choose one of them with --format")
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(f"{path.name}.{file_format}")
    return _Parquet(path, schema) if file_format == "parquet" else _Csv(path, schema)


def write_parquet(rows: pl.DataFrame, path: Path) -> None:
    """Writes a whole frame."""
    with closing(_Parquet(path, rows.schema)) as table:
        table.write(rows)


def write_checksums(folder: Path) -> None:
    """Writes SHA256SUMS.txt of all files in a folder, in PhysioNet's form: digest, blank, path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = []
    for path in files:
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()} {path.relative_to(folder).as_posix()}\n")
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _ordered(rows: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())


class _Csv:
    """Text as in MIMIC-IV: numbers as short as they can be, nothing for null, quotes only where needed."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.schema, self.raw = schema, path.open("wb")
        self.packed: BinaryIO = self.raw
        if path.suffix == ".gz":
            self.packed = cast(BinaryIO, igzip.IGzipFile("", "wb", _LEVEL, fileobj=self.raw, mtime=0))
        self.packed.write((",".join(schema) + "\n").encode())

    def write(self, rows: pl.DataFrame) -> None:
        """See `Table`."""
        buffer = io.BytesIO()
        text = _ordered(rows, self.schema).with_columns(short(cs.float()))
        text.write_csv(buffer, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S", date_format="%Y-%m-%d")
        self.packed.write(buffer.getbuffer())

    def close(self) -> None:
        """See `Table`."""
        self.packed.close()
        self.raw.close()


class _Parquet:
    """A row group for each piece."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.schema = schema
        arrow = self._arrow(pl.DataFrame(schema=dict(schema))).schema
        self.file = pq.ParquetWriter(path, arrow, compression="zstd")

    def write(self, rows: pl.DataFrame) -> None:
        """See `Table`."""
        if rows.height:
            self.file.write_table(self._arrow(rows))

    def _arrow(self, rows: pl.DataFrame) -> pa.Table:
        return _ordered(rows, self.schema).to_arrow(compat_level=pl.CompatLevel.oldest())

    def close(self) -> None:
        """See `Table`."""
        self.file.close()
