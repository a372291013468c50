"""The pages of a workspace: a port in use is told with the option that changes it, and nothing is left behind."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from contracts.errors import ServerError
from operations.pages import serve_pages


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is in use") as caught:
            serve_pages(tmp_path, port, 5000, lambda _text: None)
    assert "--prefect-port" in caught.value.next_step
    assert psutil.Process().children(recursive=True) == before
