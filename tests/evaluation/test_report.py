import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from markupsafe import Markup

from configs.schema import Evaluation
from contracts.patients import Patient
from ehr.small_cells import hidden
from evaluation import paper_figures, report, tables
from evaluation.appraisal import appraise
from evaluation.baselines import judge_expert
from evaluation.case_study import Answer, CaseStudy, Segment
from evaluation.descent import PAGE, Link
from evaluation.expert_sets import Guides
from evaluation.gain import Asked, gain
from evaluation.report import FEWEST, ReportBundle, flat, headline, render, render_both
from evaluation.report_markdown import markdown
from evaluation.search_tree import SearchTree, TreeNode
from evaluation.tripod import FILLED, Checklist, Item
from support.judged import POLICY_ARMS, Finder, readings_of, readings_ranking, stays_of, verdicts_of

pytestmark = pytest.mark.slow

HOSTILE = "</pre></details></main><script>alert(1)</script><img src=x onerror='alert(2)'>\x00{{ 7*7 }}"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_VOID = {"meta", "link", "br", "img", "hr", "input", "col", "wbr"}


class _Page(HTMLParser):
    """Checks nesting while it reads, and keeps tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, text: str) -> None:
        self.text += text

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def bundle() -> ReportBundle:
    stays = stays_of(120)
    readings = readings_of(stays)
    verdicts = pl.concat([*(verdicts_of(arm, stays, skill) for arm, skill in POLICY_ARMS.items()),
                          judge_expert(readings, stays)])
    table = tables.results(verdicts, 30, 1, paper=paper_figures.TJH_MORTALITY, interval_bootstraps=60)
    steps = pl.DataFrame({"step": [1, 2, 3], "reward": [-0.5, -0.4, -0.1], "outcome_reward": [-0.6, -0.5, -0.2],
                          "attention_reward": [0.1, 0.2, 0.3], "parse_rate": [0.9, 1.0, 1.0],
                          "bound_min": [0.2, 0.2, 0.2], "bound_mean": [0.3, 0.31, 0.3], "bound_max": [0.4, 0.4, 0.4],
                          "clipped_above": [0.0, None, 0.02], "clipped_below": [0.0, 0.01, 0.01]})
    patients = [Patient(stay, split, 0, "", ("Lactate", "Noise", "Platelets"), ("Lactate", ("Noise", "Platelets")[
        number % 2])) for number, (stay, split) in enumerate(stays.select("stay_id", "split").iter_rows())]
    rollouts = pl.DataFrame([{"stay_id": f"r{number}", "step": 0, "kept": True, "mention_entropy": number / 9 + sample,
                              "probability": (number + sample) / 60} for number in range(50) for sample in (0, 1)])
    guides = Guides([readings_ranking({one.stay_id: (*one.expert_features, *one.shown) for one in patients})], 2)
    explained = gain(verdicts, [Asked(list(POLICY_ARMS), patients)], guides, stays, Finder(),  # type: ignore[arg-type]
                     Evaluation(interval_bootstraps=60), 1, 4, rollouts)
    segments = (Segment("high ", "plain"), Segment("lactate", "expert", "Lactate"), Segment(HOSTILE, "plain"),
                Segment(HOSTILE, "other", HOSTILE))
    answers = (Answer("stage1+2", 0.83, 0.81, segments, ("Lactate", HOSTILE), ("Lactate",), 1 / 3),
               Answer("decomposition", None, None, (Segment(HOSTILE, "plain"),), (), (), 0.0))
    case = CaseStudy("Outcome 1, right", 1, (("user", "evidence " + HOSTILE),), ("Lactate", "Platelets"), answers)
    tree = SearchTree((TreeNode((), ("", ""), 1, 0.1, 0.0, False, None, 1),
                       TreeNode((0,), (HOSTILE, HOSTILE), 1, 0.1, 80.0, True, 0.1, 1)), 1, segments, ("Lactate",))
    links = (Link(HOSTILE, "source file", (), "8e" * 32, None, None, ()),
             Link("cohort-1", "cohort", ("cohort",), "9f" * 32, "c" * 40, "r", (HOSTILE,)),
             Link("verdicts-1", "verdicts", ("verdicts.stage1+2",), "7a" * 32, "c" * 40, "r", ("cohort-1",)),
             Link(PAGE, "report", (), None, "c" * 40, "r", ("verdicts-1", "cohort-1")))
    return ReportBundle(
        study="study", created="2026-01-01", outcome="mortality", verdicts=verdicts, cases=(case, case),
        readings=readings,
        rl_steps=steps, table=table, smallest_cell=4, gain=explained,
        appraisal=appraise(verdicts, table, stays, Evaluation(interval_bootstraps=60), 1, 4, hidden),
        findings=[{"level": "warning", "value": HOSTILE, "rule": "a day between", "next_step": "look", "count": 2}],
        notes={"logistic regression": HOSTILE}, stage1={"before": {"parse_rate": 0.1}, "after": {"parse_rate": 1.0}},
        health={"effective_tokens": 3.14159, "seeds": [{"auroc": 0.9}]},
        counts={"train": {"patients": 80, "visits": 200}, "test": {"patients": 40, "visits": 100}},
        attrition=[{"rule": HOSTILE, "unit": "rows", "found": 3, "dropped": 2, "kept": 9}],
        settings={"study": {"name": "study", "seed": 42}},
        tree=tree, overlap={"stage1+2": 0.25}, provenance=links, quantiles=(0.5,),
        checklists=[Checklist("TRIPOD", "somebody", (Item("1", "Title", "a title", FILLED, HOSTILE, ""),))])


@pytest.fixture(scope="module")
def source(bundle: ReportBundle) -> str:
    return render(bundle)


@pytest.fixture(scope="module")
def page(source: str) -> _Page:
    return _Page(source)


def _bare(bundle: ReportBundle) -> ReportBundle:
    return ReportBundle(study="study", created="now", outcome="mortality", table=bundle.table,
                        verdicts=bundle.verdicts)


def test_the_page_is_well_formed_and_its_identifiers_are_unique(page: _Page) -> None:
    assert not page.open
    found = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(found) == len(set(found)) > 20


def test_every_reference_stays_inside_the_page(page: _Page) -> None:
    known = {attributes.get("id") for _, attributes in page.tags}
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "img"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "src"
            if name in {"href", "xlink:href"}:
                assert value == "data:," or (value or "").removeprefix("#") in known
            for place in re.findall(r"url\(([^)]*)\)", value or ""):
                assert place.removeprefix("#") in known


def test_no_address_and_no_font_is_in_the_page(source: str) -> None:
    assert not re.search(r"https?:|//[a-z]+\.|@import|@font-face", source)
    assert "default-src 'none'" in source


def test_what_a_model_wrote_is_shown_and_never_run(page: _Page, source: str) -> None:
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text and "\x00" not in page.text
    assert page.text.count("<script>alert(1)</script>") >= 7
    assert "<script" not in source


def test_tables_have_scopes_and_pictures_have_words(page: _Page) -> None:
    assert all(attributes.get("scope") in {"col", "row", "colgroup", "rowgroup"} for attributes in page.all("th"))
    pictures = [attributes for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert len(pictures) == len(page.all("svg")) == 13
    known = {attributes.get("id") for _, attributes in page.tags}
    assert all(set((attributes["aria-labelledby"] or "").split()) <= known for attributes in pictures)
    assert len(page.all("h1")) == 1 and len(page.all("h2")) == 21


def test_the_page_holds_every_arm_the_digests_and_the_limits(page: _Page, bundle: ReportBundle) -> None:
    for words in (*POLICY_ARMS, "expert", "9f" * 32, "not a medical device", "87.70 / 82.95", "3.142"):
        assert words in page.text
    assert not any(stay in page.text for stay in bundle.verdicts["stay_id"].unique())


def test_the_same_bundle_gives_the_same_bytes(bundle: ReportBundle, source: str) -> None:
    assert render(bundle) == source


def test_the_page_with_patients_and_the_one_without_share_their_pictures_but_the_tree(
        bundle: ReportBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def pictures(given: ReportBundle) -> dict[str, Markup | None]:
        drawn.append(given)
        names = ("roc", "pr", "rewards", "bounds", "attention", "forest", "uniform", "quantile", "decision", "radar",
                 "lineage", "entropy")
        return {**{name: Markup(f"<svg>{name}</svg>") for name in names},
                "tree": None if given.tree is None else Markup("<svg>tree</svg>")}

    monkeypatch.setattr(report, "_pictures", pictures)
    page, without = render_both(bundle)
    assert len(drawn) == 1 and page == render(bundle)
    assert without == render(replace(bundle, cases=(), quantiles=(), tree=None))
    assert "<svg>tree</svg>" in page and "<svg>tree</svg>" not in without and "<svg>roc</svg>" in without


def test_absent_parts_are_named(bundle: ReportBundle) -> None:
    page = _Page(render(_bare(bundle)))
    assert not page.open
    for words in ("no RL run", "no readings of an expert", "no health report", "no check of stage 1",
                  "No simple baseline", "No case is shown", "No search tree is shown", "no checklists",
                  "no counts", "no attrition",
                  "no check of the cohort", "no appraisal was made", "No power note", "No calibration",
                  "No decision curves", "No subgroups",
                  "No controls of the overlap", "no settings", "no provenance"):
        assert words in page.text


def test_a_run_with_a_fixed_bound_says_so(bundle: ReportBundle) -> None:
    steps = pl.DataFrame({"step": [1, 2], "reward": [0.1, 0.2]})
    assert "fixed upper clip bound" in _Page(render(replace(bundle, rl_steps=steps))).text


def test_only_the_expert_is_enough_for_a_page(bundle: ReportBundle) -> None:
    verdicts = bundle.verdicts.filter(pl.col("arm") == "expert")
    page = _Page(render(replace(_bare(bundle), verdicts=verdicts, table=tables.results(verdicts, 30, 1))))
    assert "No language-model arm was judged" in page.text


def test_the_expert_alone_is_appraised_without_differences(bundle: ReportBundle) -> None:
    stays = stays_of(120)
    verdicts = bundle.verdicts.filter(pl.col("arm") == "expert")
    table = tables.results(verdicts, 30, 1, interval_bootstraps=60)
    found = appraise(verdicts, table, stays, Evaluation(interval_bootstraps=60), 1, 5, hidden)
    page = _Page(render(replace(_bare(bundle), verdicts=verdicts, table=table, appraisal=found)))
    assert not page.open and "no arm has a reference" in page.text and "AUROC [%]: expert, model" in page.text


def test_each_part_of_the_appraisal_says_how_to_read_it(page: _Page) -> None:
    assert page.text.count("How to read:") == 11
    for words in ("80 % power", "p (Holm)", "sex female", "age ≥80", "Counts of fewer than 4 patients", "treat none",
                  "60 bootstrap resamples of patients", "2 / (60 + 1)", "a day between",
                  "Bins of fewer than 4 patients, or with fewer than that of one outcome"):
        assert words in page.text


def test_the_page_says_beside_decision_and_roc_curves_that_single_patients_can_be_counted_off_them(page: _Page
                                                                                                  ) -> None:
    assert page.text.count("single patients can be counted off their steps") == 2
    assert "decision.csv, are for those who may see the cohort" in page.text


def test_the_headline_warns_where_one_reasoning_stands_in_most_answers(bundle: ReportBundle) -> None:
    ritual = bundle.table.with_columns(same_reasoning=pl.lit(0.97))
    assert headline(ritual, "decomposition")[0].startswith("stage1+2 reasons in the same words in 97 % of its answers")
    assert headline(ritual, "decomposition")[1:] == headline(bundle.table, "decomposition")


def test_the_page_says_where_the_gain_comes_from(page: _Page, bundle: ReportBundle) -> None:
    for words in ("stage1+2 overlaps with the expert's features", "swapped", "rank correlation within the label",
                  "In 100 rollouts of stage 2 (of 50 stays)", "20 likeliest tokens", "lower bound",
                  "fewer than 4 stays", "60 draws of each control",
                  "How much the answers of each arm differ between the test stays", "Commonest reasoning",
                  "Numbers cited", "In another stay's data"):
        assert words in page.text
    bare = _Page(render(replace(bundle, gain=replace(bundle.gain, **{  # type: ignore[arg-type]
        name: frame.clear() for name, frame in bundle.gain.frames().items()}))))  # type: ignore[union-attr]
    assert not bare.open and "No sentence" in bare.text and "No entropies" in bare.text


def test_counts_of_small_groups_are_not_on_the_page(page: _Page, bundle: ReportBundle) -> None:
    found = bundle.appraisal
    assert found is not None
    groups = found.subgroups.filter(pl.col("arm") == "expert")
    assert groups["hidden"].any() and groups["n"].drop_nulls().min() >= 4  # type: ignore[operator]
    row = groups.filter(pl.col("hidden")).row(0, named=True)
    assert f"{row['variable']} {row['level']}" in page.text and "hidden" in page.text


@pytest.mark.parametrize(("low", "holm", "says"), [
    (-0.01, 0.4, "cannot be told from the reference"), (0.01, 0.2, "the difference is not shown"),
    (0.01, 0.01, "the interval does not hold 0.")])
def test_the_headline_calls_a_difference_shown_only_where_the_corrected_p_says_so(
        bundle: ReportBundle, low: float, holm: float, says: str) -> None:
    table = bundle.table.with_columns(auroc_gap_low=pl.lit(low), auroc_gap_high=pl.lit(0.2),
                                      auroc_gap_p_holm=pl.lit(holm))
    assert says in headline(table, "decomposition")[0]


def test_a_p_value_near_nothing_is_said_to_be_below_in_the_headline(bundle: ReportBundle) -> None:
    table = bundle.table.with_columns(auroc_gap_p=pl.lit(0.0002), auroc_gap_p_holm=pl.lit(0.0008))
    assert "p < 0.001, Holm < 0.001: " in headline(table, "decomposition")[0]


def test_each_case_has_a_radio_button_and_a_panel_that_it_shows(page: _Page, source: str) -> None:
    buttons = [one for one in page.all("input") if one["type"] == "radio"]
    assert [one["id"] for one in buttons] == ["case-pick-1", "case-pick-2"]
    assert {one["name"] for one in buttons} == {"case"}
    assert ["checked" in one for one in buttons] == [True, False]
    for number in (1, 2):
        assert f".browser:has(#case-pick-{number}:checked) #case-panel-{number}" in source
        assert f"case-panel-{number}" in [one.get("id") for one in page.all("div")]
    assert page.text.count("could not be read; it counts with risk 0.5") == 2


def test_each_figure_names_the_artifact_that_it_is_from(page: _Page) -> None:
    assert "#made-2" in [one.get("href") for one in page.all("a")]
    assert [one.get("id") for one in page.all("tr") if one.get("id")] == ["made-0", "made-1", "made-2", "made-3"]
    assert "→ cohort-1 → verdicts-1" in " ".join(page.text.split())


def test_the_tree_is_a_picture_and_a_list(page: _Page) -> None:
    assert "N = 1, Q = 0.10, r = 80, R = 0.10, kept, rank 1" in page.text
    assert page.text.count("Depth 1: N = 1") == 1


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_real_browser_finds_nothing_to_complain_of_and_shows_one_case(source: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(source, encoding="utf-8")
    wide = ("<p id='probe'></p><script>const shown = [...document.querySelectorAll('.panel')].map("
            "one => getComputedStyle(one).display); document.getElementById('case-pick-2').click();"
            "document.getElementById('probe').textContent = shown + ' then ' + [...document.querySelectorAll("
            "'.panel')].map(one => getComputedStyle(one).display);</script></body>")
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source).replace("</body>", wide)
    (tmp_path / "probed.html").write_text(probed, encoding="utf-8")
    page, probe = (_browsed(tmp_path, name) for name in ("page.html", "probed.html"))
    assert "CONSOLE" not in page.stderr and "Case studies" in page.stdout
    assert "block,none then none,block" in probe.stdout


def _browsed(folder: Path, name: str) -> "subprocess.CompletedProcess[str]":
    """The page as chromium sees it, and what it logs; it may reach no host."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
               f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--dump-dom",
               (folder / name).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


def test_nested_values_become_dotted_rows() -> None:
    assert flat({"a": {"b": 1.23456, "c": [1, 2]}, "d": [{"e": None}]}) == [
        ("a.b", "1.235"), ("a.c", "1, 2"), ("d[0].e", "–")]


def _headline(stays: int, patients: int, positive: int, negative: int) -> list[str]:
    table = pl.DataFrame({"arm": ["expert"], "reading": ["model"], "n": [stays], "positives": [stays // 2],
                          "patients": [patients], "positive_patients": [positive], "negative_patients": [negative],
                          **{f"{name}_{part}": [0.5] for name in ("auroc", "auprc", "brier")
                             for part in ("point", "mean", "sd")},
                          **{f"{name}_seed_sd": [None] for name in ("auroc", "auprc")}, "auroc_gap_p": [None]})
    return headline(table, "decomposition")


@pytest.mark.parametrize(("positive", "warned"), [(2, True), (FEWEST, False), (38, True), (30, False)])
def test_too_few_patients_of_one_outcome_come_before_every_figure(positive: int, warned: bool) -> None:
    first = _headline(100, 40, positive, 40 - positive)[0]
    assert first.startswith(f"Only {min(positive, 40 - positive)} of the 40 test patients") == warned


def test_a_test_split_of_one_patient_is_called_so_and_compares_nothing() -> None:
    told = _headline(30, 1, 1, 1)
    assert told[0].startswith("Only 1 of the 1 test patients")
    assert told[1].startswith("All 30 test stays are of one patient: intervals are over resamples of these stays")


def test_a_study_of_one_patient_gets_its_report_without_differences() -> None:
    stays = stays_of(90).with_columns(patient_id=pl.lit("p"))
    verdicts = pl.concat([verdicts_of("decomposition", stays, 1.0), verdicts_of("stage1+2", stays, 2.0)])
    table = tables.results(verdicts, 20, 1, patients=dict(stays.select("stay_id", "patient_id").iter_rows()),
                           interval_bootstraps=30)
    assert table["auroc_gap_p"].null_count() == table.height and table["patients"].to_list() == [1] * 4
    assert (table["auroc_low"] < table["auroc_high"]).all()
    found = appraise(verdicts, table, stays, Evaluation(interval_bootstraps=30), 1, 4, hidden)
    assert found.differences.is_empty() and found.power.is_empty() and found.reliability.is_empty()
    bundle = ReportBundle(study="study", created="now", outcome="mortality", table=table, verdicts=verdicts,
                          appraisal=found)
    for text in (_Page(render(bundle)).text, markdown(bundle)):
        assert "test stays are of one patient" in text and "p = " not in text
