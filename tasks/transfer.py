"""Stage `transfer`: the result of the transfer experiment, as table, page, Markdown and CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from configs.load import dump
from contracts.features import catalogue
from ehr import validity
from ehr.cohort import Cohort, read
from evaluation import transfer as result
from evaluation import transfer_page
from evaluation.baselines import MODEL_ARMS
from evaluation.transfer import Line
from evaluation.wording import NONE, Grid
from lineage.fingerprint import flatten
from tasks.shared import features_of
from tasks.stage import Made, Work, input_file, stage


@stage("transfer", settings=("transfer", "arms", "evaluation.interval_bootstraps", "evaluation.stays", "cohort.outcome",
                             "cohort.source", "study.name", "study.seed"),
       packages=("polars", "matplotlib", "jinja2"))
def transfer(work: Work) -> Made:
    """Writes table.{parquet,csv,md,json}, columns `evaluation.transfer.SCHEMA`, and transfer.{html,md}.

    The variant is "SOURCE to TARGET"; inputs `verdicts.ARM` are of the source's policies, `own.ARM` of the target's.
    """
    config, names = work.config, _studies(work)
    target = read(work.inputs["cohort"])
    patients = dict(target.stays.select("stay_id", "patient_id").iter_rows())
    table = result.results(_lines(work), names, config.evaluation.interval_bootstraps, config.study.seed, patients)
    page = _page(work, names, target, table)
    table.write_parquet(work.out / "table.parquet")
    table.write_csv(work.out / "table.csv")
    (work.out / "table.md").write_text(result.markdown(table), encoding="utf-8")
    (work.out / "table.json").write_text(json.dumps(table.to_dicts(), indent=1, allow_nan=False), encoding="utf-8")
    (work.out / "transfer.html").write_text(transfer_page.render(page), encoding="utf-8")
    (work.out / "transfer.md").write_text(transfer_page.markdown(page), encoding="utf-8")
    return Made(metrics=_metrics(table), show=("transfer.html", "transfer.md", "table.csv", "table.json"),
                summary="\n".join(["\n".join(f"- {line}" for line in result.headline(table)), "",
                                   result.markdown(table)]))


def _studies(work: Work) -> tuple[str, str]:
    source, _, target = work.name.partition(":")[2].partition(" to ")
    return source, target


def _lines(work: Work) -> dict[Line, pl.DataFrame]:
    """Verdicts of every line that was judged, in the order of the table."""
    found: dict[Line, pl.DataFrame] = {}
    for arm in work.config.transfer.arms:
        untrained = work.config.arms[arm].adapter == "none"
        found[Line(arm, "nothing" if untrained else "source", "shared words")] = _verdicts(work, f"verdicts.{arm}")
        if f"own.{arm}" in work.inputs:
            found[Line(arm, "nothing" if untrained else "target", "own words")] = _verdicts(work, f"own.{arm}")
    transferred = _verdicts(work, "models")
    own = _verdicts(work, "models", "own.parquet") if (work.inputs["models"] / "own.parquet").is_file() else None
    whole = _verdicts(work, "baselines") if "baselines" in work.inputs else None
    for arm in MODEL_ARMS:
        found |= {Line(arm, trained, reads): part  # type: ignore[arg-type]
                  for trained, reads, frame in (("source", "shared features", transferred),
                                                ("target", "shared features", own), ("target", "all features", whole))
                  if frame is not None and (part := frame.filter(pl.col("arm") == arm)).height}
    return found


def _verdicts(work: Work, role: str, name: str = "verdicts.parquet") -> pl.DataFrame:
    return pl.read_parquet(input_file(work, role, name))


def _page(work: Work, names: tuple[str, str], target: Cohort, table: pl.DataFrame) -> transfer_page.Page:
    config, source = work.config, read(work.inputs["source"])
    found = json.loads(input_file(work, "cohort", validity.FILE).read_text(encoding="utf-8"))["findings"]
    return transfer_page.Page(
        source=names[0], target=names[1], created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        outcome=config.cohort.outcome, table=table, features=features_of(work, "shared"),
        written_by=names[0 if config.transfer.prompts == "source" else 1],
        known=(len(catalogue(source.meta["catalogue"]).names), len(catalogue(target.meta["catalogue"]).names)),
        sites=_sites(names, source, target), warnings=found,
        without=[arm for arm in config.transfer.arms if f"own.{arm}" not in work.inputs],
        settings=_settings(work), provenance=[{"role": role, "artifact": artifact.id, "sha256": artifact.sha256}
                                              for role, artifact in work.artifacts.items()])


def _sites(names: tuple[str, str], source: Cohort, target: Cohort) -> Grid:
    """What the source trains on beside what the target is judged on. Only figures of whole splits."""
    rows = [[f"{name}, {split}", *_described(cohort, split)] for name, cohort, split in (
        (names[0], source, "train"), (names[0], source, "test"), (names[1], target, "train"),
        (names[1], target, "test"))]
    return ["Split", "Records from", "Stays", "Outcome 1", "Daily records (median)", "Age (median)", "Male"], rows


def _described(cohort: Cohort, split: str) -> list[str]:
    stays = cohort.stays.filter(pl.col("split") == split)
    if not stays.height:
        return [cohort.meta["source"], "0", *[NONE] * 4]
    ages, known = stays["age"].drop_nulls().to_numpy(), stays.filter(pl.col("sex") != "unknown")
    male = f"{100 * known['sex'].eq('male').sum() / known.height:.0f} %" if known.height else "unknown"
    positives = int(stays["label"].cast(pl.Int64).sum())
    return [cohort.meta["source"], str(stays.height), f"{100 * positives / stays.height:.1f} %",
            f"{np.median(stays['days'].to_numpy()):g}", f"{np.median(ages):g}" if ages.size else "unknown", male]


def _metrics(table: pl.DataFrame) -> dict[str, float]:
    rows = ((row, f"{row['arm']}/{row['trained']}/{row['reads'].replace(' ', '-')}/{row['reading']}")
            for row in table.iter_rows(named=True))
    return {f"{place}/{name}": row[f"{name}_point"] for row, place in rows for name in result.MEASURED}


def _settings(work: Work) -> Mapping[str, Any]:
    config = work.config
    return {**{f"transfer.{name}": json.dumps(value) for name, value in flatten(dump(config.transfer)).items()},
            "evaluation.stays": str(config.evaluation.stays), "study.seed": str(config.study.seed),
            "evaluation.interval_bootstraps": str(config.evaluation.interval_bootstraps)}
