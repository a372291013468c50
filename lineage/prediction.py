"""From an artifact's chain down to one prediction: the row of one stay under one arm, as a pseudonym and digests.

Identifiers of stays are short numbers, so that a bare sha256 of one is found by trying them all. What is shown here is
an HMAC under a secret of the workspace: equal stays have equal pseudonyms there, and nobody else can turn them back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from contracts.errors import ArtifactError
from lineage.artifact import Artifact
from lineage.chain import Node, members
from lineage.store import Store, storage_errors

SECRET = "lineage.key"
_RISKS = ("probability", "token_probability", "parsed")


def prediction(store: Store, node: Mapping[str, Any], arm: str, stay: str) -> Node:
    """A node above the verdicts of an arm: its inputs are those verdicts, `sha256` is the keyed digest of the row.

    Args:
        node: the chain that holds the arm's verdicts somewhere.

    Returns:
        A node as `lineage.chain.chain` gives, of kind "prediction", with "facts": stay (pseudonym), arm, risk, token
        risk, whether it could be read, and the keyed digest of the patient's row that was asked about.

    Raises:
        ArtifactError: no verdicts of that arm in the chain, or none for that stay.
    """
    key = secret(store.workspace)
    judged = _verdicts(store, node, arm)
    row = _row(store, judged, "verdicts.parquet", stay, arm)
    asked = judged["inputs"].get("patients")
    evidence = {"patient row": seal(key, _row(store, asked, "patients.parquet", stay))} if asked is not None else {}
    digest, pseudonym = seal(key, row), hmac.new(key, stay.encode(), hashlib.sha256).hexdigest()[:16]
    return {"id": f"prediction-{digest[:12]}", "kind": "prediction", "sha256": digest, "uri": "", "stage": "prediction",
            "settings": {}, **dict.fromkeys(("sources", "versions", "metrics")),
            **{name: judged[name] for name in ("commit", "study", "tracking_run", "finished")},
            "facts": {"stay": pseudonym, "arm": arm, **{name.replace("_", " "): row[name] for name in _RISKS},
                      **evidence}, "inputs": {"verdict": judged}}


def secret(workspace: Path) -> bytes:
    """The workspace's key for pseudonyms, made at its first use, readable by its owner only."""
    path = workspace / SECRET
    with storage_errors(path):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(32))
    return path.read_bytes()


def seal(key: bytes, row: Mapping[str, Any]) -> str:
    """HMAC-SHA256 over a row in canonical JSON."""
    return hmac.new(key, json.dumps(row, sort_keys=True, default=str).encode(), hashlib.sha256).hexdigest()


def _verdicts(store: Store, node: Mapping[str, Any], arm: str) -> Node:
    """The node whose artifact holds the arm's verdicts: an arm's own, or the simple models'."""
    known: set[str] = set()
    for one in members(node):
        path = store.workspace / one["uri"] / "verdicts.parquet"
        if one["stage"] not in ("verdicts", "baselines") or not path.is_file():
            continue
        names = set(pl.read_parquet(path, columns=["arm"])["arm"].unique())
        if arm in names:
            return dict(one)
        known |= names
    rule = f"an arm of {', '.join(sorted(known)) or 'none yet'}"
    raise ArtifactError(f"no verdicts of arm {arm!r} behind {node['id']}", rule,
                        "choose one of these, or the artifact of a finished report")


def _row(store: Store, node: Mapping[str, Any], name: str, stay: str, arm: str = "") -> dict[str, Any]:
    folder = store.folder(Artifact(node["kind"], node["id"], node["uri"], node["sha256"], ""))
    frame = pl.read_parquet(folder / name).filter(pl.col("stay_id") == stay)
    rows = frame.filter(pl.col("arm") == arm) if arm else frame
    if rows.height != 1:
        raise ArtifactError(f"that stay has {rows.height} rows in {node['id']}", "one row a judged stay",
                            "stays of the test split are judged (evaluation.stays)")
    return rows.row(0, named=True)
