"""Calendar-day records and the window, against a plain loop."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.features import Catalogue, Feature
from contracts.frames import EVENTS
from ehr.aggregate import daily, first_days, plausible, window
from ehr.sources.source import RECORDS

CATALOGUE = Catalogue("test", (Feature("pulse", "bpm", 20, 300), Feature("coma", "", 3, 15, "ordinal"),
                               Feature("unused", "", 0, 1)), ())
START = datetime(2150, 3, 1)
MOMENTS = st.integers(0, 14 * 24).map(lambda hour: START + timedelta(hours=hour))
VALUES = st.one_of(st.floats(15, 310, allow_nan=False), st.sampled_from([0.1, 3.0, 15.0, 20.0, 300.0]))
MEASURED = st.lists(st.tuples(st.sampled_from("abc"), MOMENTS, st.sampled_from(["pulse", "coma"]), VALUES),
                    max_size=60, unique=True)
EMPTY = st.lists(st.tuples(st.sampled_from("abc"), MOMENTS), max_size=10)
Rows = list[tuple[str, datetime, str, float]]


def frames(rows: Rows, empty: list[tuple[str, datetime]] = ()) -> tuple[pl.DataFrame, pl.DataFrame]:
    moments = sorted({(stay, time) for stay, time, *_ in rows} | set(empty))
    return (pl.DataFrame(moments, schema=RECORDS.dtypes, orient="row"),
            pl.DataFrame(rows, schema=EVENTS.dtypes, orient="row"))


def naive_days(rows: Rows, empty: list[tuple[str, datetime]]) -> dict[tuple[str, date], dict[str, float | None]]:
    cells: dict[tuple[str, date, str], list[tuple[datetime, float]]] = defaultdict(list)
    for stay, time, feature, value in rows:
        if CATALOGUE[feature].low <= value <= CATALOGUE[feature].high:
            cells[stay, time.date(), feature].append((time, value))
    days = {(stay, time.date()) for stay, time, *_ in rows} | {(stay, time.date()) for stay, time in empty}
    result = {}
    for stay, day in days:
        pulse = [value for _, value in cells[stay, day, "pulse"]]
        coma = sorted(cells[stay, day, "coma"])
        result[stay, day] = {"pulse": math.fsum(pulse) / len(pulse) if pulse else None,
                             "coma": coma[-1][1] if coma else None}
    return result


def naive_visits(days: dict[tuple[str, date], dict[str, float | None]], max_days: int) -> list[tuple]:
    rows = []
    for stay in sorted({stay for stay, _ in days}):
        dates = sorted(day for owner, day in days if owner == stay)
        placed = [((day - dates[0]).days, days[stay, day]) for day in dates]
        early, newest = placed[:-max_days], placed[-max_days:]
        entries = [(float(day), False, values["pulse"], values["coma"]) for day, values in newest]
        if early:
            pulse = [values["pulse"] for _, values in early if values["pulse"] is not None]
            coma = [values["coma"] for _, values in early if values["coma"] is not None]
            entries.insert(0, (sum(day for day, _ in early) / len(early), True,
                               sum(pulse) / len(pulse) if pulse else None, coma[-1] if coma else None))
        rows += [(stay, visit, *entry) for visit, entry in enumerate(entries)]
    return rows


def close(found: float | None, expected: float | None) -> bool:
    return found == expected if found is None or expected is None else math.isclose(found, expected, rel_tol=1e-9)


@settings(max_examples=120, deadline=None)
@given(MEASURED, EMPTY, st.integers(1, 9))
def test_days_and_window_equal_a_plain_loop(rows: Rows, empty: list[tuple[str, datetime]], max_days: int) -> None:
    records, events = frames(rows, empty)
    days = daily(records, plausible(events, CATALOGUE)[0], CATALOGUE)
    expected_days = naive_days(rows, empty)
    assert {(stay, day) for stay, day in days.select("stay_id", "date").iter_rows()} == set(expected_days)
    visits = window(days, CATALOGUE, max_days)
    found = visits.select("stay_id", "visit", "day", "is_summary", "pulse", "coma").rows()
    expected = naive_visits(expected_days, max_days)
    assert [row[:2] + row[3:4] for row in found] == [row[:2] + row[3:4] for row in expected]
    assert all(close(left[at], right[at]) for left, right in zip(found, expected, strict=True) for at in (2, 4, 5))
    assert visits["unused"].null_count() == visits.height


@settings(max_examples=60, deadline=None)
@given(MEASURED, EMPTY, st.integers(1, 9))
def test_a_first_day_is_the_first_record_whatever_comes_after_it(rows: Rows, empty: list[tuple[str, datetime]],
                                                                 max_days: int) -> None:
    records, events = frames(rows, empty)
    days = daily(records, plausible(events, CATALOGUE)[0], CATALOGUE)
    found, visits = first_days(days, CATALOGUE), window(days, CATALOGUE, max_days)
    begun = days.filter(pl.col("date") == pl.col("date").min().over("stay_id"))
    assert found.select("stay_id", *CATALOGUE.names).equals(begun.select("stay_id", *CATALOGUE.names))
    assert found.equals(first_days(begun, CATALOGUE))
    whole = visits.filter((pl.col("visit") == 0) & ~pl.col("is_summary"))
    assert found.join(whole, on="stay_id", how="semi", maintain_order="left").equals(whole)


@settings(max_examples=40, deadline=None)
@given(MEASURED, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(rows: Rows, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (daily(*frames(part), CATALOGUE) for part in (rows, shuffled))
    assert first.equals(second)


def test_bounds_belong_to_the_plausible_range_and_losses_are_counted() -> None:
    rows = [("a", START, "pulse", value) for value in (19.9, 20.0, 300.0, 300.1, 400.0)] + [("a", START, "coma", 3.0)]
    kept, steps = plausible(frames(rows)[1], CATALOGUE)
    assert kept["value"].to_list() == [20.0, 300.0, 3.0]
    assert [(step.found, step.dropped, step.kept) for step in steps] == [(3, 3, 2), (3, 3, 3)]
    assert "pulse outside 20 to 300 bpm" in steps[0].rule


def test_two_values_at_one_moment_are_averaged_and_of_a_scale_the_larger_counts() -> None:
    rows = [("a", START, *cell) for cell in (("pulse", 60.0), ("pulse", 80.0), ("coma", 9.0), ("coma", 5.0))]
    day = daily(*frames(rows), CATALOGUE)
    assert day.select("pulse", "coma").rows() == [(70.0, 9.0)]


def test_midnight_separates_days() -> None:
    late, early = START + timedelta(hours=23, minutes=59), START + timedelta(hours=24)
    days = daily(*frames([("a", late, "pulse", 60.0), ("a", early, "pulse", 80.0)]), CATALOGUE)
    assert days["pulse"].to_list() == [60.0, 80.0]


def test_elapsed_days_count_gaps() -> None:
    records, events = frames([], [("a", START + timedelta(days=day)) for day in (0, 1, 5)])
    visits = window(daily(records, events, CATALOGUE), CATALOGUE, 7)
    assert visits["day"].to_list() == [0.0, 1.0, 5.0] and visits["visit"].to_list() == [0, 1, 2]


def test_an_event_without_a_record_is_refused() -> None:
    records, events = frames([("a", START, "pulse", 60.0)])
    with pytest.raises(ContractError, match="1 events on days without a record"):
        daily(records.clear(), events, CATALOGUE)
