"""Section about the HTTP API in front of the champion: where it listens, who may ask how much."""

from __future__ import annotations

from pydantic import Field, model_validator

from configs.section import Positive, Section


class Api(Section):
    """`eag-rl serve`: one patient in, risk and reasoning out, over HTTP."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; anything but loopback needs "
                                                             "allow_remote, certificate and key.")
    port: int = Field(8765, ge=0, le=65_535, description="Port; 0: a free one.")
    allow_remote: bool = Field(False, description="Listen beyond this machine: patient data then crosses a network, "
                                                  "so only with TLS.")
    names: tuple[str, ...] = Field((), description="Host names that requests may be addressed to, beside those of "
                                                   "loopback.")
    certificate: str | None = Field(None, description="PEM file of the TLS certificate; none: plain HTTP.")
    key: str | None = Field(None, description="PEM file of its private key.")
    requests_per_minute: float = Field(600.0, gt=0.0, le=1e6, description="Requests of one token, sustained.")
    burst: Positive = Field(100, description="Requests of one token at once, before the sustained rate counts.")
    body_kib: Positive = Field(256, description="Largest request [KiB].")
    visits: int = Field(366, ge=1, le=10_000, description="Most visits of a patient.")
    queue: Positive = Field(256, description="Predictions waiting or running at once; further ones are turned away.")
    request_seconds: float = Field(120.0, gt=0.0, le=7200.0, description="Longest time for one prediction [s].")
    drain_seconds: Positive = Field(60, description="How long running predictions may go on after a stop [s].")
    samples: int = Field(8, ge=0, le=256, description="Answers sampled for the interval; 0: no interval.")
    sample_temperature: float = Field(0.8, gt=0.0, le=5.0, description="Sampling temperature of these answers.")
    level: float = Field(0.8, gt=0.0, lt=1.0, description="Share of the sampled risks that the interval holds.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Api:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together, or neither")
        return self
