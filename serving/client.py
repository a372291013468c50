"""The one door to the language model: token ids of a prompt go in, sampled continuations (`Generation`) come out.

Speaks vLLM's `/v1/completions` with token-id prompts. No prompt, completion or server message that might quote one is
ever logged or put into an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from configs.schema import Serving
from contracts.errors import ConfigError, PromptTooLongError, ServerError
from contracts.generation import Generation
from serving.guard import checked_address

CONNECT_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0
MASKED = -9998.0  # vLLM writes -inf as -9999
# The whole distribution at the asked temperature. Always sent: a server that we did not start fills in what is missing
# from its model's generation_config.json.
UNRESTRICTED = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
                "frequency_penalty": 0.0}


@dataclass
class Usage:
    """What a client has asked for and got so far: tokens, answered requests, tries that had to be repeated."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    retries: int = 0


class _TransientError(Exception):
    """A failure that may pass: the connection broke, or the server answered 429 or 5xx."""

    def __init__(self, what: str, unreachable: bool) -> None:
        super().__init__(what)
        self.unreachable = unreachable


class Client:
    """Asks one server, at most `2 * section.slots` requests at a time, so that its slots never run empty.

    Belongs to the event loop that first uses it; close it there (or use it as an async context manager).

    Args:
        base_url: address of the server, loopback or a host named in `section.allowed_hosts`.
        api_key: sent as bearer token; none: no key is sent.
        section: limits, retries and timeouts.
        context: longest prompt and answer together that the server accepts [tokens].
        recover: called, once at a time, after the server could not be reached and before the next try; it may restart
            the server.
        transport: replaces the network, for tests.

    Raises:
        ConfigError: the address is not loopback and not allowed by name.
    """

    def __init__(self, base_url: str, api_key: str | None, section: Serving, context: int, *,
                 recover: Callable[[], Awaitable[None]] | None = None,
                 transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.base_url = checked_address(base_url, section.allowed_hosts)
        self.section, self.context, self.recover = section, context, recover
        self.usage = Usage()
        at_once = 2 * section.slots
        self._slots = asyncio.Semaphore(at_once)
        self._recovering = asyncio.Lock()
        # trust_env=False: a proxy named in the environment would see the prompts. Redirects are not followed.
        self._http = httpx.AsyncClient(
            base_url=self.base_url, trust_env=False, transport=transport,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            limits=httpx.Limits(max_connections=at_once + 8, max_keepalive_connections=at_once + 8),
            timeout=httpx.Timeout(section.request_seconds, connect=CONNECT_SECONDS, pool=None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections; the server drops requests that are still running."""
        await self._http.aclose()

    async def generate(self, prompt_ids: Sequence[int], *, model: str, max_tokens: int, temperature: float = 0.0,
                       seed: int | None = None, stop: Sequence[str] = (), count: int = 1, top_logprobs: int = 0,
                       regex: str | None = None, choices: Sequence[str] | None = None) -> list[Generation]:
        """Continues a prompt; see `contracts.generation.Generate`.

        `token_ids` hold what was sampled: the tokens of a stop string and the end-of-turn token too.

        Raises:
            ConfigError: both `regex` and `choices` are given, or the prompt is empty.
            PromptTooLongError: prompt and `max_tokens` do not fit the context together.
            ServerError: the server refuses the request, or does not answer after all retries.
        """
        self._check(prompt_ids, max_tokens, regex, choices)
        request: dict[str, Any] = {
            "model": model, "prompt": list(prompt_ids), "max_tokens": max_tokens, "temperature": temperature,
            "n": count, "return_token_ids": True, "add_special_tokens": False, **UNRESTRICTED}
        if seed is not None:
            request["seed"] = seed
        if stop:
            request["stop"] = list(stop)
        if top_logprobs:
            request["logprobs"] = top_logprobs
        if regex is not None or choices is not None:
            request["structured_outputs"] = {"regex": regex} if regex is not None else {"choice": list(choices or ())}
        answer = await self.post("/v1/completions", request)
        usage = answer["usage"]
        self.usage.prompt_tokens += usage["prompt_tokens"]
        self.usage.completion_tokens += usage["completion_tokens"]
        rows = sorted(answer["choices"], key=lambda row: row["index"])
        return [_generation(row, top_logprobs, usage["prompt_tokens"]) for row in rows]

    async def post(self, path: str, body: Mapping[str, Any], *, quotes_prompts: bool = True) -> dict[str, Any]:
        """Posts JSON to the server, with the retries of the section, and returns its JSON.

        Args:
            quotes_prompts: the server's error messages might quote the request, so they are left out of errors.

        Raises:
            ServerError: a refusal (4xx, never retried), a timeout (never retried), or no answer after all retries.
        """
        content = json.dumps(body).encode()
        async with self._slots:
            response = await self._retried(lambda: self._once("POST", path, content), self._recover)
        self._refuse_errors(path, response, quotes_prompts)
        self.usage.requests += 1
        parsed: dict[str, Any] = response.json()
        return parsed

    async def admin(self, path: str, body: Mapping[str, Any], already: str) -> None:
        """Posts an order to the server, outside the limit on concurrent requests and without recovery (which uses it).

        Args:
            already: words of the refusal that says that the order is carried out already.

        Raises:
            ServerError: any other refusal, or no answer after all retries.
        """
        content = json.dumps(body).encode()
        response = await self._retried(lambda: self._once("POST", path, content), None)
        if already not in _reason(response, quotes_prompts=False):
            self._refuse_errors(path, response, quotes_prompts=False)

    async def get(self, path: str) -> httpx.Response:
        """Gets `path`, outside the limit on concurrent requests and without recovery; for health, models and metrics.

        Raises:
            ServerError: the server cannot be reached or answers with an error.
        """
        try:
            response = await self._once("GET", path, None)
        except _TransientError as error:
            raise self._no_answer(path, error, 1) from error
        self._refuse_errors(path, response, quotes_prompts=False)
        return response

    async def slots_busy(self) -> int:
        """Sequences that the server decodes at this moment (`vllm:num_requests_running`)."""
        return int(metric((await self.get("/metrics")).text, "vllm:num_requests_running"))

    def _check(self, prompt_ids: Sequence[int], max_tokens: int, regex: str | None,
               choices: Sequence[str] | None) -> None:
        if regex is not None and choices is not None:
            raise ConfigError("both regex and choices are given", "at most one constraint for a request", "drop one")
        if not len(prompt_ids):
            raise ConfigError("an empty prompt", "a prompt has at least one token", "render the chat first")
        needed = len(prompt_ids) + max_tokens
        if needed > self.context:
            raise PromptTooLongError(
                f"{needed} tokens needed: a prompt of {len(prompt_ids)} and an answer of up to {max_tokens}",
                f"prompt and answer fit the context of {self.context} tokens together; prompts are never cut",
                "raise serving.context, or lower prompts.features, prompts.visits, prompts.digits or the "
                "completion_tokens of the stage")

    async def _retried(self, once: Callable[[], Awaitable[httpx.Response]],
                       recover: Callable[[RetryCallState], Awaitable[None]] | None) -> httpx.Response:
        tries = self.section.retries + 1

        async def before_next(state: RetryCallState) -> None:
            self.usage.retries += 1
            if recover is not None:
                await recover(state)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(tries), retry=retry_if_exception_type(_TransientError), reraise=True,
            wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT), before_sleep=before_next)
        try:
            async for attempt in retrying:
                with attempt:
                    return await once()
        except _TransientError as error:
            raise self._no_answer("the request", error, tries) from error
        raise AssertionError("tenacity ends with an answer or an error")  # pragma: no cover

    async def _recover(self, state: RetryCallState) -> None:
        """Lets `recover` bring the server back, if the last try did not reach it."""
        error = state.outcome.exception() if state.outcome else None
        if self.recover is not None and isinstance(error, _TransientError) and error.unreachable:
            async with self._recovering:
                await self.recover()

    async def _once(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        try:
            async with asyncio.timeout(self.section.request_seconds):
                response = await self._http.request(method, path, content=content,
                                                    headers={"Content-Type": "application/json"} if content else None)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise ServerError(f"no answer from {self.base_url}{path} within {self.section.request_seconds:g} s",
                              "an answer comes within serving.request_seconds",
                              "raise serving.request_seconds, or lower serving.slots or completion_tokens") from error
        except httpx.TransportError as error:
            raise _TransientError(type(error).__name__, unreachable=True) from error
        if response.status_code == 429 or response.status_code >= 500:
            raise _TransientError(f"HTTP {response.status_code}", unreachable=response.status_code in (502, 503, 504))
        return response

    def _no_answer(self, what: str, error: _TransientError, tries: int) -> ServerError:
        return ServerError(f"{self.base_url} failed {what} {tries} times, at last with {error}",
                           f"the server answers within {tries} tries (serving.retries)",
                           "look into vllm.log in the run's folder; lower serving.slots if memory ran out")

    def _refuse_errors(self, path: str, response: httpx.Response, quotes_prompts: bool) -> None:
        status = response.status_code
        if status < 300:
            return
        if status in (401, 403):
            raise ServerError(f"{self.base_url}{path} refuses the key (HTTP {status})", "the server's API key is sent",
                              "set EAG_RL_API_KEY to the key of the server at serving.url")
        reason = _reason(response, quotes_prompts)
        raise ServerError(f"{self.base_url}{path} answers HTTP {status}{reason}", "the server accepts the request",
                          "check that model, adapter and constraint are known to this server; its log says more")


def _reason(response: httpx.Response, quotes_prompts: bool) -> str:
    """Kind of a refusal; its message only where no prompt can be quoted in it."""
    try:
        error = response.json().get("error", {})
    except (ValueError, AttributeError):
        return ""
    if not isinstance(error, dict):
        return ""
    kinds = [str(error[key]) for key in ("type", "param") if error.get(key)]
    if not quotes_prompts and error.get("message"):
        kinds.append(str(error["message"])[:500])
    return f" ({'; '.join(kinds)})" if kinds else ""


def _generation(row: Mapping[str, Any], top_logprobs: int, prompt_tokens: int) -> Generation:
    """One row of `choices` as a `Generation`."""
    ids = tuple(row["token_ids"])
    scores = row.get("logprobs") if top_logprobs else None
    return Generation(
        text=row["text"], token_ids=ids, finish_reason=row["finish_reason"] or "stop", prompt_tokens=prompt_tokens,
        completion_tokens=len(ids),
        tokens=tuple(scores["tokens"]) if scores else (),
        logprobs=tuple(scores["token_logprobs"]) if scores else (),
        top=tuple(_likeliest(position, top_logprobs) for position in scores["top_logprobs"]) if scores else ())


def _likeliest(position: Mapping[str, float], count: int) -> dict[str, float]:
    """The `count` likeliest tokens of one position; the server adds the sampled one, and -9999 stands for -inf."""
    possible = [(text, value) for text, value in position.items() if value > MASKED]
    return dict(sorted(possible, key=lambda pair: -pair[1])[:count])


def metric(exposition: str, name: str) -> float:
    """Sum over all labels of one metric in the Prometheus text format; 0 where it does not occur."""
    lines = (line for line in exposition.splitlines() if line.startswith((name + "{", name + " ")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
