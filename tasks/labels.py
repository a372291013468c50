"""Stage `labels`: an adapter trained on nothing but the outcome of the training stays (the baseline "SFT, label only").

The answer of a stay is a number far from 0.5 in the form of the prompt's style, without a word of reasoning; stays of
the rarer label are repeated until both are equally many, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import polars as pl

from configs.load import dump
from contracts.frames import TRAJECTORIES
from contracts.patients import Patient
from prompts.grammar import render_answer
from tasks.base import model_folder
from tasks.people import people, with_both_labels
from tasks.sft import keep_adapter, numbers
from tasks.stage import Made, Work, input_file, listed, stage

# What an answer says: its first decimal tells the label, so that the reading from the tokens is the label's odds.
PROBABILITY = {0: 0.05, 1: 0.95}


@stage("labels", settings=("policy.sft", "policy.lora", "policy.dtype", "evaluation.style", "prompts.expert_features",
                           "cohort.outcome", "serving.context", "study.seed"),
       packages=("torch", "transformers", "peft", "trl"), jobs=("models.policy.sft",))
def labels(work: Work) -> Made:
    """Trains an adapter on balanced labels."""
    config, out = work.config, work.scratch / "training"
    train = with_both_labels([one for one in people(work) if one.split == "train"], "training split")
    answers = balanced(train, config.evaluation.style)
    answers.write_parquet(work.scratch / "answers.parquet")
    done = work.job("models.policy.sft", {
        "model": str(model_folder(work.inputs["base"], work.session.workspace)), "out": str(out),
        "section": dump(config.policy),
        "trajectories": str(work.scratch / "answers.parquet"),
        "patients": str(input_file(work, "patients", "patients.parquet")), "outcome": config.cohort.outcome,
        "count": config.prompts.expert_features, "context": config.serving.context, "seed": config.study.seed,
        "style": config.evaluation.style})
    keep_adapter(out, work.out)
    metrics = {**numbers(done), "stays": float(len(train)), "answers": float(answers.height)}
    return Made(metrics=metrics, model="lora-adapter", summary=listed(metrics))


def balanced(patients: Sequence[Patient], style: str) -> pl.DataFrame:
    """Answers (contract TRAJECTORIES) that hold only the label, both labels equally often.

    Args:
        patients: of the training split, both labels among them.
        style: of the answers (see `prompts.grammar.render_answer`).
    """
    groups = [[one for one in patients if one.label == label] for label in (0, 1)]
    most = max(map(len, groups))
    rows = []
    for group in groups:
        for index, one in enumerate(islice(cycle(group), most)):
            probability = PROBABILITY[one.label]
            rows.append({"stay_id": one.stay_id, "rank": index // len(group) + 1,
                         "text": render_answer(style, probability), "reward": 0.0, "outcome_reward": 0.0,
                         "attention_reward": 0.0, "probability": probability, "features": [], "depth": 1,
                         "rollout": 0})
    return TRAJECTORIES.check(pl.DataFrame(rows, schema=dict(TRAJECTORIES.dtypes)))
