"""Stage `report`: the result tables and the report of a study, as a page and as Markdown, from everything it made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from configs.load import dump
from contracts.patients import patients_of
from ehr import validity
from ehr.cohort import counts, read
from ehr.small_cells import hidden
from evaluation import paper_figures, tables, tripod
from evaluation.appraisal import Appraisal, appraise
from evaluation.gain import Asked, Gain, gain
from evaluation.radar import overlaps
from evaluation.report import ReportBundle, headline, render_both
from evaluation.report_markdown import markdown
from evaluation.risks import reference_of
from evaluation.seeds import by_seed
from evaluation.study_facts import Known, facts
from evaluation.tripod import checklists
from models.progress import read as read_progress
from prompts.mentions import MentionFinder
from tasks import report_parts
from tasks.costs import costs_of
from tasks.people import catalogue_of
from tasks.report_inputs import asked_of, guides_of, retrained, seeds_of, validation_of, verdicts_of
from tasks.stage import Made, Work, input_file, stage

# The page without case studies and search tree: the only one that leaves the artifact, for MLflow.
TO_SHARE = "report_to_share.html"


@stage("report",
       settings=("study", "cohort", "expert", "prompts", "rewards", "search", "policy", "evaluation", "serving",
                 "arms"),
       packages=("polars", "matplotlib", "jinja2", "scikit-learn", "scipy"))
def report(work: Work) -> Made:
    """Writes report.html, the same without patients, report.md, table.{parquet,csv,md,json}, one CSV for each table of
    the appraisal, tripod.md, and a model card for each adapter."""
    verdicts, again, config = verdicts_of(work), retrained(work), work.config
    cohort = read(work.inputs["cohort"])
    people = dict(cohort.stays.select("stay_id", "patient_id").iter_rows())
    paper = paper_figures.figures_for(config.cohort.source, config.cohort.outcome, config.cohort.split)
    section = config.evaluation
    measure = partial(tables.results, verdicts, section.bootstraps, config.study.seed, patients=people, paper=paper,
                      interval_bootstraps=section.interval_bootstraps, reference=reference_of(config))
    table = measure(retrained=again)
    alone = measure() if again else table  # of each arm's first adapter: a card is about one
    found = appraise(verdicts, table, cohort.stays, config.evaluation, config.study.seed, config.cohort.smallest_cell,
                     hidden, validation_of(work, cohort.stays), reference_of(config))
    asked = asked_of(work)
    explained, spent = _gain(work, verdicts, asked, cohort.stays), costs_of(work)
    frames = {**found.frames(), **explained.frames(), "seeds": by_seed([verdicts, *again], seeds_of(work)),
              "cost": spent.arms, "cost_stages": spent.stages}
    _write_table(table, work.out)
    for name, frame in frames.items():
        frame.write_csv(work.out / f"{name}.csv")
    bundle = replace(_bundle(work, table, verdicts, asked, counts(cohort), found, explained), costs=spent)
    known = facts(Known(config, table, counts(cohort), bundle.findings or (), cohort.meta["features"],
                        cohort.meta["catalogue"], bundle.arms, bundle.provenance, found.power,
                        found.calibration, headline(table, bundle.reference), paper_figures.SOURCE if paper else None))
    bundle = replace(bundle, checklists=checklists(known))
    (work.out / "tripod.md").write_text(tripod.markdown(bundle.checklists, config.study.name), encoding="utf-8")
    report_parts.write_cards(config, bundle, known, alone, work.out)
    for name, page in zip(("report.html", TO_SHARE), render_both(bundle), strict=True):
        (work.out / name).write_text(page, encoding="utf-8")
    (work.out / "report.md").write_text(markdown(bundle), encoding="utf-8")
    return Made(metrics=_metrics(table), summary=tables.markdown(table),
                show=(TO_SHARE, "report.md", "tripod.md", "table.csv", "table.json",
                      *(f"{name}.csv" for name in frames)))


def _gain(work: Work, verdicts: pl.DataFrame, asked: Sequence[Asked], stays: pl.DataFrame) -> Gain:
    """Where the gain comes from, with the rollouts of the study's own stage 2 if it ran."""
    rollouts = work.inputs["rl"] / "rollouts.parquet" if "rl" in work.inputs else None
    return gain(verdicts, asked, guides_of(work), stays, MentionFinder(catalogue_of(work)), work.config.evaluation,
                work.config.study.seed, work.config.cohort.smallest_cell,
                pl.read_parquet(rollouts) if rollouts is not None and rollouts.exists() else None)


def _write_table(table: pl.DataFrame, out: Path) -> None:
    table.write_parquet(out / "table.parquet")
    table.write_csv(out / "table.csv")
    (out / "table.md").write_text(tables.markdown(table), encoding="utf-8")
    rows = [dict(zip(tables.headers(table), row, strict=True)) for row in tables.cells(table)]
    (out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _metrics(table: pl.DataFrame) -> dict[str, float]:
    """AUROC, AUPRC and Brier of every arm and reading, and their spread over seeds where there are several."""
    values: dict[str, float] = {}
    for row in table.iter_rows(named=True):
        for metric in ("auroc", "auprc", "brier"):
            name = f"{row['arm']}/{row['reading']}/{metric}"
            spread = row[f"{metric}_seed_sd"]
            values |= {name: row[f"{metric}_point"], **({} if spread is None else {f"{name}_seed_sd": spread})}
    return values


def _bundle(work: Work, table: pl.DataFrame, verdicts: pl.DataFrame, asked: Sequence[Asked],
            counted: Mapping[str, Any], found: Appraisal, explained: Gain) -> ReportBundle:
    config = work.config
    patients = patients_of(pl.read_parquet(input_file(work, "patients", "patients.parquet")))
    mentions = MentionFinder(catalogue_of(work))
    return ReportBundle(
        study=config.study.name, created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        outcome=config.cohort.outcome,
        table=table, verdicts=verdicts, reference=reference_of(config), arms=report_parts.arms(config),
        notes=_json(input_file(work, "baselines", "notes.json")),
        stage1=_json(input_file(work, "check", "check.json")) if "check" in work.inputs else None,
        rl_steps=_steps(work) if "rl" in work.inputs else None,
        readings=pl.read_parquet(input_file(work, "readings", "readings.parquet")),
        health=_json(input_file(work, "readings", "health.json")),
        cases=report_parts.cases(config, verdicts, asked, mentions), quantiles=config.evaluation.cases,
        tree=report_parts.tree(work, patients, mentions),
        overlap=overlaps(verdicts, {one.stay_id: one.expert_features for one in patients}, mentions),
        counts={**counted["splits"], "total": counted["total"]}, attrition=counted["attrition"],
        findings=_json(input_file(work, "cohort", validity.FILE))["findings"], appraisal=found, gain=explained,
        smallest_cell=config.cohort.smallest_cell,
        settings=dump(config), provenance=report_parts.links(work))


def _steps(work: Work) -> pl.DataFrame:
    """The RL curve: the last entry of each optimiser step."""
    steps = {entry.step: {"step": entry.step, **entry.metrics}
             for entry in read_progress(input_file(work, "rl", "progress.jsonl"))}
    return pl.DataFrame(list(steps.values()), infer_schema_length=None).sort("step") if steps else pl.DataFrame()


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
