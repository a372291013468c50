"""A scripted OpenAI-compatible server on loopback, for unit tests: real HTTP, no model.

It answers `/v1/completions` with the text that a function of the request gives (token ids are the text's UTF-8 bytes),
keeps a list of loaded adapters, and plays faults in order before it answers. Every request is kept for inspection.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KEY = "scripted-key"
Body = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What happens to one completion request instead of an answer.

    Attributes:
        status: HTTP status with an error body; 0: the connection is reset.
        message: the server's words in the error body.
        headers: added to the error.
    """

    status: int = 0
    message: str = "scripted fault"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    path: str
    body: Body
    key: str | None


def scores(model: str, ids: Sequence[int]) -> list[float]:
    """Log-probabilities that depend on the model's name, for canaries."""
    shift = sum(model.encode()) % 97 / 100
    return [-1.0 - shift - token % 7 / 10 for token in ids]


class ScriptedServer:
    """Use as a context manager; `url` and `key` are what a client needs.

    Args:
        answer: the text (or one text per choice) for a request's body.
        seconds: how long each completion takes.
        context: longest prompt and answer together.
        ignores_adapters: adapters are accepted but change nothing (what the canary must notice).
        adapters: loaded from the start.
    """

    def __init__(self, answer: Callable[[Body], str | list[str]] = lambda body: "ok", *,  # noqa: ARG005
                 seconds: float = 0.0, context: int = 4096, ignores_adapters: bool = False,
                 adapters: Sequence[str] = ()) -> None:
        self.answer, self.seconds, self.context, self.ignores_adapters = answer, seconds, context, ignores_adapters
        self.key = KEY
        self.faults: deque[Fault] = deque()
        self.seen: list[Seen] = []
        self.adapters: dict[str, str] = dict.fromkeys(adapters, "")
        self.running = self.most_at_once = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """Base address without `/v1`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def requests(self, path: str = "/v1/completions") -> list[Body]:
        """Bodies of the requests to `path`, in order of arrival."""
        return [seen.body for seen in self.seen if seen.path == path]

    @contextlib.contextmanager
    def busy(self) -> Any:
        """Counts how many completions run at the same time."""
        with self._lock:
            self.running += 1
            self.most_at_once = max(self.most_at_once, self.running)
        try:
            time.sleep(self.seconds)
            yield
        finally:
            with self._lock:
                self.running -= 1

    def next_fault(self) -> Fault | None:
        """The next scripted fault, each played once."""
        with self._lock:
            return self.faults.popleft() if self.faults else None

    def complete(self, body: Body) -> tuple[int, Body]:
        """Status and body of a completion."""
        if body["model"] not in ("base", *self.adapters):
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError"}}
        if len(body["prompt"]) + body["max_tokens"] > self.context:
            return 400, {"error": {"message": f"maximum context length; prompt {body['prompt']}", "type": "BadRequest"}}
        answer = self.answer(body)
        texts = [answer] * body.get("n", 1) if isinstance(answer, str) else answer
        rows = [self._row(index, text, body) for index, text in enumerate(texts)]
        made = sum(len(row["token_ids"]) for row in rows)
        prompt = len(body["prompt"])
        return 200, {"choices": rows, "usage": {"prompt_tokens": prompt, "completion_tokens": made,
                                                "total_tokens": prompt + made}}

    def _row(self, index: int, text: str, body: Body) -> Body:
        ids = list(text.encode())[:body["max_tokens"]]
        row: Body = {"index": index, "text": bytes(ids).decode(errors="replace"), "token_ids": ids, "logprobs": None,
                     "finish_reason": "length" if len(ids) < len(text.encode()) else "stop"}
        model = "base" if self.ignores_adapters else body["model"]
        if body.get("logprobs") is not None:
            tokens, values = [chr(i) for i in ids], scores(model, ids)
            row["logprobs"] = {"tokens": tokens, "token_logprobs": values, "top_logprobs": [
                {token: value, "never": -9999.0, "likely": -0.01, "rare": -9.0} for token, value in
                zip(tokens, values, strict=True)]}
        if body.get("prompt_logprobs") is not None:
            values = scores(model, body["prompt"])
            row["prompt_logprobs"] = [None, *({str(token): {"logprob": value}} for token, value in
                                              zip(body["prompt"][1:], values[1:], strict=True))]
        return row

    def order(self, path: str, body: Body) -> tuple[int, Body | str]:
        """Loads or unloads an adapter, with vLLM's refusals."""
        name = body["lora_name"]
        if path == "/v1/load_lora_adapter":
            if name in self.adapters:
                return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded.",
                                       "type": "InvalidUserInput"}}
            self.adapters[name] = body["lora_path"]
            return 200, "Success"
        if self.adapters.pop(name, None) is None:
            return 404, {"error": {"message": f"The lora adapter '{name}' cannot be found.", "type": "NotFoundError"}}
        return 200, "Success"


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    """A request handler class bound to `server`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            server.seen.append(Seen(self.path, {}, self._key()))
            if self.path == "/health":
                self._send(200, "")
            elif self._key() != server.key:
                self._send(401, "the API key is missing or wrong")
            elif self.path == "/v1/models":
                cards = [{"id": "base", "max_model_len": server.context}]
                self._send(200, {"data": [*cards, *({"id": name, "parent": "base"} for name in server.adapters)]})
            elif self.path == "/metrics":
                self._send(200, f'# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine="0"}} '
                                f'{float(server.running)}\nvllm:num_requests_running_total 7.0\n')
            else:
                self._send(404, "")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.seen.append(Seen(self.path, body, self._key()))
            if self._key() != server.key:
                self._send(401, "the API key is missing or wrong")
            elif self.path != "/v1/completions":
                self._send(*server.order(self.path, body))
            elif fault := server.next_fault():
                self._fail(fault)
            else:
                with server.busy():
                    status, answer = server.complete(body)
                self._send(status, answer)

        def _key(self) -> str | None:
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

        def _fail(self, fault: Fault) -> None:
            if fault.status:
                self._send(fault.status, {"error": {"message": fault.message, "type": "Scripted"}}, fault.headers)
                return
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def _send(self, status: int, body: Body | str, headers: dict[str, str] | None = None) -> None:
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client timed out or was cancelled
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
                self.send_header("Content-Length", str(len(raw)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

    return Handler
