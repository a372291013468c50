"""Drawings: arrows run from source to prediction, boxes stand below what they were made from, nothing is unescaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from lineage.chain import chain
from lineage.drawing import drawing, essential, layers, mermaid
from lineage.page import render
from lineage.prediction import prediction
from support.small_store import ANSWER, EVIDENCE, STAYS, put, small_store


def test_mermaid_has_each_box_once_and_every_link(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    text = mermaid(drawing(prediction(store, chain(store, made["report"]), "stage1+2", STAYS[0])))
    assert text.startswith("flowchart TD\n") and "hospital.csv" in text and "probability: 0.750" in text
    boxes = re.findall(r'^  (\w+)(?:\[\(|\(\[|\[)"', text, re.MULTILINE)
    assert len(boxes) == len(set(boxes)) == 8  # base, cohort, patients, rl, verdicts, prediction, and two of sources
    ends = {name for pair in re.findall(r'^  (\w+) -->\|"[^"]+"\| (\w+)$', text, re.MULTILINE) for name in pair}
    assert ends == set(boxes)


def test_signs_that_mermaid_reads_are_written_as_numbers(tmp_path: Path) -> None:
    store, _ = small_store(tmp_path)
    odd = put(store, "cohort", {"meta.json": "{} "}, sources={'x"];click a "javascript:b': "0" * 64}, label="odd",
              variant='<b>"')
    text = mermaid(drawing(chain(store, odd)))
    assert 'x"' not in text and "<b>" not in text and "x#34;#93;" in text


def test_a_box_stands_below_all_it_was_made_from(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    shown = drawing(chain(store, made["report"]))
    depth = {key: row for row, keys in enumerate(layers(shown)) for key in keys}
    assert set(depth) == set(shown.boxes)
    assert all(depth[source] < depth[target] for source, target, _ in shown.arrows)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id" and value:
                self.ids.append(value)
            if name == "href" and value:
                self.links.append(value)


def test_the_page_links_each_card_fetches_nothing_and_shows_no_patient(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    odd = put(store, "report", {"table.json": "[ ]"}, {"verdicts": made["verdicts"]},
              sources={"<script>alert(1)</script>": "0" * 64})
    node = prediction(store, chain(store, odd, verify=True), "stage1+2", STAYS[0])
    text = render(node, {"hospital.csv": "is another"})
    page = _Page()
    page.feed(text)
    assert len(page.ids) == len(set(page.ids)) and "script" not in page.tags
    assert {link.removeprefix("#") for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not any(secret in text for secret in (*STAYS, EVIDENCE, ANSWER))
    assert made["rl"].sha256 in text and "is another" in text and "Not all digests fit" in text


def test_the_page_says_whether_digests_were_recomputed(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    assert "were not recomputed" in render(chain(store, made["report"]))
    assert "recomputed and fits" in render(chain(store, made["report"], verify=True))
    (store.folder(made["rl"]) / "adapter" / "adapter_config.json").write_text("{  }")
    assert "Altered: adapter/adapter_config.json" in render(chain(store, made["report"], verify=True))


def test_an_arrow_that_a_longer_way_implies_is_left_out_and_no_other(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    node = chain(store, made["report"])
    shown = drawing(node)
    short = essential(shown)
    named = {key: key.rsplit("_", 2)[0] for key in shown.boxes}
    left_out = {(named[source], named[target]) for source, target, _ in set(shown.arrows) - set(short.arrows)}
    assert left_out == {("base", "verdicts"), ("patients", "verdicts"), ("rl", "report")}
