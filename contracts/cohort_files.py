"""Files of a finished cohort folder, read with an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from contracts.errors import ArtifactError

FILLED = "filled.parquet"  # the visits after LOCF
FIRST = "first.parquet"  # the first day of each stay, as it was before the window merged any days


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ArtifactError: the file is missing, no JSON, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is no JSON ({error})", "a JSON object", "recompute the cohort") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} holds a {type(values).__name__}", "a JSON object", "recompute the cohort")
    return values


def read_frame(path: Path) -> pl.DataFrame:
    """The rows of a parquet file.

    Raises:
        ArtifactError: the file is missing or cannot be read.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({str(error).splitlines()[0]})", "a parquet file",
                            "recompute the cohort") from error


def _missing(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} does not exist", "a finished cohort folder", "run `eag-rl cohort`")
