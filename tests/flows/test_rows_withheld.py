"""Errors of a stage on their way to Prefect: libraries that quote rows lose their message, ours and bugs keep it."""

from __future__ import annotations

import polars as pl
import pytest

from contracts.errors import ContractError, DataError
from tasks.stage import _rows_withheld

ROW = f"4711 {'Jane'} {'Doe'}"


def test_an_error_that_quotes_a_row_says_kind_and_place_only() -> None:
    with pytest.raises(DataError) as caught, _rows_withheld("cohort"):
        pl.Series([ROW]).cast(pl.Int32)
    assert "InvalidOperationError in stage cohort" in caught.value.value
    assert "test_rows_withheld.py" in caught.value.value and "test_rows_withheld.py" in caught.value.next_step
    assert "Jane" not in str(caught.value) and caught.value.__cause__ is None and caught.value.__suppress_context__


def test_our_own_errors_and_bugs_pass_as_they_are() -> None:
    with pytest.raises(ContractError, match="a \\| rule"), _rows_withheld("cohort"):
        raise ContractError("a", "b", "c")
    with pytest.raises(ZeroDivisionError), _rows_withheld("cohort"):
        print(1 / 0)
