"""Prompts hold patient data: only loopback and hosts allowed by name may be asked."""

from __future__ import annotations

import pytest

from configs.schema import Serving
from contracts.errors import ConfigError
from serving.client import Client
from serving.guard import checked_address
from serving.server import ExternalServer, open_server


@pytest.mark.parametrize(("url", "address"), [
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
    ("http://localhost:1", "http://localhost:1"),
    ("http://127.9.9.9", "http://127.9.9.9"),
    ("https://[::1]:8443/models/v1", "https://[::1]:8443/models"),
])
def test_loopback_is_allowed(url, address):
    assert checked_address(url) == address


@pytest.mark.parametrize("url", [
    "http://192.168.0.7:8000", "http://example.org", "http://0.0.0.0:8000", "http://127.0.0.1.example.org",
    "http://localhost.example.org", "http://[fe80::1]", "http://2130706433"])
def test_any_other_host_is_refused(url):
    with pytest.raises(ConfigError, match="names the host") as caught:
        checked_address(url)
    assert "serving.allowed_hosts" in caught.value.rule


def test_a_host_named_in_the_configuration_is_allowed():
    assert checked_address("https://GPU.ward:8000/v1", ("gpu.ward",)) == "https://gpu.ward:8000"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port",
                                 "http://127.0.0.1/?x=1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="serving.url"):
        checked_address(url)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(ConfigError) as caught:
        checked_address("http://me:secret@127.0.0.1")
    assert "secret" not in str(caught.value)


def test_a_name_before_the_at_sign_does_not_pass_for_the_host():
    with pytest.raises(ConfigError):
        checked_address("http://127.0.0.1@example.org")


def test_clients_and_external_servers_refuse_other_hosts(tmp_path):
    section = Serving(url="http://example.org:8000")
    with pytest.raises(ConfigError):
        Client("http://example.org:8000", "key", section, 4096)
    with pytest.raises(ConfigError):
        ExternalServer(section)
    with pytest.raises(ConfigError):
        open_server(section, model=tmp_path, workdir=tmp_path, dtype="float32", lora_rank=8, seed=0)
