"""Tokens: made once and kept private, compared whole, weak or readable ones refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from api.tokens import VARIABLE, Tokens, load_tokens
from contracts.errors import ConfigError, StorageError


def test_a_missing_file_is_made_for_its_owner_only_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "serve" / "token"
    tokens, source = load_tokens(file, {})
    made = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(made) >= 40
    assert source == str(file) and made not in source
    assert tokens.owner(f"Bearer {made}".encode()) == 0
    load_tokens(file, {})
    assert file.read_text().strip() == made


def test_the_environment_comes_first_and_no_file_is_made(tmp_path: Path) -> None:
    tokens, source = load_tokens(tmp_path / "token", {VARIABLE: "e" * 40})
    assert tokens.owner(b"Bearer " + b"e" * 40) == 0 and VARIABLE in source
    assert not (tmp_path / "token").exists()


def test_each_line_is_a_token_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"# ward\n{'a' * 40}\n\n{'b' * 40}\n")
    file.chmod(0o600)
    tokens, _ = load_tokens(file, {})
    assert [tokens.owner(b"Bearer " + letter * 40) for letter in (b"a", b"b", b"c")] == [0, 1, None]


@pytest.mark.parametrize("header", [b"", b"Bearer", b"Bearer ", b"Basic " + b"a" * 40, b"a" * 40, b"Bearer \xff\xfe",
                                    b"Bearer " + b"a" * 39, b"Bearer " + b"a" * 41])
def test_nothing_else_opens(header: bytes) -> None:
    assert Tokens(["a" * 40], "test").owner(header) is None


@pytest.mark.parametrize("tokens", [[], ["short"], ["a" * 40, "b" * 8], ["ä" * 40]])
def test_weak_tokens_are_refused_and_not_repeated(tokens: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Tokens(tokens, "the file")
    assert not any(token in str(caught.value) for token in tokens)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a" * 40)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="mode 640"):
        load_tokens(file, {})


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "serve").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        load_tokens(tmp_path / "serve" / "token", {})
