import string
from pathlib import Path

import pytest
import yaml

from contracts.errors import ConfigError
from evaluation import tripod
from evaluation.tripod import FILLED, OPEN, PARTLY, checklists, markdown

FOLDER = Path(tripod.__file__).parent
WORDS = [yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in tripod.FILES]
NAMES = {field for one in WORDS for item in one["items"] for _, field, _, _ in string.Formatter().parse(
    item.get("fill", "")) if field}
FACTS: dict[str, str | None] = dict.fromkeys(NAMES, "known")


def _main(number: int) -> set[str]:
    return {item.number.rstrip("abcdefg") for item in checklists(FACTS)[number].items}


def test_all_main_items_of_both_statements_are_there_once() -> None:
    assert _main(0) == {str(number) for number in range(1, 28)} and _main(1) == {str(number) for number in range(1, 20)}
    for one in checklists(FACTS):
        assert len({item.number for item in one.items}) == len(one.items)
    assert len(checklists(FACTS)[0].items) == 52


def test_an_item_is_filled_partly_filled_or_open() -> None:
    for one in checklists(FACTS):
        for item in one.items:
            assert item.status == (OPEN if not item.filled else PARTLY if item.ask else FILLED)
            assert item.filled or item.ask
        assert {item.status for item in one.items} == {FILLED, PARTLY, OPEN}


def test_what_nobody_but_the_authors_knows_stays_open() -> None:
    known = {item.number: item for item in checklists(FACTS)[0].items}
    assert all(known[number].status == OPEN for number in ("3c", "18a", "18b", "18d", "19", "27c"))


def test_an_unknown_fact_leaves_its_items_open() -> None:
    known = {item.number: item for item in checklists({**FACTS, "measures": None})[0].items}
    assert known["12e"].status == OPEN and known["12e"].ask and "None" not in known["12e"].filled
    assert known["12b"].status == FILLED


def test_a_fact_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="measures"):
        checklists({name: value for name, value in FACTS.items() if name != "measures"})


def test_an_item_that_neither_fills_nor_asks_is_refused(tmp_path: Path) -> None:
    for name in tripod.FILES:
        (tmp_path / name).write_text(yaml.safe_dump({"name": "T", "source": "s", "items": [
            {"item": "1", "part": "Title", "says": "x"}]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="item 1"):
        checklists(FACTS, tmp_path)


def test_the_file_has_a_row_for_each_item_and_says_that_the_statement_decides() -> None:
    found = checklists({**FACTS, "source": "a | b <i>"})
    text = markdown(found, "trial")
    assert "published statement" in text and "# Reporting checklists of study trial" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("| ---", "| Item"))]
    assert len(rows) == sum(len(one.items) for one in found)
    assert {line.replace("\\|", "").count("|") for line in rows} == {7} and "<i>" not in text
