"""What logs, terminals and pages get to see: no secret, no row, no forged line."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DataError
from contracts.redaction import (
    HIDDEN,
    WITHHELD,
    one_line,
    printable,
    quotes_values,
    redact_logs,
    redacted,
    secrets_of,
    traceback_without_rows,
)

ROW = f"4711 {'Jane'} {'Doe'}"  # put together, so that no line of this file quotes it in a traceback


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger whose output is `logger.handlers[0].stream`, in a process whose logs are redacted."""
    before = logging.getLogRecordFactory()
    redact_logs()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    yield logger
    logging.setLogRecordFactory(before)


def written(logger: logging.Logger) -> str:
    return logger.handlers[0].stream.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("text", "secret"), [
    ("Authorization: Bearer abc.def-123456", "abc.def-123456"),
    ("retry with api_key='s3cr3t-value-9'", "s3cr3t-value-9"),
    ('{"token": "0123456789abcdef"}', "0123456789abcdef"),
    ("postgresql://mlflow:p4ssw0rd!@db/mlflow", "p4ssw0rd!"),
    ("PREFECT_API_AUTH_STRING=admin:hunter22", "hunter22"),
    ("VLLM_API_KEY=aaaabbbbccccdddd and more", "aaaabbbbccccdddd"),
])
def test_what_looks_like_a_secret_is_hidden(text: str, secret: str) -> None:
    shown = redacted(text, ())
    assert secret not in shown and HIDDEN in shown
    assert redacted(shown, ()) == shown


def test_plain_words_stay_as_they_are() -> None:
    text = "the token risk of 812 tokens is 0.42; http://127.0.0.1:4200/api; completion_tokens=256; password: ab"
    assert redacted(text, ()) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAG_RL_API_KEY", "correct-horse-battery")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-and-long-enough")
    assert {"correct-horse-battery", "hf_abcdefgh"} <= set(secrets_of())
    assert "false-and-long-enough" not in secrets_of()
    assert redacted("x correct-horse-battery y hf_abcdefgh") == f"x {HIDDEN} y {HIDDEN}"


@given(st.text(st.characters(exclude_categories=())))
def test_no_sign_that_acts_survives_and_nothing_else_is_touched(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1 and "\x1b" not in line and "\u202e" not in line
    assert line.isprintable() or any(not sign.isprintable() and sign not in text for sign in line) \
        or all(sign.isprintable() or sign in "\u00a0" or not sign.isascii() for sign in line)
    if text.isascii() and text.isprintable():
        assert printable(text) == line == text


def test_a_line_break_in_a_name_forges_no_line_of_the_log(logger: logging.Logger) -> None:
    logger.warning("unknown feature %s", "pH\n2026-01-01 INFO all is well\x1b[2J\u202e")
    assert written(logger) == "unknown feature pH\\n2026-01-01 INFO all is well\\x1b[2J\\u202e\n"


def test_a_traceback_says_where_and_what_but_no_row(logger: logging.Logger) -> None:
    try:
        pl.Series([ROW]).cast(pl.Int32)
    except pl.exceptions.PolarsError:
        logger.exception("reading failed")
    text = written(logger)
    assert "reading failed" in text and "InvalidOperationError" in text and WITHHELD in text
    assert "Jane" not in text and "test_redaction.py" in text


def test_records_that_need_no_redaction_keep_their_arguments(logger: logging.Logger) -> None:
    record = logger.makeRecord("a", logging.INFO, "f", 1, "%s of %d", ("x", 3), None)
    assert record.args == ("x", 3) and record.getMessage() == "x of 3"


def test_rows_are_withheld_from_every_link_of_a_chain_and_our_own_words_are_not() -> None:
    try:
        try:
            pl.Series([ROW]).cast(pl.Int32)
        except pl.exceptions.PolarsError as error:
            raise DataError("column age", "numbers", "correct the file") from error
    except DataError as error:
        text = traceback_without_rows(error)
    assert "Jane" not in text and "column age | rule: numbers" in text
    assert not quotes_values(ValueError("x")) and quotes_values(pl.exceptions.ComputeError("x"))


def test_every_logger_of_a_process_is_covered_also_of_handlers_made_before() -> None:
    code = ("import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
            "from contracts.redaction import redact_logs\nredact_logs(); redact_logs()\n"
            "logging.getLogger('prefect.x').error('Bearer %s\\nx', 'abcdefghij')\nlogging.error('%d', 'no number')")
    answer = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True,
                            check=False)
    assert answer.stdout.splitlines() == [f"Bearer {HIDDEN}\\nx"] and "TypeError" in answer.stderr
