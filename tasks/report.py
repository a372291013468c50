"""Stage `report`: the result tables and the report of a study, as a page and as Markdown, from everything it made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from configs.load import dump
from configs.schema import Config
from contracts.patients import patients_of
from ehr import validity
from ehr.cohort import counts, read
from ehr.small_cells import hidden
from evaluation import paper_figures, tables
from evaluation.appraisal import Appraisal, Validation, appraise
from evaluation.baselines import EXPERT
from evaluation.case_study import study_case
from evaluation.report import ReportBundle, render
from evaluation.report_markdown import markdown
from evaluation.risks import FIRST, MODEL
from lineage.fingerprint import git_commit
from models.progress import read as read_progress
from prompts.mentions import MentionFinder
from tasks.people import catalogue_of
from tasks.stage import Made, Work, input_file, stage


@stage("report",
       settings=("study", "cohort", "expert", "prompts", "rewards", "search", "policy", "evaluation", "serving",
                 "arms"),
       packages=("polars", "matplotlib", "jinja2", "scikit-learn", "scipy"))
def report(work: Work) -> Made:
    """Writes report.html, report.md, table.{parquet,csv,md,json} and one CSV for each table of the appraisal."""
    verdicts, config = _verdicts(work), work.config
    cohort = read(work.inputs["cohort"])
    people = dict(cohort.stays.select("stay_id", "patient_id").iter_rows())
    paper = paper_figures.figures_for(config.cohort.source, config.cohort.outcome, config.cohort.split)
    table = tables.results(verdicts, config.evaluation.bootstraps, config.study.seed, patients=people, paper=paper,
                           interval_bootstraps=config.evaluation.interval_bootstraps)
    found = appraise(verdicts, table, cohort.stays, config.evaluation, config.study.seed, config.cohort.smallest_cell,
                     hidden, _expert_on_validation(work, cohort.stays))
    _write_table(table, work.out)
    for name, frame in found.frames().items():
        frame.write_csv(work.out / f"{name}.csv")
    bundle = _bundle(work, table, verdicts, counts(cohort), found)
    (work.out / "report.html").write_text(render(bundle), encoding="utf-8")
    (work.out / "report.md").write_text(markdown(bundle), encoding="utf-8")
    return Made(metrics=_metrics(table), summary=tables.markdown(table),
                show=("report.html", "report.md", "table.csv", "table.json",
                      *(f"{name}.csv" for name in found.frames())))


def _expert_on_validation(work: Work, stays: pl.DataFrame) -> Validation:
    """Labels and risks of the expert on validation stays, on which its recalibration is fitted."""
    readings = pl.read_parquet(input_file(work, "readings", "readings.parquet"))
    risks = readings.group_by("stay_id").agg(pl.col("risk").first())
    known = stays.filter(pl.col("split") == "validation").join(risks, on="stay_id", how="inner").sort("stay_id")
    return {(EXPERT, MODEL): (known["label"].cast(pl.Int64).to_numpy(), known["risk"].to_numpy())}


def _verdicts(work: Work) -> pl.DataFrame:
    """Verdicts of all arms, those of the first visit last, policies before models."""
    arms = [f"verdicts.{arm}" for arm in work.config.evaluation.arms]
    first = [role for role in (f"{arm}{FIRST}" for arm in arms) if role in work.inputs]
    frame = pl.concat([pl.read_parquet(input_file(work, role, "verdicts.parquet"))
                       for role in [*arms, *first, "baselines"]])
    early = pl.col("arm").str.ends_with(FIRST)
    return pl.concat([frame.filter(~early), frame.filter(early)])


def _write_table(table: pl.DataFrame, out: Path) -> None:
    table.write_parquet(out / "table.parquet")
    table.write_csv(out / "table.csv")
    (out / "table.md").write_text(tables.markdown(table), encoding="utf-8")
    rows = [dict(zip(tables.headers(table), row, strict=True)) for row in tables.cells(table)]
    (out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _metrics(table: pl.DataFrame) -> dict[str, float]:
    """AUROC, AUPRC and Brier of every arm and reading."""
    values: dict[str, float] = {}
    for row in table.iter_rows(named=True):
        name = f"{row['arm']}/{row['reading']}"
        values |= {f"{name}/{metric}": row[f"{metric}_point"] for metric in ("auroc", "auprc", "brier")}
    return values


def _bundle(work: Work, table: pl.DataFrame, verdicts: pl.DataFrame, counted: Mapping[str, Any],
            found: Appraisal) -> ReportBundle:
    config = work.config
    patients = patients_of(pl.read_parquet(input_file(work, "patients", "patients.parquet")))
    arm, style = _case_arm(config)
    return ReportBundle(
        study=config.study.name, created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        outcome=config.cohort.outcome,
        table=table, verdicts=verdicts, arms=_arms(config), notes=_json(input_file(work, "baselines", "notes.json")),
        stage1=_json(input_file(work, "check", "check.json")) if "check" in work.inputs else None,
        rl_steps=_steps(work) if "rl" in work.inputs else None,
        readings=pl.read_parquet(input_file(work, "readings", "readings.parquet")),
        health=_json(input_file(work, "readings", "health.json")),
        case=study_case(verdicts, arm, style, patients, MentionFinder(catalogue_of(work)), config.cohort.outcome,
                        config.prompts.expert_features),
        counts={**counted["splits"], "total": counted["total"]}, attrition=counted["attrition"],
        findings=_json(input_file(work, "cohort", validity.FILE))["findings"], appraisal=found,
        smallest_cell=config.cohort.smallest_cell,
        settings=dump(config), provenance=_provenance(work))


_ANSWERS = {"none": "the base model answers", "labels": "an adapter trained on labels alone answers",
            "trajectories": "an adapter trained on the search's trajectories answers"}


def _arms(config: Config) -> list[tuple[str, str, str]]:
    """Name, title, and in words how each policy arm is made and asked."""
    rows = []
    for name in config.evaluation.arms:
        arm = config.arms[name]
        answers = _ANSWERS.get(arm.adapter, "an adapter trained by reinforcement learning answers, begun from " + (
            "the base model" if arm.start == "base" else "stage 1"))
        settings = [f"{key} = {value}" for key, value in {**arm.prepare, **arm.train}.items()]
        rows.append((name, arm.title, "; ".join([f"{arm.style} prompt", answers, *settings])))
        if "first" in config.evaluation.visits:
            rows.append((f"{name}{FIRST}", arm.title, f"as {name}, with the first visit alone in the prompt"))
    return rows


def _case_arm(config: Config) -> tuple[str, str]:
    """The arm of the case study and its prompt style: the method's, or the last one that reads the study's prompts."""
    shared = [arm for arm in config.evaluation.arms if not config.arms[arm].prepare] or config.evaluation.arms[-1:]
    arm = tables.METHOD if tables.METHOD in shared else shared[-1]
    return arm, config.arms[arm].style


def _steps(work: Work) -> pl.DataFrame:
    """The RL curve: the last entry of each optimiser step."""
    steps = {entry.step: {"step": entry.step, **entry.metrics}
             for entry in read_progress(input_file(work, "rl", "progress.jsonl"))}
    return pl.DataFrame(list(steps.values()), infer_schema_length=None).sort("step") if steps else pl.DataFrame()


def _provenance(work: Work) -> list[dict[str, str]]:
    rows = []
    for role, artifact in work.artifacts.items():
        entry = work.session.store.manifest(artifact)
        sources = ", ".join(f"{name} {digest[:12]}" for name, digest in (entry.get("sources") or {}).items())
        rows.append({"stage": role, "artifact": artifact.id, "kind": artifact.kind, "sha256": artifact.sha256,
                     "commit": str(entry.get("commit"))[:12], "MLflow run": str(entry.get("tracking_run")),
                     "source files": sources or "-"})
    return [*rows, {"stage": "report", "artifact": "(this page)", "kind": "report", "sha256": "-",
                    "commit": git_commit()[:12], "MLflow run": work.run_id, "source files": "-"}]


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
