"""What several stages open in the same way: the patients, the catalogue, the scorer and the chat renderer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import DataError
from contracts.features import Catalogue, catalogue
from contracts.patients import Patient, patients_of
from prompts.mentions import MentionFinder
from rewards.mixture import Scorer
from tasks.stage import Work, input_file

if TYPE_CHECKING:
    from models.policy.chat import ChatRenderer


def people(work: Work, split: str | None = None) -> list[Patient]:
    """The patients of the input `patients`, all or of one split.

    Raises:
        DataError: the split is empty.
    """
    everyone = patients_of(pl.read_parquet(input_file(work, "patients", "patients.parquet")))
    chosen = [one for one in everyone if split in (None, one.split)]
    if not chosen:
        raise DataError(f"split {split!r} holds no stay", f"stage {work.name} needs at least one",
                        "use more stays, or change cohort.test_share and cohort.validation_share")
    return chosen


def catalogue_of(work: Work) -> Catalogue:
    """The feature catalogue of the input `cohort`."""
    meta = json.loads(input_file(work, "cohort", "meta.json").read_text(encoding="utf-8"))
    return catalogue(meta["catalogue"])


def scorer_of(work: Work) -> Scorer:
    """The reward of this study, for the cohort's catalogue."""
    return Scorer(MentionFinder(catalogue_of(work)), work.config.rewards)


def renderer_of(model: Path) -> ChatRenderer:
    """The model's chat template (loads transformers, which takes seconds)."""
    from models.policy.chat import ChatRenderer, load_tokenizer

    return ChatRenderer(load_tokenizer(model))


def with_both_labels(patients: Sequence[Patient], where: str) -> Sequence[Patient]:
    """The same patients, if both labels are among them.

    Raises:
        DataError: all have one label, so that no ranking can be measured.
    """
    labels = {one.label for one in patients}
    if len(labels) < 2:
        raise DataError(f"{where}: all {len(patients)} stays have label {labels}", "both labels must occur",
                        "use more stays (evaluation.stays, cohort.synthetic.stays)")
    return patients


def mean(column: pl.Series) -> float:
    """Mean of numbers, or share of True."""
    return float(column.cast(pl.Float64).sum()) / len(column)
