"""Where the gain comes from: does the policy follow the expert for the patient, and is its entropy its uncertainty?

In go verdicts, patients and the rollouts of stage 2, out come frames that hold no patient, each written as CSV and
shown by the report. Search against random sampling, and against search by outcome only, are arms of the main table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import polars as pl

from configs.schema import Evaluation
from contracts.patients import Patient
from evaluation import faithfulness, tables, uncertainty
from evaluation.risks import judged
from prompts.mentions import MentionFinder


@dataclass(frozen=True)
class Gain:
    """Frames of the report.

    Attributes:
        faithfulness: overlap of each arm with the expert against controls (`faithfulness.SCHEMA`).
        overlap_and_score: whether larger overlap goes with better prediction (`faithfulness.OVERLAP`).
        uncertainty: entropy of clinical tokens against the uncertainty of the prediction (`uncertainty.SCHEMA`).
        uncertainty_curves: the same over fifths of the entropy (`uncertainty.CURVE`).
    """

    faithfulness: pl.DataFrame
    overlap_and_score: pl.DataFrame
    uncertainty: pl.DataFrame
    uncertainty_curves: pl.DataFrame

    def frames(self) -> dict[str, pl.DataFrame]:
        """File name without ending, and frame."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def gain(verdicts: pl.DataFrame, patients: Sequence[Patient], stays: pl.DataFrame, mentions: MentionFinder,
         section: Evaluation, seed: int, smallest: int, rollouts: pl.DataFrame | None = None) -> Gain:
    """All tables about the gain.

    Args:
        verdicts: of all arms on the same test stays, with `verdicts.EXTRAS`.
        patients: of the study; holding the judged and the training stays.
        stays: stay_id and patient_id of the judged stays at least.
        mentions: of the study's catalogue.
        section: interval_bootstraps: resamples, and draws of each control.
        seed: of both; the one of the main table.
        smallest: smallest count of stays behind a point of a curve.
        rollouts: of the study's own stage 2; None: it did not run.

    Raises:
        ContractError, DataError: as `faithfulness.expected` and `risks.judged` do.
    """
    found, members = judged(verdicts), dict(stays.select("stay_id", "patient_id").iter_rows())
    drawn = tables.drawn_of(found, section.interval_bootstraps, seed, members)
    named = faithfulness.named_by(verdicts, mentions)
    sets = faithfulness.expected(found.stay_ids, patients, members, named)
    sampled = {} if rollouts is None else uncertainty.of_rollouts(rollouts)
    answers = uncertainty.of_answers(verdicts, mentions)
    return Gain(faithfulness.faithfulness(named, sets, drawn, seed),
                faithfulness.overlap_and_score(verdicts, named, sets, drawn),
                uncertainty.correlations(sampled, answers, section.interval_bootstraps, seed),
                uncertainty.curves(sampled, answers, smallest))
