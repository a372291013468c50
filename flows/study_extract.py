"""The study of an extract that arrived: run, compared with the last one, and its model crowned or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prefect import flow, get_run_logger

from configs.schema import Config
from contracts.errors import ArtifactError, EagRlError
from evaluation.tables import METHOD
from flows.opening import Artifacts, handed, open_session, taken
from flows.run_study import Until, run_study
from lineage.artifact import Artifact
from operations.ledger import STUDIED, Ledger
from tasks.comparison import BEFORE, CHAMPION, FILE, comparison, wanted
from tasks.session import Session


@flow(name="study-extract", flow_run_name="extract-{config}")
def study_extract(config: str = "mimic_iv_mortality", overrides: list[str] | None = None, extract: str | None = None,
                  until: Until = Until.report) -> Artifacts:
    """Studies the newest extract that arrived, unless that is done, and compares the study with the last one.

    Args:
        config: configuration of the study.
        overrides: dotted settings, such as "policy.grpo.steps=100".
        extract: folder or URL of the extract, as its arrival names it; none: the newest that arrived.
        until: last part of the study.
    """
    log, session = get_run_logger(), open_session(config, overrides or ())
    ledger = Ledger(session.workspace)
    found = ledger.pending(extract)
    if found is None:
        log.info("nothing to do: %s", f"{extract} has not arrived, was studied, or a newer one has arrived" if extract
                 else "every extract that arrived was studied")
        return {}
    rows = [row for row in ledger.rows() if row["status"] == STUDIED and row.get("study") == session.config.study.name]
    last = taken(rows[-1]["artifacts"]) if rows else _made_before(session)
    place, facts = found["place"], {"digest": found["digest"], "study": session.config.study.name}
    ledger.add(place, "studying", "its study has begun", **facts)
    settings = [*(overrides or ()), f"paths.data={json.dumps(place)}"]
    try:
        made = run_study(config, settings, until)
        replaced, why, extra = _compared(open_session(config, settings), made, last, _champion(session, rows))
    except EagRlError as error:
        ledger.add(place, "failed", f"{error.value}; {error.next_step}", **facts)
        raise
    ledger.add(place, STUDIED, f"champion {why}", champion=replaced, artifacts=made, **facts)
    log.info("champion %s", why)
    return {**made, **extra}


def _compared(session: Session, made: Artifacts, last: Mapping[str, Artifact], champion: Mapping[str, Artifact]
              ) -> tuple[bool, str, Artifacts]:
    """(whether the champion is another now, why, the comparison's artifact, if there is a last study)."""
    new = taken(made)
    if "cohort" not in last:
        first = "report" in new
        why = "named: this is the first study" if first else "kept: the first study ended before any arm was judged"
        return first and _crown(session, new, why), why, {}
    roles = {**wanted(new), **_prefixed(BEFORE, wanted(last)), **_prefixed(CHAMPION, wanted(champion))}
    session.study_run = session.last_study_run
    try:
        artifact = comparison.run(session, roles)
    finally:
        session.study_run = None
    found: dict[str, Any] = json.loads((session.store.folder(artifact) / FILE).read_text(encoding="utf-8"))
    replaced = bool(found["champion_replaced"]) and _crown(session, new, found["reason"])
    return replaced, found["reason"], handed({"comparison": artifact})


def _crown(session: Session, made: Mapping[str, Artifact], reason: str) -> bool:
    """Gives the alias to the models of a study: the expert's, and that of the arm which was judged."""
    for role, name in (("expert", "expert"), ("policy", _policy(session.config))):
        if name in made:
            session.tracker.registry.crown(session.config.study.name, role, made[name], reason)
    return True


def _policy(config: Config) -> str:
    """The stage whose adapter answers for the arm that decides; "" where that is the base model, or an adapter of the
    arm's own, which the study's artifacts do not name."""
    names = config.evaluation.arms
    arm = config.arms[METHOD if METHOD in names else names[-1]]
    return "" if arm.prepare or arm.train else {"rl": "rl", "trajectories": "sft"}.get(arm.adapter, "")


def _champion(session: Session, rows: list[dict[str, Any]]) -> dict[str, Artifact]:
    """Artifacts of the study whose model is the champion, be it by hand; empty where there is none."""
    crowned = session.tracker.registry.champion(session.config.study.name, "policy")
    made = [row for row in rows if crowned and crowned.artifact in {one["id"] for one in row["artifacts"].values()}]
    found = made or [row for row in rows if row.get("champion")]
    return taken(found[-1]["artifacts"]) if found else {}


def _made_before(session: Session) -> dict[str, Artifact]:
    """What a study of this name, started by hand, last made; empty where it did not get to a cohort."""
    found = {}
    arms = {f"verdicts.{arm}": f"verdicts-{arm}" for arm in session.config.evaluation.arms}
    for role, label in {"cohort": "cohort", "baselines": "baselines", **arms}.items():
        try:
            found[role] = session.store.latest(session.config.study.name, label)
        except ArtifactError:
            return {"cohort": found["cohort"]} if "cohort" in found else {}
    return found


def _prefixed(prefix: str, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {f"{prefix}{role}": artifact for role, artifact in artifacts.items()}
