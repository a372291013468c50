"""Where the gain comes from: does the policy follow the expert for the patient, and is its entropy its uncertainty?

In go verdicts, patients and the rollouts of stage 2, out come frames that hold no patient, each written as CSV and
shown by the report. Search against random sampling, and against search by outcome only, are arms of the main table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import polars as pl

from configs.schema import Evaluation
from contracts.errors import ContractError
from contracts.patients import Patient
from evaluation import citations, faithfulness, tables, uncertainty, variety
from evaluation.expert_sets import Guides
from evaluation.risks import judged
from prompts.mentions import MentionFinder


@dataclass(frozen=True)
class Asked:
    """Arms that were asked with the same prompts.

    Attributes:
        arms: their names.
        patients: as these prompts show them: the judged stays, and the training stays.
    """

    arms: Sequence[str]
    patients: Sequence[Patient]


@dataclass(frozen=True)
class Gain:
    """Frames of the report.

    Attributes:
        faithfulness: overlap of each arm with the expert against controls (`faithfulness.SCHEMA`).
        overlap_and_score: whether larger overlap goes with better prediction (`faithfulness.OVERLAP`).
        uncertainty: entropy of clinical tokens against the uncertainty of the prediction (`uncertainty.SCHEMA`).
        uncertainty_curves: the same over fifths of the entropy (`uncertainty.CURVE`).
        variety: how much the answers of each arm differ between stays (`variety.SCHEMA`).
        citations: whether the numbers that they cite stand in the patient's data (`citations.SCHEMA`).
    """

    faithfulness: pl.DataFrame
    overlap_and_score: pl.DataFrame
    uncertainty: pl.DataFrame
    uncertainty_curves: pl.DataFrame
    variety: pl.DataFrame
    citations: pl.DataFrame

    def frames(self) -> dict[str, pl.DataFrame]:
        """File name without ending, and frame."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def gain(verdicts: pl.DataFrame, asked: Sequence[Asked], guides: Guides, stays: pl.DataFrame, mentions: MentionFinder,
         section: Evaluation, seed: int, smallest: int, rollouts: pl.DataFrame | None = None) -> Gain:
    """All tables about the gain.

    Args:
        verdicts: of all arms on the same test stays, with `verdicts.EXTRAS`.
        asked: every arm with language, with what it was asked.
        guides: of the study: whose features count for every arm, as far as its prompts show them.
        stays: stay_id and patient_id of the judged stays at least.
        mentions: of the study's catalogue.
        section: interval_bootstraps: resamples, and draws of each control.
        seed: of both; the one of the main table.
        smallest: smallest count of stays behind a point of a curve.
        rollouts: of the study's own stage 2; None: it did not run.

    Raises:
        ContractError: what an arm was asked is not among `asked`.
        ContractError, DataError: as `faithfulness.expected` and `risks.judged` do.
    """
    found, members = judged(verdicts), dict(stays.select("stay_id", "patient_id").iter_rows())
    drawn = tables.drawn_of(found, section.interval_bootstraps, seed, members)
    named = faithfulness.named_by(verdicts, mentions)
    _all_asked(named, asked)
    sets = [(one.arms, faithfulness.expected(found.stay_ids, one.patients, members,
                                             {arm: named[arm] for arm in one.arms if arm in named}, guides))
            for one in asked]
    sampled = {} if rollouts is None else uncertainty.of_rollouts(rollouts)
    answers = uncertainty.of_answers(verdicts, mentions)
    return Gain(faithfulness.faithfulness(named, sets, drawn, seed),
                faithfulness.overlap_and_score(verdicts, named, sets, drawn),
                uncertainty.correlations(sampled, answers, section.interval_bootstraps, seed),
                uncertainty.curves(sampled, answers, smallest), variety.variety(verdicts),
                citations.citations(verdicts, {arm: {patient.stay_id: patient.evidence for patient in one.patients}
                                               for one in asked for arm in one.arms if arm in named}))


def _all_asked(named: Collection[str], asked: Sequence[Asked]) -> None:
    """Raises ContractError unless every arm with language was asked something, once."""
    known = [arm for one in asked for arm in one.arms]
    odd = [arm for arm in named if known.count(arm) != 1]
    if odd:
        raise ContractError(f"the prompts of {', '.join(odd)} are not known, or known twice",
                            "controls draw from what an arm's own prompts show",
                            "hand over the patients of its verdicts")
