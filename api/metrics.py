"""Prometheus metrics of the API. Labels are fixed words (route, method, status): no text of a request is one."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import generate_latest as exposition

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        made: dict[str, Any] = {"registry": self.registry, "namespace": "eag_rl"}
        self.requests = Counter("requests", "Requests answered.", ("route", "method", "status"), **made)
        self.seconds = Histogram("request_seconds", "Time to the end of the answer.", ("route",), buckets=_SECONDS,
                                 **made)
        self.running = Gauge("predictions_running", "Predictions waiting or running.", **made)
        self.answers = Counter("answers", "Answers of the policy by whether they state a risk.", ("readable",), **made)
        self.ready = Gauge("ready", "1 when predictions are answered.", **made)
        self.model = Gauge("model_info", "The champion that answers.", ("model", "lineage"), **made)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one answer."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return exposition(self.registry)
