"""The sieve reads what the csv module reads, whatever stands in the fields and wherever a block ends."""

import csv
import io
import math
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehr.sources.mimic_iv.sieve import EMPTY, NO_INTEGER, NO_TIME, REASONS, Sieve, digest

HEADER = ["subject_id", "stay_id", "note", "charttime", "itemid", "value", "valuenum"]
WANTED = [7, 220045]


def sieve():
    return Sieve(HEADER, "itemid", WANTED, ["subject_id", "stay_id"], "charttime", "valuenum", ["value"])


def scan(text, block=1 << 20):
    """All blocks one after the other: rows, and what could not be read."""
    one, data, at, before, rows, bad = sieve(), text.encode(), 0, 0, [], []
    while at < len(data):
        piece = data[at:at + block]
        last = at + block >= len(data)
        found = one.scan(np.frombuffer(bytearray(piece), np.uint8), last)
        for place in range(found.key.size):
            start, stop = found.span[0, place]
            rows.append((before + int(found.row[place]), int(found.key[place]), found.integers[:, place].tolist(),
                         int(found.time[place]), float(found.number[place]), piece[start:stop].decode(),
                         int(found.text[0, place])))
        reasons = [REASONS[reason] for reason in found.bad_reason]
        bad += list(zip((before + found.bad_row).tolist(), reasons, strict=True))
        if not found.consumed:
            if last:  # a quote that never closes
                break
            block *= 2
        at, before = at + found.consumed, before + found.rows
    return rows, bad


def line(subject="1", stay="2", note="x", time="2150-01-02 03:04:05", item="7", value="v", number="1.5"):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([subject, stay, note, time, item, value, number])
    return out.getvalue()


def test_a_row_of_interest_is_parsed():
    rows, bad = scan(line(value="abc"))
    seconds = int(datetime(2150, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert rows == [(0, 7, [1, 2], seconds, 1.5, "abc", digest("abc"))]
    assert not bad


def test_other_items_are_passed_over_but_counted():
    rows, _ = scan(line(item="8") + line(item="220046") + line(item="-7") + line(item="220045"))
    assert [(row, item) for row, item, *_ in rows] == [(3, 220045)]


def test_empty_fields_have_their_own_values():
    rows, _ = scan(line(stay="", time="", value="", number=""))
    (_, _, integers, time, number, _, text), = rows
    assert integers == [1, NO_INTEGER]
    assert time == NO_TIME
    assert math.isnan(number)
    assert text == EMPTY


@pytest.mark.parametrize(("field", "text", "reason"), [
    ("subject", "1a", "an identifier that is no whole number"),
    ("stay", "3.0", "an identifier that is no whole number"),
    ("time", "2150-13-01 00:00:00", "a time that is no YYYY-MM-DD HH:MM:SS"),
    ("time", "2150-02-29 00:00:00", "a time that is no YYYY-MM-DD HH:MM:SS"),
    ("time", "01/02/2150 10:00", "a time that is no YYYY-MM-DD HH:MM:SS"),
    ("number", "high", "a number that cannot be read"), ("number", "1,5", "a number that cannot be read"),
    ("number", "1.2.3", "a number that cannot be read"), ("item", "abc", "an item that is no whole number")])
def test_what_cannot_be_read_is_named(field, text, reason):
    rows, bad = scan(line() + line(**{field: text}) + line())
    assert [row for row, *_ in rows] == [0, 2]
    assert bad == [(1, reason)]


def test_too_few_and_too_many_fields_are_named():
    _, bad = scan("1,2,x\n" + line() + line().strip() + ",9\n")
    assert [row for row, _ in bad] == [0, 2]
    assert {reason for _, reason in bad} == {"another number of fields than the header"}


def test_line_ends_of_both_kinds_and_a_missing_last_one_are_read():
    rows, bad = scan(line().replace("\n", "\r\n") + line() + line().rstrip("\n"))
    assert [number for *_, number, _, _ in rows] == [1.5, 1.5, 1.5]
    assert not bad


def test_leap_days_and_centuries_are_right():
    for text in ("2152-02-29 00:00:00", "2400-02-29 23:59:59", "1999-12-31 12:00:00", "2200-03-01 00:00:00"):
        rows, _ = scan(line(time=text))
        assert rows[0][3] == int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def moment(text):
    """Seconds of a time in the format that the sieve reads, or None."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]*)?)?)?", text):
        return None
    try:
        return int(datetime.fromisoformat(text.partition(".")[0]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.datetimes(datetime(1900, 1, 1), datetime(2400, 1, 1)), st.sampled_from([10, 16, 19, 21]),
                          st.integers(0, 20), st.sampled_from(["", "", "9", ":", "/", "a"])), min_size=1, max_size=6))
def test_times_are_read_as_python_reads_them_or_refused(times):
    texts = []
    for time, length, place, other in times:
        text = f"{time:%Y-%m-%d %H:%M:%S}.5"[:length]
        texts.append(text[:place] + other + text[place + 1:] if other and place < length else text)
    rows, bad = scan("".join(line(time=text) for text in texts))
    expected = [(place, moment(text)) for place, text in enumerate(texts)]
    assert [(row, seconds) for row, _, _, seconds, *_ in rows] == [one for one in expected if one[1] is not None]
    assert [row for row, _ in bad] == [row for row, seconds in expected if seconds is None]


@settings(max_examples=300, deadline=None)
@given(st.integers(-10**9, 10**9).map(str), st.sampled_from(["", "a", "/", ":", "-"]), st.integers(0, 9))
def test_whole_numbers_are_read_or_refused(text, other, place):
    wrong = text[:place] + other + text[place:] if other and (place or other != "-") else text
    rows, bad = scan(line(subject=wrong))
    if re.fullmatch("-?[0-9]+", wrong):
        assert rows[0][2][0] == int(wrong)
    else:
        assert bad == [(0, REASONS[2])]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12),
                          st.sampled_from(["7", "220045", "9"])), max_size=8),
       st.integers(min_value=1, max_value=200))
def test_any_text_in_quotes_is_read_as_the_csv_module_reads_it(rows, block):
    text = "".join(line(note=note, value=note, item=item) for note, item in rows)
    found, bad = scan(text, block)
    assert not bad
    expected = [(place, note) for place, (note, item) in enumerate(rows) if item != "9"]
    assert [(row, value.replace('""', '"')) for row, *_, value, _ in found] == expected


@pytest.mark.parametrize("value", ['5""', '5" 10"', 'a""b', '"a"b""', 'a"', 'a"""', '"a""b"', '""', '""""', '"a\nb"'])
def test_a_quote_within_a_field_that_begins_with_none_opens_nothing(value):
    rows = f"1,2,x,,7,{value},1\n" + "1,2,x,,7,v,2\n" * 1000 + '1,2,x,,7,"a, b",3\n' + "1,2,x,,7,v,4\n" * 3
    plain = list(csv.reader(io.StringIO(rows, newline="")))
    found, bad = scan(rows)
    assert [(row, number) for row, *_, number, _, _ in found] == [
        (place, float(row[6])) for place, row in enumerate(plain)]
    assert len(found) == 1005 and not bad


@pytest.mark.slow
@pytest.mark.parametrize("columns", [3, 7, 16])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_commas_and_an_item_fit_into_the_room_for_them(columns, end):
    header = [*(f"empty {place}" for place in range(columns - 3)), "itemid", "charttime", "valuenum"]
    one = Sieve(header, "itemid", [7], [], "charttime", "valuenum", [])
    for count in (1, 2, 999, 1000):
        data = np.frombuffer((("," * (columns - 3) + "7,," + end) * count).rstrip("\r\n").encode(), np.uint8)
        # Asked first: what is too small is written beyond, and may end the process.
        assert one._room(data.size)[3].size >= count
        found = one.scan(data, True)
        assert (found.rows, found.row.tolist(), found.bad_row.size) == (count, list(range(count)), 0)


@settings(max_examples=300, deadline=None)
@given(st.integers(-999_999_999_999_999, 999_999_999_999_999), st.integers(0, 12), st.booleans())
def test_numbers_of_up_to_fifteen_digits_are_rounded_as_python_does(digits, places, exponent):
    text = f"{digits}e-{places}" if exponent else f"{digits / 10**places:.{places}f}"[:17]
    rows, _ = scan(line(number=text))
    assert rows[0][4] == float(text)


def plainly(text):
    """Numbers of the rows with as many fields as the header whose item is wanted, with their `value`; and of the others
    that cannot be read. One letter at a time: a quote counts where it opens a field, or inside of one, or doubled in
    one that it opened."""
    rows, fields, field, inside, opens, found, bad, number = [], [], "", False, True, [], [], 0
    for place, letter in enumerate(text):
        if letter == '"':
            inside = opens and not inside
        else:
            opens = inside or letter in ",\n"
        if not inside and letter in ",\n":
            fields.append(field)
            if letter == "\n":
                rows.append(fields)
                fields = []
            field = ""
        else:
            field += letter
        if place + 1 == len(text) and not inside and (field or fields):
            rows.append([*fields, field])
    for fields in rows:
        if fields[-1].endswith("\r"):
            fields[-1] = fields[-1][:-1]
        if fields == [""]:
            continue
        bare = [one[1:-1] if len(one) >= 2 and one[0] == one[-1] == '"' else one for one in fields]
        if len(bare) != len(HEADER) or not re.fullmatch("-?[0-9]{1,18}", bare[4]):
            bad.append(number)
        elif int(bare[4]) in WANTED:
            if all(re.fullmatch("|-?[0-9]{1,18}", one) for one in (*bare[:2], bare[6])) and not bare[3]:
                found.append((number, bare[5]))
            else:
                bad.append(number)
        number += 1
    return found, bad


@settings(max_examples=600, deadline=None)
@given(st.lists(st.one_of(
    st.sampled_from(['1,,,,7,v,\n', '1,,"a,b",,7,"v\nw",\n', '1,,,,9,v,\r\n', '"1",,,,"7","v",""\n', '\n',
                     '1,,a"b,,7,v,\n', '1,,"a"b"c,d",,7,v,\n', ',' * 30 + '\n', '1,,5"",,7,5"",\n',
                     '1,,"a"b"",,7,"""",\n',
                     '1,,' + 'x' * 70 + ',,7,"' + 'y,' * 40 + '",\n']),
    st.text(alphabet='",\n\r17v', max_size=12)), max_size=12), st.integers(1, 400))
def test_whatever_stands_in_the_file_is_read_as_one_letter_after_the_other(pieces, block):
    text = "".join(pieces)
    found, bad = scan(text, block)
    expected, wrong = plainly(text)
    assert [(row, value) for row, *_, value, _ in found] == expected
    assert [row for row, _ in bad] == wrong
