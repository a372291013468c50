"""The study of an extract that arrived: run, compared with the last one, and its model crowned or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prefect import flow, get_run_logger

from configs.schema import Config
from contracts.errors import ArtifactError, DataError, EagRlError
from evaluation.tables import METHOD
from flows.landing import digest_of, folder_of
from flows.opening import Artifacts, handed, held, open_session, taken
from flows.parts import Until
from flows.run_study import run_study
from lineage.artifact import Artifact
from operations.ledger import STUDIED, STUDYING, Ledger
from tasks.comparison import BEFORE, BY_HAND, CHAMPION, FILE, KEPT, REMOVED, comparison, judged_with, wanted
from tasks.session import Session

_LAST_GONE = "; what the last study made is no longer in the workspace"
_CHAMPION_GONE = "; what the study of the last champion made is no longer in the workspace"


@dataclass(frozen=True)
class Reign:
    """The study whose model is the champion.

    Attributes:
        made: its cohort, baselines and verdicts; empty: there is no champion, or they are not here.
        kept: of tasks.comparison.KEPT, where a crowned policy is there and they are not.
        remark: what the reason is to say of it.
    """

    made: Mapping[str, Artifact]
    kept: str = ""
    remark: str = ""


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
    ledger, study = Ledger(session.workspace, str(folder_of(session.config))), session.config.study.name
    found = ledger.pending(extract, study)
    if found is None:
        log.info("nothing to do: %s", f"{extract} has not arrived, is being changed, was studied, or a newer one has "
                 "arrived" if extract else "no extract that arrived whole is still to be studied")
        return {}
    rows = [row for row in ledger.rows() if row["status"] == STUDIED and row.get("study") == study]
    place, facts = found["place"], {"digest": found["digest"], "study": study}
    last = _last(session, ledger.begun(found["digest"], study), rows)
    ledger.add(place, STUDYING, "its study has begun", last=handed(last), **facts)
    settings = [*(overrides or ()), f"paths.data={json.dumps(place)}"]
    try:
        own = open_session(config, settings)
        _require_unchanged(own, found, "before")
        made = run_study(config, settings, until)
        _require_unchanged(own, found, "while")
        with held(own):
            replaced, why, extra = _compared(own, made, last, _champion(session, rows))
    except EagRlError as error:
        ledger.add(place, "failed", f"{error.value}; {error.next_step}", **facts)
        raise
    ledger.add(place, STUDIED, f"champion {why}", champion=replaced, artifacts=made, **facts)
    log.info("champion %s", why)
    return {**made, **extra}


def _require_unchanged(session: Session, arrival: Mapping[str, Any], when: str) -> None:
    """Compares the files of an extract with those that arrived (digests of unchanged files are remembered).

    Raises:
        DataError: they are others, or cannot be read.
    """
    try:
        now, seen = digest_of(session), "its files are not those that arrived"
    except (DataError, OSError) as error:
        now, seen = "", error.value if isinstance(error, DataError) else f"{type(error).__name__} while it was read"
    if now != arrival["digest"]:
        raise DataError(f"{arrival['place']} was changed {when} it was studied: {seen}",
                        "an extract stays as it arrived until its study has ended",
                        "copy it again, each extract into a folder of its own: it is then judged anew")


def _compared(session: Session, made: Artifacts, last: Mapping[str, Artifact], champion: Reign
              ) -> tuple[bool, str, Artifacts]:
    """(whether the champion is another now, why, the comparison's artifact, if there is a last study).

    Where there is no last study, or what it made is gone, the champion's takes its place.
    """
    new, here = taken(made), _here(session, last)
    before, remark = here or champion.made, champion.remark + (_LAST_GONE if last and not here else "")
    if "cohort" not in before:
        judged, which = "report" in new, "the first study" if not remark else "a study with none to compare with"
        why = KEPT.get(champion.kept, f"named: this is {which}") if judged else (
            f"kept: {which} ended before any arm was judged")
        why += remark
        return judged and not champion.kept and _crown(session, new, why), why, {}
    roles = {**wanted(new), **_prefixed(BEFORE, before), **_prefixed(CHAMPION, champion.made)}
    session.study_run = session.last_study_run
    try:
        artifact = comparison.run(session, roles, variant=champion.kept)
    finally:
        session.study_run = None
    found: dict[str, Any] = json.loads((session.store.folder(artifact) / FILE).read_text(encoding="utf-8"))
    why = f"{found['reason']}{remark}"
    return bool(found["champion_replaced"]) and _crown(session, new, why), why, handed({"comparison": artifact})


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


def _champion(session: Session, rows: list[dict[str, Any]]) -> Reign:
    """The champion's study: whose model was crowned, be it by hand; without any such model, the last one that won.

    Args:
        rows: the ledger's lines of this study's extracts that were studied.
    """
    crowned = session.tracker.registry.champion(session.config.study.name, "policy")
    if crowned is None:
        won = [row for row in rows if row.get("champion")]
        made = _here(session, wanted(taken(won[-1]["artifacts"]))) if won else {}
        return Reign(made, remark=_CHAMPION_GONE if won and not made else "")
    named = [wanted(taken(row["artifacts"])) for row in rows
             if crowned.artifact in {one["id"] for one in row["artifacts"].values()}]
    judged = bool(named) and any(role.startswith("verdicts.") for role in named[-1])
    made = (_here(session, named[-1]) if judged else {}) or judged_with(session.store, crowned.artifact)
    return Reign(made) if made else Reign({}, REMOVED if judged else BY_HAND)


def _last(session: Session, begun: Mapping[str, Any] | None, rows: list[dict[str, Any]]) -> dict[str, Artifact]:
    """What the study is compared with: as its first attempt, which a kill may have ended, found it; the last extract's;
    what a study by hand made. Later attempts would take what the first one has made for the last study."""
    if begun is not None:
        return taken(begun["last"])
    return wanted(taken(rows[-1]["artifacts"])) if rows else _made_before(session)


def _here(session: Session, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts as the store has them now, empty where any of them is gone."""
    found = {}
    for role, artifact in artifacts.items():
        with suppress(ArtifactError):
            found[role] = session.store.find(artifact.kind, artifact.recipe)
    whole = {role: one for role, one in found.items() if one is not None}
    return whole if len(whole) == len(artifacts) else {}


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
