"""The study in sentences: what its artifacts say, for reporting checklists and model cards.

In go the configuration, the cohort's counts, the result table and the links of the lineage; out comes a mapping of
names to words, without any patient. What the study does not know is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from configs.load import for_arm
from configs.schema import Config
from evaluation import tables
from evaluation.descent import Link, short
from evaluation.risks import reference_of

Facts = dict[str, str | None]
USE = "Research on methods only: not a medical device, and no output may guide the care of a patient."
LIMITS = ("One source and a small test split; {visits}; written reasoning need not be why a number was given; the "
          "expert's attention is no cause; another hospital was not tried.")
_VISITS = {False: "a single prediction, at the last visit",
           True: "two predictions, at the last visit and with the first visit alone, none in between"}
_OUTCOMES = {"mortality": ("death in hospital", "Death in hospital during this admission, from the record of the "
                                                "discharge; predicted at the last visit that the prompt shows."),
             "readmission": ("readmission to intensive care within 30 days",
                             "An entry into intensive care within 30 days after the discharge of this admission; "
                             "admissions that end in death are left out.")}
_SOURCES = {
    "synthetic": ("generated stays", "Generated stays with a planted hazard; no patient is behind them."),
    "tjh": ("inpatients with COVID-19 of Tongji Hospital, Wuhan",
            "TJH: inpatients with COVID-19 of Tongji Hospital, Wuhan (Yan et al., Nat Mach Intell 2020), routine "
            "laboratory values."),
    "mimic_iv": ("intensive-care stays of MIMIC-IV",
                 "MIMIC-IV: routine records of intensive-care stays at Beth Israel Deaconess Medical Center, Boston "
                 "(PhysioNet)."),
    "meds": ("stays of a dataset in the Medical Event Data Standard",
             "A dataset in the Medical Event Data Standard, read by the mapping that the settings name.")}
_LICENCES = {
    "synthetic": "Generated data: no patient, no restriction.",
    "tjh": "The data are public under the MIT licence.",
    "mimic_iv": "MIMIC-IV needs a credentialed PhysioNet account and a data use agreement; what is trained on it "
                "may hold traces of patients and must not be shared beyond what that agreement allows. The 100-patient "
                "demo is open (ODbL).",
    "meds": "The licence of the dataset decides; where it needs a data use agreement, what is trained on it may hold "
            "traces of patients and must not be shared beyond what that agreement allows."}
_SPLITS = {"paper": "The split of the paper (EAG-RL), by patient.",
           "stratified": "Patients drawn at random, stratified by outcome, seed fixed; none stands in two splits.",
           "pinned": "Patients drawn by a hash of their identifier, stratified by outcome, so that none changes splits "
                     "as data grow; none stands in two splits."}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SHIPPED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


@dataclass(frozen=True)
class Known:
    """What sentences are made from.

    Attributes:
        counted: `ehr.cohort.counts`.
        findings: of the check of the cohort.
        features: names of the predictors, static data left out; catalogue: their name.
        arms: name, title, how each policy arm is made and asked.
        power, calibration: frames of the appraisal.
        headline: of the report.
    """

    config: Config
    table: pl.DataFrame
    counted: Mapping[str, Any]
    findings: Sequence[Mapping[str, Any]]
    features: Sequence[str]
    catalogue: str
    arms: Sequence[tuple[str, str, str]]
    links: Sequence[Link]
    power: pl.DataFrame
    calibration: pl.DataFrame
    headline: Sequence[str]
    paper: str | None


def facts(known: Known) -> Facts:
    """All facts by name; the names are those of tripod_*.yaml."""
    return {**_records(known), **_data(known), **_methods(known), **_results(known)}


def base_model(model: str) -> str:
    """The language model in words: its public name, or that it is a folder (whose path tells of a machine)."""
    return hub_name(model) or "a model of a local folder"


def hub_name(model: str) -> str | None:
    """The model's name on the Hugging Face hub, None for a folder."""
    found = _SHIPPED.get(model, model)
    return found.partition("@")[0] if _HUB.fullmatch(found) and not found.startswith(".") else None


def _records(known: Known) -> Facts:
    cohort = known.config.cohort
    outcome, definition = _OUTCOMES[cohort.outcome]
    population, source = _SOURCES[cohort.source]
    read = {name for one in known.links if one.kind == "cohort" for name in one.made_from}
    files = [f"{one.id} (sha256 {short(one.sha256)})" for one in known.links if one.id in read]
    return {"outcome": outcome, "outcome_definition": definition, "population": population, "source": source,
            "blinding": None if cohort.source == "synthetic" else
            "Outcomes were recorded in routine care before this study, without knowledge of any prediction.",
            "outcome_judgement": "The outcome needs no judgement: it is read from the record.",
            "licence": _LICENCES[cohort.source], "use": USE,
            "limits": LIMITS.format(visits=_VISITS["first" in known.config.evaluation.visits]),
            "source_digests": f"Files: {', '.join(files)}." if files else "",
            "eligibility": f"Stays with at least {cohort.min_visits} daily record(s) and a known outcome."}


def _data(known: Known) -> Facts:
    cohort, prompts = known.config.cohort, known.config.prompts
    splits = [f"{name} {one['patients']} patients ({one['positive']} with outcome 1)"
              for name, one in known.counted["splits"].items()]
    dropped = [f"{step['rule']}: {step['dropped']} of {step['found']} {step['unit']}"
               for step in known.counted["attrition"] if step["dropped"]]
    warnings = [str(one["value"]) for one in known.findings]
    return {"splits": f"Splits: {', '.join(splits)}.", "split_rule": _SPLITS[cohort.split],
            "attrition": f"Dropped or merged: {'; '.join(dropped)}." if dropped else "Nothing was dropped.",
            "findings": f"The check of the cohort found: {'; '.join(warnings)}." if warnings else
            "The check of the cohort found nothing.",
            "features": f"{len(known.features)} clinical features, age and sex",
            "catalogue": known.catalogue, "days": str(cohort.max_days),
            "shown": f"{_shown(prompts.features)}, the newest {prompts.visits} visits.",
            "timing": "A value is the mean of a calendar day (ordinal scales: its last value).",
            "preparation": "Records of a calendar day become one visit; values beyond the catalogue's bounds are "
                           f"removed; days before the newest {cohort.max_days} become one leading record.",
            "missing": "The last observation in the stay is carried forward; a feature never observed stays missing "
                       "(the prompt says so; experts and simple models get the training mean).",
            "scaling": "Prompts show values as measured, rounded. Experts and simple models get values standardised "
                       f"with moments of the training split, cut at ± {cohort.clip_sd:g} sd.",
            "differences": "None by design: one source, the same rules, split by patient."}


def _shown(features: int | str | Sequence[str]) -> str:
    """What `prompts.features` shows, in words."""
    if isinstance(features, int):
        return f"the {features} features measured most often"
    if isinstance(features, str):
        return "all features"
    return f"{len(features)} named feature{'s' if len(features) > 1 else ''}: {', '.join(features)}"


def _methods(known: Known) -> Facts:
    config = known.config
    labels = any(config.arms[name].adapter == "labels" for name in config.evaluation.arms)
    read = {name for one in known.links if one.kind == "base" for name in one.made_from}
    weights = [one for one in known.links if one.id in read and one.id.endswith(".safetensors")]
    hours = sum(one.seconds or 0.0 for one in known.links) / 3600
    return {"base_model": base_model(config.policy.model),
            "base_digest": ", ".join(f"sha256 {short(one.sha256)}" for one in weights) or None,
            "models": f"{base_model(config.policy.model)} with low-rank adapters (rank {config.policy.lora.rank}, "
                      f"alpha {config.policy.lora.alpha}): " + "; ".join(
                          f"{name}: {how}" for name, _, how in known.arms) + ".",
            "expert": f"{config.expert.architecture}, best of {config.expert.seeds} seeds by validation",
            "reward": f"{config.rewards.weight:g} R_cls + {1 - config.rewards.weight:g} R_att (right outcome, and "
                      "overlap of named features with the expert's)",
            "styles": ", ".join(dict.fromkeys(config.arms[name].style for name in config.evaluation.arms)),
            "decoding": f"Answers: temperature {config.evaluation.temperature:g}, at most "
                        f"{config.evaluation.completion_tokens} tokens, seed {config.study.seed}, local vLLM server.",
            "reading": "The risk is read twice: the number in the answer, and its expected value under the model's "
                       "distribution of the digits' tokens; answers that cannot be read count 0.5.",
            "measures": "AUROC, AUPRC, Brier score, calibration error, intercept and slope, reliability and decision "
                        f"curves; 95 % intervals of {config.evaluation.interval_bootstraps} bootstrap resamples of "
                        "patients; paired differences with p-values and Holm's correction.",
            "recalibration": _recalibration(known.calibration),
            "imbalance": "Splits and samples are stratified by outcome. " + (
                "Arms trained on labels alone repeat the rarer outcome until both are equally frequent; calibration is "
                "reported." if labels else "No other method was used."),
            "compute": f"{hours:.1f} hours of wall time for all stages behind this report, each counted once." if hours
            else None,
            "commit": short(known.links[-1].commit) if known.links else None}


def _recalibration(calibration: pl.DataFrame) -> str:
    """Which arms of `appraisal.CALIBRATION` were recalibrated."""
    arms = calibration.filter(pl.col("recalibration") != "none")["arm"].unique(maintain_order=True).to_list()
    return f"Recalibrated (Platt, isotonic) on validation stays: {', '.join(arms)}; their rows say so." if arms else (
        "No arm was recalibrated.")


def _results(known: Known) -> Facts:
    config, first = known.config, known.table.row(0, named=True)
    policy = tables.policy_arms(known.table)
    simple = [arm for arm in known.table["arm"].unique(maintain_order=True) if arm not in policy]
    least = known.power.filter(pl.col("arm").eq_missing(tables.main_arm(known.table)))
    adapters = [name for name in config.evaluation.arms if config.arms[name].adapter != "none"]
    return {"arms": "; ".join(policy) or "none", "simple": "; ".join(simple) or "none",
            "reference": reference_of(config), "headline": " ".join(known.headline) or None,
            "adapters": ", ".join(adapters) or None,
            "used": "; ".join([*_trained_on(config), f"Judged: {first['n']} test stays, {first['positives']} with "
                               "outcome 1."]),
            "power": "Smallest true difference in AUROC that the test split shows with 80 % power: "
                     f"{100 * least['smallest_difference'][0]:.1f} points." if least.height else "",
            "paper": f"Figures of the paper stand beside ({known.paper}); cohort or model differ, so they are no "
                     "paired comparison." if known.paper else None}


def _trained_on(config: Config) -> list[str]:
    """Training stays of the search and of reinforcement learning, each where an arm stands on it; several numbers where
    arms have settings of their own."""
    arms = [(config.arms[name], *for_arm(config, name)) for name in config.evaluation.arms]
    searched = [prepared.search.stays for arm, prepared, _ in arms if arm.from_stage_1]
    learned = [own.policy.grpo.stays for arm, _, own in arms if arm.adapter == "rl"]
    return [f"{what}: {' or '.join(dict.fromkeys(map(str, stays)))} training stays"
            for what, stays in (("Searched", searched), ("Reinforcement learning", learned)) if stays]
