"""Who works on the parts of an extract: threads of this process, or a Dask cluster's workers, a Prefect task a part.

In: the section `partitions`. Out: an `Engine` for `ehr.sources.days`. The records are the same whoever makes them, so
none of these settings is part of a recipe. Workers read the parsed tables where `partitions.cache` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from configs.schema import Partitions
from contracts.errors import ConfigError, ServerError
from ehr.sources.aggregation import Daily
from ehr.sources.days import Engine, Part, threads
from ehr.sources.places import place_of


def cache_of(section: Partitions, workspace: Path) -> Path:
    """Where parsed tables are kept."""
    return place_of(section.cache) if section.cache else workspace / "cache"


def engine_of(section: Partitions) -> Engine:
    """Who aggregates the parts.

    Raises:
        ConfigError: the engine's package is not installed.
    """
    if section.engine == "threads":
        return threads
    if find_spec("prefect_dask") is None:
        raise ConfigError("partitions.engine=dask, but prefect-dask is not installed", "it is an optional extra",
                          'pip install "eag-rl[dask]", or partitions.engine=threads')
    return _Dask(section)


class _Dask:
    """An `Engine`: a Prefect flow whose tasks run on the workers of a Dask cluster."""

    def __init__(self, section: Partitions) -> None:
        self._section = section

    def __call__(self, parts: Sequence[Part]) -> list[Daily]:
        """All parts' records, in order.

        Raises:
            ServerError: no scheduler answers.
        """
        made = task(name="daily-records", task_run_name="part-{number}", cache_policy=NO_CACHE, persist_result=False,
                    retries=2, retry_delay_seconds=5)(_daily)

        @flow(name="aggregate-parts", task_runner=self._runner(), persist_result=False, validate_parameters=False)
        def aggregate_parts() -> list[Daily]:
            submitted = [made.submit(part.number, part) for part in parts]
            return [future.result() for future in submitted]

        try:
            return aggregate_parts()
        except (TimeoutError, OSError) as error:
            raise ServerError(f"the Dask cluster {self._section.scheduler or 'of this machine'} failed: {error}",
                              "partitions.scheduler names a scheduler that answers, as in tcp://127.0.0.1:8786",
                              "start one (dask scheduler, dask worker), or partitions.engine=threads") from error

    def _runner(self) -> Any:
        from prefect_dask import DaskTaskRunner

        if self._section.scheduler:
            return DaskTaskRunner(address=self._section.scheduler)
        return DaskTaskRunner(cluster_kwargs={
            "n_workers": self._section.workers, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1",
            "dashboard_address": None})


def _daily(number: int, part: Part) -> Daily:  # noqa: ARG001 - the number names the run
    return part.daily()
