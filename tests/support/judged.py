"""Small made-up cohorts and verdicts for the tests of the evaluation room; numbers are drawn, nobody is behind them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from contracts.frames import READINGS, STAYS
from evaluation.verdicts import SCHEMA
from prompts.mentions import Mention

FEATURES = ("Lactate", "Platelets", "Noise")
POLICY_ARMS = {"vanilla": 0.6, "think": 0.8, "decomposition": 1.0, "stage1": 1.5, "stage1+2": 2.2}


class Finder:
    """Finds one word, however it is written; stands for the catalogue's finder.

    Args:
        spell: how the catalogue writes a name.
    """

    def __init__(self, word: str = "Lactate", spell: Callable[[str], str] = str.capitalize) -> None:
        self._word, self._spell = word, spell

    def find(self, text: str) -> list[Mention]:
        return [Mention(self._word, *found.span()) for found in re.finditer(self._word, text, re.IGNORECASE)]

    def canonical_names(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(self._spell, names)))


def stays_of(count: int, seed: int = 0) -> pl.DataFrame:
    """`count` stays, a third each of train, validation and test."""
    draw = np.random.default_rng(seed)
    rows = [{"stay_id": f"s{number:03d}", "patient_id": f"p{number:03d}", "age": float(draw.integers(20, 90)),
             "sex": "male" if number % 2 else "female", "admitted_at": datetime(2020, 1, 1),
             "discharged_at": datetime(2020, 1, 9), "label": int(draw.random() < 0.45),
             "split": ("train", "train", "test")[number % 3]} for number in range(count)]
    return pl.DataFrame(rows, schema=STAYS.dtypes)


def filled_of(stays: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Three visits a stay: lactate rises and platelets fall towards a death, noise tells nothing."""
    draw = np.random.default_rng(seed)
    rows = []
    for stay, label in stays.select("stay_id", "label").iter_rows():
        for visit in range(3):
            near = label * (visit + 1) / 3
            rows.append({"stay_id": stay, "visit": visit, "day": float(visit), "is_summary": False,
                         "Lactate": None if draw.random() < 0.2 else 2.0 + 2.5 * near + draw.normal(),
                         "Platelets": 200.0 - 50.0 * near + 40.0 * draw.normal(), "Noise": draw.normal()})
    return pl.DataFrame(rows, schema={"stay_id": pl.String, "visit": pl.Int32, "day": pl.Float64,
                                      "is_summary": pl.Boolean, **dict.fromkeys(FEATURES, pl.Float64)})


def write_cohort(folder: Path, count: int = 150, seed: int = 0) -> pl.DataFrame:
    """Writes the files of a cohort folder that the baselines read; returns the stays."""
    stays = stays_of(count, seed)
    filled = filled_of(stays, seed)
    train = filled.join(stays.filter(pl.col("split") == "train"), on="stay_id", how="semi")
    scaling = {name: _moments(train[name].drop_nulls().to_numpy()) for name in FEATURES}
    scaling["age"] = _moments(stays.filter(pl.col("split") == "train")["age"].to_numpy())
    folder.mkdir(parents=True, exist_ok=True)
    stays.write_parquet(folder / "stays.parquet")
    filled.write_parquet(folder / "filled.parquet")
    filled.filter(pl.col("visit") == 0).write_parquet(folder / "first.parquet")
    (folder / "scaling.json").write_text(json.dumps(scaling), encoding="utf-8")
    return stays


def _moments(values: np.ndarray) -> dict[str, float]:
    mean, sd = float(values.mean()), float(values.std())
    return {"mean": mean, "sd": sd, "low": mean - 5 * sd, "high": mean + 5 * sd}


def readings_of(stays: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """An expert that is good but not perfect, with attention over the features and "Age & Sex"."""
    draw = np.random.default_rng(seed)
    rows = []
    for stay, label in stays.select("stay_id", "label").iter_rows():
        weights = draw.dirichlet([4.0, 2.0, 0.5, 1.0])
        ranks = np.argsort(np.argsort(-weights)) + 1
        risk = float(1 / (1 + np.exp(-(3 * label - 1.5 + draw.normal()))))
        rows += [{"stay_id": stay, "risk": risk, "feature": name, "attention": float(weight), "rank": int(rank)}
                 for name, weight, rank in zip((*FEATURES, "Age & Sex"), weights, ranks, strict=True)]
    return pl.DataFrame(rows, schema=READINGS.dtypes)


def readings_ranking(ranked: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """An expert that looks at the names of each stay in their order, with attention that halves."""
    rows = [{"stay_id": stay, "risk": 0.5, "feature": name, "attention": 0.5**rank, "rank": rank}
            for stay, names in ranked.items() for rank, name in enumerate(dict.fromkeys(names), 1)]
    return pl.DataFrame(rows, schema=READINGS.dtypes)


def verdicts_of(arm: str, stays: pl.DataFrame, skill: float, seed: int = 0) -> pl.DataFrame:
    """A policy arm on the test stays: every eighth answer cannot be read."""
    draw = np.random.default_rng(seed)
    rows = []
    for number, (stay, label) in enumerate(stays.filter(pl.col("split") == "test").select("stay_id", "label").rows()):
        risk = float(1 / (1 + np.exp(-(skill * (2 * label - 1) + draw.normal()))))
        parsed = number % 8 != 3
        text = f"<Final answer> {risk:.2f} </Final answer>" if parsed else "no idea"
        rows.append({"arm": arm, "stay_id": stay, "label": label, "text": text, "parsed": parsed,
                     "probability": round(risk, 1) if parsed else 0.5, "token_probability": risk if parsed else 0.5,
                     "features": ["Lactate", "Noise"] if parsed else [], "prompt_tokens": 300,
                     "completion_tokens": 40, "well_formed": parsed, "truncated": not parsed,
                     "reading": "tokens" if parsed else "none"})
    return pl.DataFrame(rows, schema=SCHEMA)


def risky(stays: pl.DataFrame, arm: str, reading: str, noise: float) -> pl.DataFrame:
    """Verdicts of one arm that sees the label of each stay through noise, drawn for each stay alone."""
    rows = []
    for stay, label in stays.select("stay_id", "label").iter_rows():
        draw = np.random.default_rng([*map(ord, stay), *map(ord, arm)])
        risk = float(np.clip(0.3 + 0.4 * label + noise * draw.normal(), 0.0, 1.0))
        rows.append({"arm": arm, "stay_id": stay, "label": label, "text": "", "parsed": True, "probability": risk,
                     "token_probability": risk, "features": [], "prompt_tokens": 1, "completion_tokens": 1,
                     "well_formed": True, "truncated": False, "reading": reading})
    return pl.DataFrame(rows, schema=SCHEMA)
