"""Parts of the report that open artifacts of their own: case studies, a search tree, the lineage, checklists, cards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from configs.load import dump, for_arm
from configs.schema import Config
from contracts.patients import Patient
from evaluation import case_study, descent, search_tree, tables
from evaluation.case_study import CaseStudy, study_cases
from evaluation.gain import Asked
from evaluation.model_card import card
from evaluation.report import ReportBundle
from evaluation.risks import FIRST, reference_of
from evaluation.search_tree import SearchTree
from evaluation.study_facts import Facts, hub_name
from lineage.chain import chains
from lineage.fingerprint import flatten, git_commit
from prompts.mentions import MentionFinder
from search.records import record_path
from tasks.stage import Work, input_file

# Arms side by side in a case study.
SIDE_BY_SIDE = 4
_ANSWERS = {"none": "the base model answers", "labels": "an adapter trained on labels alone answers",
            "trajectories": "an adapter trained on the search's trajectories answers"}
_TRAINING = {"labels": ("policy.lora", "policy.sft"),
             "trajectories": ("policy.lora", "policy.sft", "search", "rewards"),
             "rl": ("policy.lora", "policy.sft", "policy.grpo", "search", "rewards")}


def arms(config: Config) -> list[tuple[str, str, str]]:
    """Name, title, and in words how each policy arm is made and asked."""
    rows = []
    for name in config.evaluation.arms:
        arm = config.arms[name]
        answers = _ANSWERS.get(arm.adapter, "an adapter trained by reinforcement learning answers, begun from " + (
            "the base model" if arm.start == "base" else "stage 1"))
        settings = [f"{key} = {value}" for key, value in {**arm.prepare, **arm.train}.items()]
        rows.append((name, arm.title, "; ".join([f"{arm.style} prompt", answers, *settings])))
        if "first" in config.evaluation.visits:
            rows.append((f"{name}{FIRST}", arm.title, f"as {name}, with the first visit alone in the prompt"))
    return rows


def case_arms(config: Config) -> list[str]:
    """Arms of the case studies: the method's (or the last), the reference, others of the same patients; where every arm
    has prompts of its own, the last alone."""
    shared = [name for name in config.evaluation.arms if not config.arms[name].prepare]
    shared = shared or list(config.evaluation.arms[-1:])
    first = tables.METHOD if tables.METHOD in shared else shared[-1]
    wanted = dict.fromkeys([first, reference_of(config), *reversed(shared)])
    return [name for name in wanted if name in shared][:SIDE_BY_SIDE]


def cases(config: Config, verdicts: pl.DataFrame, asked: Sequence[Asked], mentions: MentionFinder
          ) -> tuple[CaseStudy, ...]:
    """The case studies at the quantiles that the settings name, with the prompts that the first arm was asked with."""
    shown = case_arms(config)
    patients = next((one.patients for one in asked if shown[0] in one.arms), ())
    return study_cases(verdicts, shown, config.arms[shown[0]].style, patients, mentions, config.cohort.outcome,
                       for_arm(config, shown[0])[1].prompts.expert_features, config.evaluation.cases)


def tree(work: Work, patients: Sequence[Patient], mentions: MentionFinder) -> SearchTree | None:
    """The search of one training patient; None where nothing was searched or no patient is to be shown."""
    if "trajectories" not in work.inputs or not work.config.evaluation.cases:
        return None
    harvest = pl.read_parquet(input_file(work, "trajectories", "trajectories.parquet"))
    stay = search_tree.choose(harvest)
    if stay is None:
        return None
    record = json.loads(record_path(input_file(work, "trajectories", "trees"), stay).read_text(encoding="utf-8"))
    kept = harvest.filter(pl.col("stay_id") == stay).sort("rank")["text"].to_list()
    patient = next(one for one in patients if one.stay_id == stay)
    return SearchTree(search_tree.tree_of(record["tree"], kept), patient.label,
                      case_study.mark(kept[0], mentions, patient.expert_features), patient.expert_features)


def links(work: Work) -> tuple[descent.Link, ...]:
    """All that the report is made from, back to the source files."""
    return descent.links(chains(work.session.store, work.artifacts), git_commit(), work.run_id)


def write_cards(config: Config, bundle: ReportBundle, known: Facts, table: pl.DataFrame, out: Path) -> None:
    """cards/ARM/README.md for each arm that an adapter answers, about that of the study's own training.

    Args:
        table: of the verdicts of these adapters alone.
    """
    seeds = dict(bundle.table.select("arm", "seeds").iter_rows())
    found = descent.condensed(bundle.provenance)
    ways = {arm: descent.behind(found, held[0].id) for arm, held in descent.origins(found, table).items()}
    for name, _, how in bundle.arms:
        if name not in config.arms or config.arms[name].adapter == "none":
            continue  # an arm asked again with the first visit alone is no adapter of its own
        folder = out / "cards" / name
        folder.mkdir(parents=True)
        if seeds[name] > 1:
            how = f"{how}; the first of {seeds[name]} trainings, whose own figures stand below"
        text = card(name, how, config.study.name, hub_name(config.policy.model), config.cohort.source, table,
                    known, _training(config, name), ways.get(name, []))
        (folder / "README.md").write_text(text, encoding="utf-8")


def _training(config: Config, name: str) -> list[tuple[str, str]]:
    """The settings that an arm's adapter was trained with."""
    wanted = _TRAINING[config.arms[name].adapter]
    own: Mapping[str, Any] = flatten(dump(for_arm(config, name)[1]))
    return [(key, json.dumps(value)) for key, value in own.items()
            if any(key.startswith(f"{prefix}.") for prefix in wanted)]
