"""What may leave the store: a list by kind, and a guard that does not trust it."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import DataError
from lineage.portable import FILES, KINDS_OF_FILE, copy, guard, may_leave, model_files
from support.small_store import ANSWER, EVIDENCE, PAGE, STAYS


@pytest.mark.parametrize(("kind", "name", "leaves"), [
    ("report", "report.html", False), ("report", "report_to_share.html", True), 
    ("report", "table.csv", True), ("report", "table.parquet", False), ("report", "cards/rl/README.md", True),
    ("rl", "adapter/adapter_model.safetensors", True), ("rl", "rollouts.parquet", False),
    ("rl", "adapter/deeper/x.safetensors", False), ("rl", "../rl/progress.jsonl", False),
    ("expert", "seed-0/model.safetensors", True), ("cohort", "stays.parquet", False), ("cohort", "meta.json", True),
    ("patients", "patients.parquet", False), ("patients", "patients.json", False),
    ("verdicts", "verdicts.parquet", False), ("trajectories", "trees/a.json", False),
    ("unknown", "report.html", False)])
def test_the_list_lets_out_reports_numbers_and_models(kind: str, name: str, leaves: bool) -> None:
    assert may_leave(kind, name) is leaves


def test_no_kind_lets_a_table_of_rows_out() -> None:
    assert ".parquet" not in KINDS_OF_FILE
    assert not {"patients", "verdicts", "perturbed", "perturbed-patients"} & set(FILES)


def test_a_copy_passes_over_kinds_of_file_that_may_hold_rows(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a\n1\n")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    copies = copy(tmp_path, ["table.csv", "rows.parquet"], tmp_path / "out")
    assert [path.name for path in copies] == ["table.csv"] and copies[0].read_text() == "a\n1\n"


def test_the_guard_refuses_a_page_that_shows_a_patient() -> None:
    with pytest.raises(DataError, match="a piece of a patient's text"):
        guard(STAYS, [EVIDENCE])("report.html", PAGE.encode())


def test_of_a_trained_model_only_the_model_is_taken(tmp_path: Path) -> None:
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "rollouts.parquet", "notes.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert model_files(tmp_path) == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]


@pytest.mark.parametrize(("name", "data"), [
    ("report.html", f"<td>{STAYS[0]}</td>"), ("table.csv", f"a,{STAYS[1]}\n"),
    ("report.md", f"  {EVIDENCE}\n"), ("notes.json", '{"text": "\\n' + ANSWER + '\\n"}'),
    ("report.html", f"<pre>{EVIDENCE.replace('(', '&#40;')}</pre>"),
    ("rows.parquet", "x"), ("table.csv", "PAR1abc"), ("weights.bin", "x")])
def test_the_guard_refuses_identifiers_pieces_of_patients_and_other_kinds(name: str, data: str) -> None:
    with pytest.raises(DataError, match="no patient leaves"):
        guard(STAYS, [EVIDENCE, ANSWER])(name, data.encode())


def test_the_guard_passes_what_is_no_patients_and_numbers_that_are_short_names() -> None:
    check = guard(["17", *STAYS], [EVIDENCE, "a short line"])
    check("table.csv", b"n,auroc\n17,0.81\n")
    check("report.md", b"a short line, Lactate and stay-000012 are nobody's")
    check("adapter/adapter_model.safetensors", b"\xff\x00 stay-00001")
