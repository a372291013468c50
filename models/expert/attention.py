"""What the trained expert attends to: readings for every stay, risks, and the health of the attention.

`python -m models.expert.attention --job JOB.json` with {"cohort": folder, "expert": folder of the training, "out":
folder, "section": values of configs.schema.Expert, "seed": int}. Out, in `out`:

    readings.parquet          contract READINGS: all stays, F + 1 tokens, at the last visit
    risks.parquet             stay_id, split, first, last: risk on the first day, asked about a stay that has only
                              this day so far, and at the last visit
    visits_attention.parquet  for the first test stays: stay_id, visit, day, feature, attention (readout at that visit),
                              weight (time attention of the last reading on that visit; null for the static token,
                              and for an architecture without such attention)
    health.json               figures of models.expert.health, and warnings
    progress.jsonl, done.json

Nothing here sees a label: the health is that of the attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from contracts.cohort_files import FIRST
from contracts.errors import ContractError, StorageError
from contracts.features import STATIC
from contracts.frames import READINGS
from models.expert import health
from models.expert.batches import Batch, Stays, read_stays
from models.expert.loading import ExpertModel, load_expert, load_weights, portions, read, read_at, read_description
from models.expert.training import LOWER, NEEDS, section_of
from models.job import DONE, Job, job, write_json
from models.progress import ProgressLog

HEAT_MAP_STAYS = 64


def attend(values: Job) -> dict[str, Any]:
    """Runs the whole job; returns the content of done.json."""
    section, out, folder = section_of(values), Path(values["out"]), Path(values["expert"])
    cohort, expert = Path(values["cohort"]), load_expert(folder)
    stays, first = read_stays(cohort), read_stays(cohort, FIRST)
    _check_features(stays, expert)
    log = ProgressLog(out / "progress.jsonl", 3)
    risk, attention = read(expert, stays.batch)
    _write(readings_of(stays, risk, attention), out / "readings.parquet")
    _write(risks_of(stays, first, expert), out / "risks.parquet")
    log.log(1, stays=len(risk))
    shown = stays.rows("test")[:HEAT_MAP_STAYS]
    _write(attention_by_visit(expert, stays.batch.select(shown), [stays.stay_ids[row] for row in shown.tolist()]),
           out / "visits_attention.parquet")
    log.log(2)
    attentions = [attention, *attentions_of_others(folder, expert, stays.batch)]
    report = examine(stays, expert, attentions, section.permutations, int(values["seed"]),
                     truth_of(cohort, stays))
    write_json(out / "health.json", report)
    log.log(3, effective_tokens=report["effective_tokens"]["mean"], warnings=len(report["warnings"]))
    summary = {"stays": len(risk), "warnings": report["warnings"],
               "metrics": {"effective_tokens": report["effective_tokens"]["mean"],
                           "static_share": report["static_share"]["mean"],
                           "permutation_jaccard_at_5": report["permutation"]["jaccard_at_5"]}}
    write_json(out / DONE, summary)
    return summary


def asked(expert: Path, cohort: Path) -> pl.DataFrame:
    """Contract READINGS: a trained expert asked about the stays of a folder that is laid out like a cohort.

    Args:
        expert: folder of its training.
        cohort: folder with stays.parquet, filled.parquet, scaling.json and meta.json, of the expert's features.

    Raises:
        ContractError: the features are not those of the expert.
    """
    stays, model = read_stays(cohort), load_expert(expert)
    _check_features(stays, model)
    return readings_of(stays, *read(model, stays.batch))


def readings_of(stays: Stays, risk: Tensor, attention: Tensor) -> pl.DataFrame:
    """Contract READINGS of risks (N,) and attention (N, F + 1); equal attentions are ranked in catalogue order."""
    exact = attention.double()
    exact = exact / exact.sum(dim=1, keepdim=True)
    ranks = exact.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    tokens = [*stays.features, STATIC]
    size, count = exact.shape
    frame = pl.DataFrame({
        "stay_id": [stay for stay in stays.stay_ids for _ in range(count)],
        "risk": risk.double().repeat_interleave(count).numpy(), "feature": tokens * size,
        "attention": exact.flatten().numpy(), "rank": ranks.flatten().to(torch.int32).numpy()})
    return READINGS.check(frame)


def risks_of(stays: Stays, first: Stays, expert: ExpertModel) -> pl.DataFrame:
    """stay_id, split, and the risk on the first day and at the last visit.

    Args:
        stays: with all their visits. first: the same with their first day alone; nothing else could keep what comes
            later, its length included, from the first risk.
    """
    risks = [torch.sigmoid(read_at(expert.model, one.batch, one.batch.last.unsqueeze(1)).logits[:, 0].double()).numpy()
             for one in (first, stays)]
    return pl.DataFrame({"stay_id": stays.stay_ids, "split": stays.splits, "first": risks[0], "last": risks[1]})


def attention_by_visit(expert: ExpertModel, batch: Batch, stay_ids: list[str]) -> pl.DataFrame:
    """Attention at every visit of B stays, long: stay_id, visit, day, feature, attention, weight (see the header).

    An architecture without attention over visits has no weights.

    Args:
        batch: B stays.
        stay_ids: their B identifiers.
    """
    with torch.no_grad():
        reading = expert.model(batch, over_visits=True)
    tokens = [*expert.features, STATIC]
    rows = []
    for row, stay in enumerate(stay_ids):
        length = int(batch.last[row]) + 1
        weights = torch.full((length, len(tokens)), torch.nan)
        if reading.over_visits.numel():
            weights[:, :-1] = reading.over_visits[row, length - 1, :, :length].T
        rows.append(pl.DataFrame({
            "stay_id": stay, "visit": [visit for visit in range(length) for _ in tokens],
            "day": batch.days[row, :length].double().repeat_interleave(len(tokens)).numpy(),
            "feature": tokens * length, "attention": reading.attention[row, :length].double().flatten().numpy(),
            "weight": weights.double().flatten().numpy()}))
    return pl.concat(rows).with_columns(pl.col("visit").cast(pl.Int32), pl.col("weight").fill_nan(None))


def examine(stays: Stays, expert: ExpertModel, attentions: list[Tensor], permutations: int, seed: int,
            effects: Tensor | None = None) -> dict[str, Any]:
    """The content of health.json.

    Args:
        attentions: (N, F + 1) for each seed, the winner's first.
        permutations: repeats of the permutation importance.
        seed: of its shuffles and of the sample of stays.
        effects: (N, F + 1), planted; None for real patients.
    """
    attention = attentions[0]
    known = torch.nn.functional.pad(stays.batch.mask.any(dim=1), (0, 1), value=True)
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(attention), generator=generator)[:health.STAYS_PERTURBED].sort().values
    parts = [expert.model.tokens(stays.batch.select(sample[rows]), stays.batch.last[sample[rows]].unsqueeze(1))
             for rows in portions(len(sample))]
    importance = health.permutation_importance(
        expert.model, torch.cat([tokens[:, 0] for tokens, _ in parts]).detach(),
        torch.cat([seen[:, 0] for _, seen in parts]), permutations, seed)
    report = {"stays": len(attention), "tokens": attention.shape[1], **health.shape_of(attention, known),
              "stability": health.stability(attentions),
              "permutation": {"repeats": permutations, **health.agreement(attention[sample], importance)}}
    if effects is not None:
        report["truth"] = health.truth_agreement(attention, effects)
    return {**report, "warnings": health.warnings(report)}


def attentions_of_others(folder: Path, expert: ExpertModel, batch: Batch) -> list[Tensor]:
    """Attention (N, F + 1) at the last visit by each seed of the training but the winner."""
    selection = read_description(folder)["selection"]
    numbers = [row["number"] for row in selection["table"] if row["number"] != selection["winner"]]
    return [read(load_weights(folder / f"seed-{number}" / "model.safetensors", len(expert.features), expert.section),
                 batch)[1] for number in numbers]


def truth_of(cohort: Path, stays: Stays) -> Tensor | None:
    """Planted effects (N, F + 1) of a generated cohort, 0 where there is none; None for real patients.

    Raises:
        ContractError: truth.parquet names a feature that the cohort does not have.
    """
    path = cohort / "truth.parquet"
    if not path.is_file():
        return None
    truth = pl.read_parquet(path).filter(pl.col("stay_id").is_in(stays.stay_ids))
    rows = {stay: row for row, stay in enumerate(stays.stay_ids)}
    columns = {name: column for column, name in enumerate((*stays.features, STATIC))}
    unknown = sorted(set(truth["feature"]) - set(columns))
    if unknown:
        raise ContractError(f"{path} names {unknown[:5]}", "features of the catalogue, or the static token",
                            "recompute the cohort")
    effects = torch.zeros(len(rows), len(columns))
    for stay, feature, effect in truth.select("stay_id", "feature", "effect").iter_rows():
        effects[rows[stay], columns[feature]] = effect
    return effects


def _check_features(stays: Stays, expert: ExpertModel) -> None:
    if stays.features != expert.features:
        odd = sorted(set(stays.features) ^ set(expert.features)) or ["their order"]
        raise ContractError(f"cohort and expert differ in {odd[:5]}", "the expert reads the catalogue of the cohort",
                            "train the expert again on this cohort")


def _write(frame: pl.DataFrame, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path, compression="zstd")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", "a writable folder with free space",
                           "free disk space or choose another paths.workspace, then run again") from error


if __name__ == "__main__":
    job(attend, (*NEEDS, "expert"), LOWER)
