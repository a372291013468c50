"""The client against a scripted server: what is sent, what comes back, what is tried again, and what is refused."""

from __future__ import annotations

import asyncio
import logging

import pytest

from configs.schema import Serving
from contracts.errors import ConfigError, PromptTooLongError, ServerError
from serving import client as client_module
from serving.client import Client, metric
from support.openai_server import Fault, ScriptedServer

PROMPT = [101, 102, 103]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)


@pytest.fixture
def server():
    with ScriptedServer() as scripted:
        yield scripted


def client_of(server, context=4096, key=None, recover=None, **settings):
    return Client(server.url, key or server.key, Serving(**settings), context, recover=recover)


async def test_a_request_says_what_was_asked_for(server):
    async with client_of(server) as client:
        await client.generate(PROMPT, model="base", max_tokens=9, temperature=0.5, seed=3, stop=["</a>"], count=2,
                              top_logprobs=4, regex="[0-9]")
    assert server.requests()[0] == {
        "model": "base", "prompt": PROMPT, "max_tokens": 9, "temperature": 0.5, "n": 2, "seed": 3, "stop": ["</a>"],
        "logprobs": 4, "structured_outputs": {"regex": "[0-9]"}, "return_token_ids": True, "add_special_tokens": False,
        "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0}


async def test_what_was_not_asked_for_is_not_sent(server):
    async with client_of(server) as client:
        await client.generate(PROMPT, model="base", max_tokens=9)
        await client.generate(PROMPT, model="base", max_tokens=9, choices=("yes", "no"))
    plain, choice = server.requests()
    assert {"seed", "stop", "logprobs", "structured_outputs"} & set(plain) == set()
    assert choice["structured_outputs"] == {"choice": ["yes", "no"]}


async def test_a_continuation_carries_ids_tokens_and_log_probabilities():
    with ScriptedServer(lambda _: ["ab", "c"]) as server:
        async with client_of(server) as client:
            first, second = await client.generate(PROMPT, model="base", max_tokens=9, count=2, top_logprobs=2)
    assert (first.text, first.token_ids, first.tokens, first.finish_reason) == ("ab", (97, 98), ("a", "b"), "stop")
    assert (second.text, second.completion_tokens, second.prompt_tokens) == ("c", 1, 3)
    assert len(first.logprobs) == 2
    assert all(value < 0 for value in first.logprobs)


async def test_only_the_likeliest_possible_alternatives_are_reported():
    with ScriptedServer(lambda _: "a") as server:
        async with client_of(server) as client:
            (one,) = await client.generate(PROMPT, model="base", max_tokens=9, top_logprobs=2)
            (all_possible,) = await client.generate(PROMPT, model="base", max_tokens=9, top_logprobs=9)
    assert list(one.top[0]) == ["likely", "a"]
    assert "never" not in all_possible.top[0]  # -9999 is minus infinity


async def test_without_top_logprobs_there_are_none(server):
    async with client_of(server) as client:
        (one,) = await client.generate(PROMPT, model="base", max_tokens=9)
    assert (one.tokens, one.logprobs, one.top) == ((), (), ())


async def test_a_cut_answer_says_so():
    with ScriptedServer(lambda _: "abcdef") as server:
        async with client_of(server) as client:
            (one,) = await client.generate(PROMPT, model="base", max_tokens=4)
    assert (one.text, one.finish_reason) == ("abcd", "length")


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(429), Fault(0)], ids=["500", "503", "429", "reset"])
async def test_a_passing_failure_is_tried_again(server, fault):
    server.faults.extend([fault, fault])
    async with client_of(server, retries=2) as client:
        (one,) = await client.generate(PROMPT, model="base", max_tokens=9)
        assert (one.text, client.usage.retries, client.usage.requests) == ("ok", 2, 1)
    assert len(server.requests()) == 3


async def test_a_lasting_failure_ends_after_all_tries(server):
    server.faults.extend([Fault(500)] * 9)
    async with client_of(server, retries=2) as client:
        with pytest.raises(ServerError, match="3 times, at last with HTTP 500") as caught:
            await client.generate(PROMPT, model="base", max_tokens=9)
    assert len(server.requests()) == 3
    assert "serving.retries" in caught.value.rule


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refusal_is_not_tried_again_and_quotes_nothing(server, status, caplog):
    caplog.set_level(logging.DEBUG)
    server.faults.append(Fault(status, message="could not parse: Mr Miller, 61"))
    async with client_of(server) as client:
        with pytest.raises(ServerError, match=f"HTTP {status}") as caught:
            await client.generate(PROMPT, model="base", max_tokens=9)
    assert len(server.requests()) == 1
    assert "Miller" not in str(caught.value)
    assert "Miller" not in caplog.text


async def test_a_wrong_key_names_the_variable_to_set(server):
    async with client_of(server, key="other") as client:
        with pytest.raises(ServerError, match="refuses the key") as caught:
            await client.generate(PROMPT, model="base", max_tokens=9)
    assert "EAG_RL_API_KEY" in caught.value.next_step
    assert "other" not in str(caught.value)


async def test_the_key_is_sent_as_bearer_token(server):
    async with client_of(server) as client:
        await client.generate(PROMPT, model="base", max_tokens=9)
    assert server.seen[-1].key == server.key


async def test_a_prompt_that_does_not_fit_is_refused_before_it_is_sent(server):
    async with client_of(server, context=10) as client:
        await client.generate([7] * 6, model="base", max_tokens=4)
        with pytest.raises(PromptTooLongError, match="11 tokens needed: a prompt of 6") as caught:
            await client.generate([7] * 6, model="base", max_tokens=5)
    assert len(server.requests()) == 1
    assert "prompts.features" in caught.value.next_step


async def test_an_answer_that_takes_too_long_is_not_waited_for():
    with ScriptedServer(seconds=1.0) as server:
        async with client_of(server, request_seconds=0.1) as client:
            with pytest.raises(ServerError, match="within 0.1 s"):
                await client.generate(PROMPT, model="base", max_tokens=9)
            assert client.usage.retries == 0


async def test_a_server_that_is_not_there_is_an_error_with_its_address():
    with ScriptedServer() as gone:
        url = gone.url
    async with Client(url, "key", Serving(retries=1), 4096) as client:
        with pytest.raises(ServerError, match="ConnectError") as caught:
            await client.generate(PROMPT, model="base", max_tokens=9)
    assert url in caught.value.value


async def test_at_most_twice_the_slots_are_asked_for_at_once():
    with ScriptedServer(seconds=0.05) as server:
        async with client_of(server, slots=3) as client:
            await asyncio.gather(*(client.generate(PROMPT, model="base", max_tokens=9) for _ in range(24)))
    assert server.most_at_once == 6


async def test_usage_counts_tokens_of_all_continuations():
    with ScriptedServer(lambda _: ["abc", "de"]) as server:
        async with client_of(server) as client:
            await client.generate(PROMPT, model="base", max_tokens=9, count=2)
            await client.generate(PROMPT, model="base", max_tokens=9, count=2)
            assert (client.usage.prompt_tokens, client.usage.completion_tokens, client.usage.requests) == (6, 10, 2)


async def test_a_broken_connection_lets_the_server_be_brought_back_once_at_a_time(server):
    running, most = 0, 0

    async def recover():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    server.faults.extend([Fault(0)] * 4)
    async with client_of(server, recover=recover) as client:
        answers = await asyncio.gather(*(client.generate(PROMPT, model="base", max_tokens=9) for _ in range(4)))
    assert [rows[0].text for rows in answers] == ["ok"] * 4
    assert most == 1


async def test_a_busy_server_is_not_restarted(server):
    async def recover():
        raise AssertionError("called")

    server.faults.append(Fault(429))
    async with client_of(server, recover=recover) as client:
        assert (await client.generate(PROMPT, model="base", max_tokens=9))[0].text == "ok"


async def test_a_server_that_cannot_be_brought_back_ends_the_request(server):
    async def recover():
        raise ServerError("exited", "it runs", "read the log")

    server.faults.append(Fault(0))
    async with client_of(server, recover=recover) as client:
        with pytest.raises(ServerError, match="exited"):
            await client.generate(PROMPT, model="base", max_tokens=9)


async def test_two_constraints_at_once_are_refused(server):
    async with client_of(server) as client:
        with pytest.raises(ConfigError, match="both regex and choices"):
            await client.generate(PROMPT, model="base", max_tokens=9, regex="a", choices=["b"])


async def test_an_empty_prompt_is_refused(server):
    async with client_of(server) as client:
        with pytest.raises(ConfigError, match="empty prompt"):
            await client.generate([], model="base", max_tokens=9)


async def test_a_proxy_of_the_environment_never_sees_a_prompt(server, monkeypatch):
    with ScriptedServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        async with client_of(server) as client:
            await client.generate(PROMPT, model="base", max_tokens=9)
        assert proxy.seen == []


async def test_busy_slots_are_read_from_the_metrics():
    with ScriptedServer(seconds=0.5) as server:
        async with client_of(server) as client:
            task = asyncio.create_task(client.generate(PROMPT, model="base", max_tokens=9))
            await asyncio.sleep(0.2)
            assert await client.slots_busy() == 1
            await task
            assert await client.slots_busy() == 0


def test_a_metric_is_summed_over_its_labels_and_not_mixed_up_with_longer_names():
    text = '# HELP a x\na{engine="0"} 2.0\na{engine="1"} 3.0\na_total 100.0\n'
    assert metric(text, "a") == 5.0
    assert metric(text, "b") == 0.0
