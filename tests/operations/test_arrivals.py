"""When an extract counts as arrived: complete by its checksum file or by holding still, and new."""

from __future__ import annotations

import pytest

from operations.arrivals import (
    Look,
    Release,
    date_in,
    newest_first,
    newness,
    newness_together,
    sums_of,
    unfinished,
)

DIGESTS = {"hosp/a.csv.gz": "a" * 64, "icu/b.csv.gz": "b" * 64}
FILES = dict.fromkeys(DIGESTS, "state")


def judged(files: dict[str, str] | None = None, sums: dict[str, str] | None = None, looks: int = 2,
           unchanged: float = 0.0) -> tuple[str, str] | None:
    found = unfinished(Look(FILES if files is None else files, sums, looks, unchanged), 60.0, DIGESTS.__getitem__)
    return None if found is None else (found.status, found.reason)


def test_a_checksum_file_that_fits_makes_it_complete_at_once() -> None:
    assert judged(sums=DIGESTS) is None


def test_without_a_checksum_file_it_is_complete_when_unchanged_for_long_enough() -> None:
    status, reason = judged(unchanged=59.0) or ("", "")
    assert status == "waiting" and "unchanged for 60 s" in reason
    assert judged(unchanged=60.0) is None


@pytest.mark.parametrize(("files", "sums", "looks", "said"), [
    ({}, None, 2, "empty"),
    (None, DIGESTS, 1, "still change"),
    ({"hosp/a.csv.gz": "s"}, DIGESTS, 2, "1 of 2 files of SHA256SUMS.txt are missing (icu/b.csv.gz)"),
    (None, {**DIGESTS, "icu/b.csv.gz": "c" * 64}, 2, "the sha256 of icu/b.csv.gz is not that"),
    ({**FILES, "icu/.b.csv.gz.Xk2p9Q": "s"}, DIGESTS, 2, "unfinished file of a copying program"),
    ({**FILES, "icu/c.csv.gz.part": "s"}, None, 2, "unfinished file of a copying program"),
    (None, {}, 2, "names no file")])
def test_what_is_half_copied_is_waited_for(files: dict[str, str] | None, sums: dict[str, str] | None, looks: int,
                                           said: str) -> None:
    status, reason = judged(files, sums, looks) or ("", "")
    assert status == "waiting" and said in reason


def test_what_does_not_fit_and_no_longer_changes_is_broken() -> None:
    wrong = {**DIGESTS, "icu/b.csv.gz": "c" * 64}
    assert (judged(sums=wrong, unchanged=59.0) or ("",))[0] == "waiting"
    status, reason = judged(sums=wrong, unchanged=60.0) or ("", "")
    assert status == "broken" and "icu/b.csv.gz" in reason and "60 s" in reason


def test_files_are_not_read_while_they_change() -> None:
    def never(name: str) -> str:
        raise AssertionError(name)

    found = unfinished(Look(FILES, DIGESTS, 1, 0.0), 60.0, never)
    assert found is not None and found.status == "waiting"


def test_hidden_files_of_a_desktop_hinder_nothing() -> None:
    assert judged({**FILES, ".DS_Store": "s"}, DIGESTS) is None


FIRST = ("jan", Release("d1", "2.2", "2026-01-10"))


@pytest.mark.parametrize(("release", "status", "said"), [
    (Release("d1", "3.1", "2026-03-01"), "duplicate", "jan"),
    (Release("d2", "2.0", "2026-03-01"), "older", "version 2.0 is lower than 2.2 of jan"),
    (Release("d2", "2.2", "2026-01-09"), "older", "2026-01-09 is before 2026-01-10"),
    (Release("d2", "2.2", "2026-01-10"), "arrived", "complete and new"),
    (Release("d2", "3.1", "2025-01-01"), "arrived", "version 3.1"),
    (Release("d2", "2.2", ""), "arrived", "complete and new"),
    (Release("d2", "2.10", ""), "arrived", "version 2.10"),
    (Release("d2", "2.1+", ""), "arrived", "complete and new"),
    (Release("d2"), "arrived", "complete and new")])
def test_only_what_is_new_arrives(release: Release, status: str, said: str) -> None:
    found = newness(release, [FIRST])
    assert found.status == status and said in found.reason


def test_the_first_one_is_new() -> None:
    assert newness(Release("d", "2.0", "2020-01-01"), []).status == "arrived"


def test_it_is_older_than_any_that_arrived_not_than_the_last_only() -> None:
    known = [("a", Release("d1", "3.1", "")), ("b", Release("d2", "", "2026-01-01"))]
    assert newness(Release("d3", "3.0", "2026-02-01"), known).status == "older"


def test_of_two_that_arrive_together_the_newest_is_judged_first() -> None:
    releases = {"old": Release("1", "2.2", "2026-05-01"), "new": Release("2", "3.1", "2026-01-01"),
                "newer": Release("3", "3.1", "2026-02-01")}
    assert newest_first(releases) == ["newer", "new", "old"]


@pytest.mark.parametrize(("known", "release", "status", "said"), [
    (Release("d1", "2.1+", "2026-01-10"), Release("d2", "2.0", "2026-03-01"), "older", "2.0 is lower than 2.1+"),
    (Release("d1", "2.0", "2026-01-10"), Release("d2", "2.1+", "2026-01-01"), "arrived", "version 2.1+"),
    (Release("d1", "2.1+", "2026-01-10"), Release("d2", "2.1", "2026-01-01"), "older", "is before"),
    (Release("d1", "2.1+", "2026-01-10"), Release("d2", "2.2", "2026-01-01"), "older", "is before"),
    (Release("d1", "2.1", "2026-01-10"), Release("d2", "2.1+", "2026-01-01"), "older", "is before"),
    (Release("d1", "2.2", "2026-01-10"), Release("d2", "2.1+", "2026-01-01"), "older", "is before"),
    (Release("d1", "2.1+", "2026-01-10"), Release("d2", "2.0+", "2026-01-11"), "arrived", "complete and new"),
    (Release("d1", "2.1+", "2026-01-10"), Release("d2", "", "2026-01-11"), "arrived", "complete and new")])
def test_a_lower_bound_decides_where_it_can_and_else_the_date(known: Release, release: Release, status: str,
                                                             said: str) -> None:
    found = newness(release, [("first", known)])
    assert found.status == status and said in found.reason


def test_of_several_at_once_that_nothing_tells_apart_the_newest_name_alone_arrives() -> None:
    releases = {f"/x/extract-{number}": Release(str(number), "2.2", "") for number in (1, 10, 9)}
    found = newness_together(releases, [FIRST])
    assert list(found)[-1] == "/x/extract-10" and found["/x/extract-10"].status == "arrived"
    assert {name: one.status for name, one in found.items() if name != "/x/extract-10"} == {
        "/x/extract-1": "older", "/x/extract-9": "older"}
    assert found["/x/extract-1"].reason == ("arrived together with extract-10, whose version, date or name comes later")


@pytest.mark.parametrize(("older", "newer"), [
    (Release("1", "2.2", "2026-01-01"), Release("2", "2.2", "2026-01-02")),
    (Release("1", "2.2", ""), Release("2", "2.2", "2026-01-02")),
    (Release("1", "2.2", "2026-01-01"), Release("2", "2.1+", "2026-01-02")),
    (Release("1", "2.0", "2026-01-03"), Release("2", "2.1+", "2026-01-02")),
    (Release("1", "", ""), Release("2", "", ""))])
def test_of_two_at_once_the_newer_is_recorded_last(older: Release, newer: Release) -> None:
    found = newness_together({"/x/a": older, "/x/b": newer}, [])
    assert list(found)[-1] == "/x/b" and found["/x/b"].status == "arrived"


def test_copies_at_once_are_duplicates() -> None:
    found = newness_together({"/x/a": Release("1", "2.2"), "/x/b": Release("1", "2.2")}, [])
    assert [(name, one.status) for name, one in found.items()] == [("/x/a", "duplicate"), ("/x/b", "arrived")]


def test_dates_are_found_in_names_and_numbers_are_no_dates() -> None:
    assert date_in("mimic-iv-3.1-2026-11-21") == date_in("extract_20261121") == "2026-11-21"
    assert date_in("mimic-iv-3.1") == date_in("20269999") == date_in("batch-120261121") == ""


def test_checksum_files_are_read_as_sha256sum_writes_them() -> None:
    text = f"{'A' * 64}  ./hosp/a.csv.gz\n{'b' * 64} *icu/b c.csv\n\nnot a line\n{'c' * 63}  short\n"
    assert sums_of(text) == {"hosp/a.csv.gz": "a" * 64, "icu/b c.csv": "b" * 64}
