"""`eag-rl gc`: frees what no kept study needs, and says how many bytes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from contracts.errors import ConfigError
from lineage.garbage import Waste, needed, remove, size, studies, waste
from lineage.leases import guarded, running
from operations.ledger import Ledger
from tasks.comparison import judged_with
from tasks.session import Session

if TYPE_CHECKING:
    from lineage.tracking_registry import Registry


def free_space(session: Session, keep: Sequence[str] | None, older_than: float, dry_run: bool) -> dict[str, Any]:
    """Removes what no kept study, champion, running study or comparison to come needs, and nobody answers from.

    Args:
        keep: names of studies; none: all that the workspace knows, so that only what they no longer use is freed.
        older_than: days since the last change; 0: whatever its age.
        dry_run: remove nothing.

    Returns:
        bytes, bytes `by_kind`, `counts` by kind, the studies `kept`, those `running`, and those whose champion is
        `answering` (predict, serve).

    Raises:
        ConfigError: a study to keep is not in the workspace.
        StorageError: something cannot be removed.
    """
    store, known = session.store, studies(session.store)
    if unknown := sorted(set(keep or ()) - set(known)):
        rule = f"studies of this workspace: {', '.join(known) or 'none yet'}"
        raise ConfigError(f"--keep {', '.join(unknown)}", rule, "correct the name, or set paths.workspace")
    registry = _registry(session)
    with guarded(store.workspace):
        leases = running(store.workspace)
        busy = {lease.study for lease in leases if lease.makes}
        kept = sorted({*(keep or known), *busy})
        champions = registry.champions() if registry else set()
        stay = needed(store, kept, leases, champions | _compared_with(session, champions))
        found = waste(store, stay, kept, older_than, idle=not busy)
        gone = found if dry_run else [one for one in found if remove(store, one)]
    if registry:
        gone += _models(session, registry, {one.name for one in gone if one.kind == "artifact"}, dry_run)
    totals: Counter[str] = Counter()
    for one in gone:
        totals[one.kind] += one.bytes
    return {"bytes": sum(totals.values()), "by_kind": dict(totals), "counts": dict(Counter(one.kind for one in gone)),
            "kept": kept, "running": sorted(busy),
            "answering": sorted({lease.study for lease in leases if not lease.makes})}


def _compared_with(session: Session, champions: set[str]) -> set[str]:
    """What the studies of the next extracts are compared with: the last ones, and what champions were judged by."""
    landed = (session.workspace / "landing-ledger").is_dir()
    found = Ledger(session.workspace).needed_artifacts() if landed else set()
    return found | {one.id for champion in champions for one in judged_with(session.store, champion).values()}


def _models(session: Session, registry: Registry, artifacts: set[str], dry_run: bool) -> list[Waste]:
    """MLflow's copies of the models among freed artifacts."""
    folders = [folder for folder in registry.forget(artifacts, delete=not dry_run) if folder.is_dir()]
    found = [Waste("model in MLflow", folder, size(folder)) for folder in folders]
    return found if dry_run else [one for one in found if remove(session.store, one)]


def _registry(session: Session) -> Registry | None:
    """MLflow's registry, where the workspace has one: champions stay."""
    if "MLFLOW_TRACKING_URI" in os.environ or (session.workspace / "mlflow" / "mlflow.db").is_file():
        return session.tracker.registry
    return None
