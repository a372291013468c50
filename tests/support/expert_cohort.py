"""A small cohort folder with a planted risk, as stage 1 writes it, and made-up batches."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from contracts.features import catalogue
from contracts.frames import STAYS, check_visits
from models.expert.batches import Batch

NAMES = catalogue("mimic_iv").names
PLANTED = ("Heart Rate", "pH")


def write_cohort(folder: Path, stays: int = 150, seed: int = 0, label_of_all: int | None = None) -> Path:
    """Writes a cohort whose label follows the last heart rate and pH; returns the folder."""
    rng = np.random.default_rng(seed)
    illness = rng.normal(size=stays)
    label = (illness > 0.2).astype(int) if label_of_all is None else np.full(stays, label_of_all)
    ids = [f"s{number:04d}" for number in range(stays)]
    visits = _visits(ids, illness, rng)
    names = rng.choice(["train", "validation", "test"], p=[0.6, 0.2, 0.2], size=stays)
    began = [datetime(2150, 1, 1) + timedelta(days=number) for number in range(stays)]
    frame = pl.DataFrame({"stay_id": ids, "patient_id": [f"p{name}" for name in ids], "age": rng.uniform(20, 90, stays),
                          "sex": rng.choice(["male", "female"], stays), "admitted_at": began,
                          "discharged_at": [start + timedelta(days=9) for start in began],
                          "label": label, "split": names}, schema=dict(STAYS.dtypes))
    filled = visits.with_columns(pl.col(NAMES).forward_fill().over("stay_id"))
    folder.mkdir(parents=True, exist_ok=True)
    first = visits.filter(pl.col("visit") == 0)
    for name, rows in (("stays", frame), ("visits", visits), ("filled", filled), ("first", first)):
        rows.write_parquet(folder / f"{name}.parquet")
    scaling = {name: {"mean": 0.0, "sd": 1.0, "low": -5.0, "high": 5.0} for name in NAMES}
    scaling["age"] = {"mean": 55.0, "sd": 20.0, "low": 0.0, "high": 120.0}
    (folder / "scaling.json").write_text(json.dumps(scaling))
    pl.DataFrame({"stay_id": [name for name in ids for _ in PLANTED], "feature": list(PLANTED) * stays,
                  "effect": np.repeat(illness, 2) * np.tile([2.0, -1.0], stays), "rank": [1, 2] * stays},
                 schema_overrides={"rank": pl.Int32}).write_parquet(folder / "truth.parquet")
    (folder / "meta.json").write_text(json.dumps({"catalogue": "mimic_iv", "outcome": "mortality"}))
    return folder


def _visits(ids: list[str], illness: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    lengths = rng.integers(1, 6, len(ids))
    stay = np.repeat(np.arange(len(ids)), lengths)
    visit = np.concatenate([np.arange(length) for length in lengths])
    values = rng.normal(size=(stay.size, len(NAMES)))
    course = (visit + 1) / lengths[stay]
    values[:, NAMES.index(PLANTED[0])] = 2.0 * illness[stay] * course + 0.3 * rng.normal(size=stay.size)
    values[:, NAMES.index(PLANTED[1])] = -1.0 * illness[stay] * course + 0.3 * rng.normal(size=stay.size)
    values[rng.random(values.shape) < 0.2] = np.nan
    frame = pl.DataFrame({"stay_id": [ids[row] for row in stay], "visit": visit.astype(np.int32),
                          "day": visit.astype(float), "is_summary": visit < 0})
    columns = {name: values[:, column] for column, name in enumerate(NAMES)}
    return check_visits(frame.with_columns(pl.DataFrame(columns).fill_nan(None)), NAMES)


def random_batch(stays: int = 5, visits: int = 6, features: int = 4, seed: int = 0) -> Batch:
    """Made-up stays; the first has all visits, the last only one; gaps of one to four days."""
    made = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, visits + 1, (stays,), generator=made)
    lengths[0], lengths[-1] = visits, (1 if stays > 1 else visits)
    steps = torch.arange(visits) < lengths.unsqueeze(1)
    mask = (torch.rand(stays, visits, features, generator=made) < 0.7) & steps.unsqueeze(2)
    return Batch(torch.randn(stays, visits, features, generator=made) * mask, mask,
                 torch.randint(1, 5, (stays, visits), generator=made).cumsum(1).float() * steps, steps,
                 torch.randn(stays, 2, generator=made), torch.randint(0, 2, (stays,), generator=made).float())


def changed_from(batch: Batch, visit: int) -> Batch:
    """The batch with other values, masks and days from a visit on."""
    values, mask, days = batch.values.clone(), batch.mask.clone(), batch.days.clone()
    values[:, visit:], mask[:, visit:], days[:, visit:] = 9.0, True, days[:, visit:] + 20.0
    return replace(batch, values=values, mask=mask, days=days)


def padded(batch: Batch, visits: int) -> Batch:
    """The batch with some more visits that are none."""
    tensors = ((batch.values, (0, 0, 0, visits)), (batch.mask, (0, 0, 0, visits)), (batch.days, (0, visits)),
               (batch.steps, (0, visits)))
    return Batch(*(torch.nn.functional.pad(tensor, pad) for tensor, pad in tensors), batch.static, batch.labels)
