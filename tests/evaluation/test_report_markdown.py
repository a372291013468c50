from dataclasses import replace

import polars as pl
import pytest

from configs.schema import Evaluation
from ehr.small_cells import hidden
from evaluation import tables
from evaluation.appraisal import appraise
from evaluation.baselines import judge_expert
from evaluation.report import ReportBundle
from evaluation.report_markdown import markdown
from support.judged import readings_of, stays_of, verdicts_of


@pytest.fixture(scope="module")
def bundle() -> ReportBundle:
    stays = stays_of(120)
    verdicts = pl.concat([*(verdicts_of(arm, stays, skill) for arm, skill in (("decomposition", 1.0), ("stage1", 2.0))),
                          judge_expert(readings_of(stays), stays)])
    table = tables.results(verdicts, 20, 1, interval_bootstraps=60)
    found = appraise(verdicts, table, stays, Evaluation(interval_bootstraps=60), 1, 5, hidden)
    return ReportBundle(study="trial", created="today", outcome="mortality", table=table, verdicts=verdicts,
                        appraisal=found, findings=[{"level": "warning", "value": "3 of\n40 <b>days</b>.",
                                                    "rule": "none", "next_step": "look", "count": 3}])


def test_the_text_holds_table_differences_power_subgroups_and_warnings(bundle: ReportBundle) -> None:
    text = markdown(bundle)
    for words in ("# Study trial", tables.markdown(bundle.table).strip(), "## Differences", "p (Holm)", "## Power",
                  "80 % power", "## Subgroups", "Counts of fewer than 5 patients", "## Decision curves",
                  "single patients can be counted off their steps", "sex female", "60 bootstrap resamples",
                  "not a medical device",
                  "- warning: 3 of 40 &lt;b>days&lt;/b>. What would be right: none. Next: look."):
        assert words in text
    assert not any(stay in text for stay in bundle.verdicts["stay_id"].unique())


def test_tables_are_separated_from_the_text_around_them(bundle: ReportBundle) -> None:
    lines = markdown(bundle).splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        assert not line.startswith("|") or before == "" or before.startswith("|")


@pytest.mark.parametrize(("findings", "says"), [(None, "no check of the cohort"), ([], "Nothing stood out")])
def test_absent_and_empty_checks_are_told_apart(bundle: ReportBundle, findings: list | None, says: str) -> None:
    assert says in markdown(replace(bundle, findings=findings))


def test_without_an_appraisal_the_table_stands_alone(bundle: ReportBundle) -> None:
    text = markdown(replace(bundle, appraisal=None))
    assert "## Results" in text and "## Power" not in text
