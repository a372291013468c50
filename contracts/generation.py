"""What a language model answers, and the one door through which search, evaluation and rollouts ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Generation:
    """One sampled continuation of a prompt.

    Attributes:
        text: the continuation, decoded; a stop string is not part of it.
        token_ids: its L token ids, as sampled.
        tokens: their L texts.
        logprobs: their L log-probabilities under the sampling model (raw, before temperature); empty if not asked for.
        top: for each of the L positions, text of the likeliest tokens to log-probability; empty if not asked for.
        finish_reason: "stop" or "length".
        prompt_tokens, completion_tokens: counts.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    top: tuple[Mapping[str, float], ...] = ()
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Generate(Protocol):
    """Asks a language model to continue a tokenised prompt; implemented by serving.client.Client.generate."""

    async def __call__(self, prompt_ids: Sequence[int], *, model: str, max_tokens: int, temperature: float = 0.0,
                       seed: int | None = None, stop: Sequence[str] = (), count: int = 1, top_logprobs: int = 0,
                       regex: str | None = None, choices: Sequence[str] | None = None) -> list[Generation]:
        """Returns `count` continuations of at most `max_tokens` tokens.

        Args:
            prompt_ids: token ids of the whole prompt, chat template and any prefilled answer included.
            model: the base model's or an adapter's name on the server.
            seed: of the sampling; the same prompt, settings and seed aim at the same text.
            stop: strings that end a continuation (not included in it).
            top_logprobs: alternatives reported per position.
            regex: the continuation matches this regular expression (constrained decoding).
            choices: the continuation is one of these (constrained decoding).

        Raises:
            PromptTooLongError: prompt and max_tokens do not fit the context together.
            ServerError: the server does not answer after all retries.
        """
        ...


class RenderChat(Protocol):
    """Turns chat messages, with the first words of the answer prefilled, into the token ids of one prompt."""

    def __call__(self, messages: Sequence[Mapping[str, str]], prefill: str = "") -> list[int]: ...
