"""Trajectories and patients as token ids: what the policy is trained on.

In: the frames `trajectories` and `patients` and a renderer. Out: one `Example` for each trajectory (SFT), one `Task`
for each patient (GRPO). Nothing is cut: what does not fit the context is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from contracts.errors import DataError
from contracts.frames import TRAJECTORIES
from contracts.patients import Patient
from models.policy.chat import ChatRenderer, require_fit
from models.policy.spelling import Speller
from prompts.grammar import parse
from prompts.templates import messages

STYLE = "decomposition"
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One trajectory as training sees it.

    Attributes:
        prompt_ids: P ids of the chat up to the opened answer.
        completion_ids: C ids of the trajectory; the last one ends the turn, so that the policy learns to stop.
        stated: columns of the completion that hold the stated probability; empty where none can be read.
    """

    stay_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    stated: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def columns(self, answer_share: float | None = None) -> dict[str, list[int] | list[float]]:
        """input_ids, labels and weights, each of P + C; labels of the prompt are -100: only the completion is learned.

        Args:
            answer_share: part of the completion's loss that the stated probability carries, its tokens alike; none:
                every token weighs the same, as in a text without such a number. Weights of a completion have mean 1.
        """
        return {"input_ids": [*self.prompt_ids, *self.completion_ids],
                "labels": [IGNORED] * len(self.prompt_ids) + list(self.completion_ids),
                "weights": [0.0] * len(self.prompt_ids) + self._weights(answer_share)}

    def _weights(self, answer_share: float | None) -> list[float]:
        tokens, stated = len(self.completion_ids), set(self.stated)
        if answer_share is None or not stated:
            return [1.0] * tokens
        inside, outside = answer_share * tokens / len(stated), (1.0 - answer_share) * tokens / (tokens - len(stated))
        return [inside if column in stated else outside for column in range(tokens)]


@dataclass(frozen=True)
class Task:
    """One patient as stage 2 sees it: the prompt, and what the reward has to know."""

    stay_id: str
    prompt_ids: tuple[int, ...]
    label: int
    expert_features: tuple[str, ...]


def feature_count(patients: Sequence[Patient]) -> int:
    """K, the number of features the prompt asks for: the longest list of expert features.

    Raises:
        DataError: no patient has any.
    """
    count = max((len(patient.expert_features) for patient in patients), default=0)
    if count < 1:
        raise DataError(f"{len(patients)} patients without expert features", "each patient has its C_exp",
                        "recompute the patients from the expert's readings")
    return count


def examples_of(trajectories: pl.DataFrame, patients: Sequence[Patient], render: ChatRenderer, *, outcome: str,
                count: int, context: int, style: str = STYLE) -> list[Example]:
    """One example for each trajectory, in the order of the frame.

    Args:
        trajectories: contract TRAJECTORIES.
        outcome, count, style: as in `prompts.templates.messages`.
        context: most tokens of prompt and completion together.

    Raises:
        DataError: a trajectory of an unknown stay, of a test stay, or none at all.
        PromptTooLongError: prompt and completion do not fit the context.
    """
    known = {patient.stay_id: patient for patient in patients}
    prompts: dict[str, tuple[int, ...]] = {}
    speller, result = Speller(render.tokenizer), []
    for stay_id, text in TRAJECTORIES.check(trajectories).select("stay_id", "text").iter_rows():
        if stay_id not in prompts:
            patient = _training(known, stay_id)
            prompts[stay_id] = tuple(render(messages(patient.evidence, style, outcome, count)))
        completion = (*render.tokenizer.encode(text), render.tokenizer.eos_id)
        require_fit(len(prompts[stay_id]), len(completion), context, f"stay {stay_id}")
        result.append(Example(stay_id, prompts[stay_id], completion, stated_columns(completion, speller, style)))
    if not result:
        raise DataError("no trajectories", "the search keeps at least one per patient", "run the search again")
    return result


def stated_columns(completion_ids: Sequence[int], speller: Speller, style: str) -> tuple[int, ...]:
    """Columns of the tokens that write the stated probability, as the parser finds it; empty where it finds none."""
    text, spans = speller.spell(completion_ids)
    number = parse(text, style).probability_span
    if number is None:
        return ()
    return tuple(column for column, (start, end) in enumerate(spans) if start < number[1] and end > number[0])


def tasks_of(stays: Iterable[str], patients: Sequence[Patient], render: ChatRenderer, *, outcome: str, count: int,
             context: int, answer_tokens: int) -> list[Task]:
    """The task of each stay, in the order given.

    Raises:
        DataError: a stay is unknown or belongs to the test split.
        PromptTooLongError: the prompt leaves no room for `answer_tokens` in the context.
    """
    known = {patient.stay_id: patient for patient in patients}
    result = []
    for stay_id in stays:
        patient = _training(known, stay_id)
        ids = tuple(render(messages(patient.evidence, STYLE, outcome, count)))
        require_fit(len(ids), answer_tokens, context, f"stay {stay_id}")
        result.append(Task(stay_id, ids, patient.label, patient.expert_features))
    return result


def _training(known: dict[str, Patient], stay_id: str) -> Patient:
    patient = known.get(stay_id)
    if patient is None:
        raise DataError(f"stay {stay_id} is not among the {len(known)} patients", "every trajectory has its patient",
                        "recompute patients and trajectories from the same cohort")
    if patient.split != "train":
        raise DataError(f"stay {stay_id} belongs to split {patient.split}", "the policy trains on the split train only",
                        "recompute the trajectories")
    return patient
