"""The watch: looks into the landing folder again and again, and says of each extract what it is and why.

Each judgement is an event (`eag-rl.extract.waiting`, `.arrived`, `.duplicate`, `.older`, `.broken`), a line of the log
and of the ledger, and a row of the page "landing". Only `arrived` starts a study: a trigger of the deployment
`new-extract` passes the place on.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event
from pydantic import Field

from configs.load import load
from flows.landing import Landing, facts_of
from flows.opening import deliver_logs

_HOUR = 3600.0
_LAST_ROWS = 50


@flow(name="watch-extracts", flow_run_name="watch-{config}")
def watch_extracts(config: str = "mimic_iv_mortality", overrides: list[str] | None = None,
                   minutes: Annotated[float, Field(ge=0.0, le=10_000.0)] = 0.0) -> dict[str, int]:
    """Watches the landing folder.

    Args:
        config: configuration of the studies that new extracts get; its `landing` section says where and how to look.
        overrides: dotted settings of those studies, such as "landing.stable_seconds=60".
        minutes: how long to watch; 0: until the next full hour, when the schedule starts the next watch.
    """
    log, settings = get_run_logger(), load(config, overrides or ())
    counted: Counter[str] = Counter()

    def tell(row: dict[str, Any]) -> None:
        counted[row["status"]] += 1
        log.info("%s", facts_of(row))
        _emit({**row, "config": config, "overrides": list(overrides or ()), "until": settings.landing.until})

    landing = Landing(settings, tell)
    log.info("watching %s every %g s", landing.folder, settings.landing.poll_seconds)
    end = time.monotonic() + (minutes * 60.0 or _HOUR - time.time() % _HOUR)
    while True:
        before = sum(counted.values())
        landing.look()
        if sum(counted.values()) > before:
            _page(landing.ledger.rows())
        if time.monotonic() >= end:
            return dict(counted)
        time.sleep(min(settings.landing.poll_seconds, max(0.0, end - time.monotonic())))


def _emit(row: dict[str, Any]) -> None:
    """The event of a judgement, and waits until the server has it."""
    number = hashlib.sha256(row["place"].encode()).hexdigest()[:16]
    emit_event(f"eag-rl.extract.{row['status']}",
               resource={"prefect.resource.id": f"eag-rl.extract.{number}", "prefect.resource.name": row["extract"]},
               payload=row)
    deliver_logs()


def _page(rows: list[dict[str, Any]]) -> None:
    shown = ("time", "extract", "status", "reason")
    create_table_artifact([{name: row.get(name, "") for name in shown} for row in rows[-_LAST_ROWS:]], key="landing",
                          description="What was seen in the landing folder, and what became of it")
