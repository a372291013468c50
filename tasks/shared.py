"""Stage `shared`: two cohorts reduced to the features that both datasets share and measure, in the source's words.

Two variants, an artifact each, both laid out like a cohort as far as models read one: `source` (all splits, what an
expert and simple models are trained on) and `target` (converted to the source's names and units, with the source's
training statistics). `shared.json` lists the features and how often each was measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from contracts.errors import DataError
from contracts.features import catalogue
from ehr.cohort import Cohort, read
from ehr.folder import write
from ehr.scale import AGE
from lineage.store import write_json
from prompts.shared import Shared, converted, shared_features
from tasks.stage import Made, Work, input_file, stage

FILE = "shared.json"


@stage("shared", settings=(), packages=("polars", "rapidfuzz"))
def shared(work: Work) -> Made:
    """Writes the cohort folder of one side (the variant) and shared.json."""
    source, target = read(work.inputs["source"]), read(work.inputs["target"])
    _no_patient_in_both(source, target)
    rows = _measured(source, target)
    features = [_pair(row) for row in rows]
    side = source if work.name.partition(":")[2] == "source" else target
    visits, filled, first = (_reduced(frame, features, side is target)
                             for frame in (side.visits, side.filled, side.first_days))
    scaling = {name: source.scaling[name] for name in (*(one.source for one in features), AGE)}
    meta = {**side.meta, "catalogue": source.meta["catalogue"], "features": [one.source for one in features]}
    write(Cohort(stays=side.stays, visits=visits, filled=filled, scaling=scaling, attrition=(), meta=meta, first=first),
          work.out)
    write_json(work.out / FILE, {"features": rows})
    return Made(metrics={"features": float(len(rows)), "stays": float(side.stays.height)}, show=(FILE,),
                summary="\n".join(f"- {row['source']} = {row['target']}" for row in rows))


def features_of(work: Work, role: str) -> list[dict[str, Any]]:
    """Rows of shared.json: the fields of `Shared`, and the shares of stays that had a measurement, in tenths."""
    rows: list[dict[str, Any]] = json.loads(input_file(work, role, FILE).read_text(encoding="utf-8"))["features"]
    return rows


def pairs_of(work: Work, role: str) -> list[Shared]:
    """The shared features of an input."""
    return [_pair(row) for row in features_of(work, role)]


def _pair(row: dict[str, Any]) -> Shared:
    return Shared(**{name: row[name] for name in Shared.__dataclass_fields__})


def _measured(source: Cohort, target: Cohort) -> list[dict[str, Any]]:
    """Features known to both catalogues that were measured in the source's training and the target's test stays.

    Raises:
        DataError: there is none.
    """
    there = shared_features(catalogue(source.meta["catalogue"]), catalogue(target.meta["catalogue"]))
    trained = _shares(source, "train", [one.source for one in there])
    judged = _shares(target, "test", [one.target for one in there])
    rows = [{**asdict(one), "measured_source": _tenths(trained[one.source]),
             "measured_target": _tenths(judged[one.target])}
            for one in there if trained[one.source] and judged[one.target]]
    if not rows:
        known = f"; both know {', '.join(one.source for one in there)}, but one never measured it" if there else ""
        raise DataError(f"{source.meta['source']} and {target.meta['source']} share no feature{known}",
                        "a model transfers through features that both datasets measure",
                        "choose another target, or add aliases to contracts/catalogues")
    return rows


def _shares(cohort: Cohort, split: str, names: Sequence[str]) -> dict[str, float]:
    """Share of the stays of a split in which each feature was measured at all."""
    stays = cohort.stays.filter(pl.col("split") == split)
    part = cohort.filled.join(stays, on="stay_id", how="semi")
    known = part.group_by("stay_id").agg(pl.col(name).is_not_null().any() for name in names)
    return {name: int(known[name].sum()) / max(stays.height, 1) for name in names}


def _tenths(share: float) -> float:
    """A share above 0 in tenths, at least one: so it tells of no small group of patients."""
    return max(round(share, 1), 0.1)


def _reduced(frame: pl.DataFrame, features: Sequence[Shared], convert: bool) -> pl.DataFrame:
    fixed = ["stay_id", "visit", "day", "is_summary"]
    named = converted(frame, features) if convert else frame
    return named.select(*fixed, *(one.source for one in features))


def _no_patient_in_both(source: Cohort, target: Cohort) -> None:
    """Whether nobody that the source learns from is judged in the target.

    Identifiers of two datasets are unrelated; those of generated stays and of MEDS only mean the same people where the
    seed, or a file, is the same.

    Raises:
        DataError: somebody is.
    """
    if source.meta["source"] != target.meta["source"]:
        return
    files = [set(side.meta["files"].values()) for side in (source, target)]
    if source.meta["source"] == "meds" and not files[0] & files[1]:
        return
    if source.meta["source"] == "synthetic" and source.meta.get("seed") != target.meta.get("seed"):
        return
    learnt = source.stays.filter(pl.col("split") != "test").select("patient_id").unique()
    judged = target.stays.filter(pl.col("split") == "test").select("patient_id").unique()
    both = learnt.join(judged, on="patient_id", how="semi").height
    if both:
        raise DataError(f"{both} of {judged.height} test patients of the target are among the source's training or "
                        "validation patients", "a policy is judged on patients it has never seen",
                        "give both the same cohort.split and cohort.split_seed, or another target")
