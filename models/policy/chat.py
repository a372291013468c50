"""Chat messages to token ids and back, with nothing heavier than the `tokenizers` library.

The item is one prompt. In: a model folder (tokenizer.json and its chat template) and messages. Out: the token ids of
the prompt, the same for SFT, search, rollouts and evaluation. The template and the prefilled answer are tokenised
apart, as the model meets them: a prompt that is there, and an answer that grows after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from contracts.errors import ModelError, PromptTooLongError

_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
# What templates like Llama 3.2's write as today's date: the day they name themselves where they are told none. The real
# one would change every prompt at midnight, and no key of a stored result knows the day.
TODAY = datetime(2024, 7, 26)
_CHOOSE = "choose an instruction-tuned model, or add the file from its publisher"


class ChatTokenizer:
    """The tokenizer of a model folder and its chat template.

    Args:
        folder: holds tokenizer.json, tokenizer_config.json and, here or inside that, the chat template.

    Attributes:
        named: special tokens by name ("eos_token": "<|im_end|>").
        eos_id: the token that ends the assistant's turn. pad_id: what fills batches up.
        special_ids: ids that are control tokens, not text. decoder: the decoder's description, JSON.

    Raises:
        ModelError: a file is missing or unreadable, there is no chat template, or the template does not end an
            assistant's turn with the end token (training would never teach the policy to stop).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        settings = _json(self.folder / "tokenizer_config.json")
        self.raw, self.decoder = _backend(self.folder / "tokenizer.json")
        self.named = {name: _content(settings[name]) for name in _NAMED if settings.get(name)}
        self.special_ids = frozenset(index for index, token in self.raw.get_added_tokens_decoder().items()
                                     if token.special)
        self._template = _compiled(_template(self.folder, settings), self.folder)
        self.eos_id = self._id("eos_token")
        self.pad_id = self._id("pad_token") if "pad_token" in self.named else self.eos_id
        self._check_turns()

    def __len__(self) -> int:
        return int(self.raw.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; no special token is added."""
        return list(self.raw.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids without the special tokens."""
        return str(self.raw.decode(list(ids), skip_special_tokens=True))

    def count(self, text: str) -> int:
        """Number of tokens of `text`."""
        return len(self.encode(text))

    def render(self, messages: Sequence[Mapping[str, str]], open_answer: bool = True) -> str:
        """The chat as text, with the opening of the assistant's turn when `open_answer`.

        Raises:
            ModelError: the template refuses these messages.
        """
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=open_answer, **self.named)
        except jinja2.TemplateError as error:
            raise ModelError(f"chat template of {self.folder}: {error}", "it renders system and user messages",
                             _CHOOSE) from error

    def _id(self, name: str) -> int:
        token = self.named.get(name)
        index = self.raw.token_to_id(token) if token else None
        if index is None:
            raise ModelError(f"{self.folder}: {name} is {token!r}", "it is a token of the vocabulary", _CHOOSE)
        return int(index)

    def _check_turns(self) -> None:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        ids = self.encode(self.render(turns, open_answer=False))
        if self.eos_id not in ids[len(self.encode(self.render(turns[:1], open_answer=False))):]:
            raise ModelError(f"chat template of {self.folder} never writes {self.named['eos_token']!r} after an answer",
                             "the end token ends the assistant's turn", "set eos_token in tokenizer_config.json")
        if ids[0] == ids[1] and ids[0] in self.special_ids:
            raise ModelError(f"chat template of {self.folder} begins with {self.raw.id_to_token(ids[0])!r} twice",
                             "the begin token stands once", "correct the chat template")


class ChatRenderer:
    """Messages and a prefilled answer to prompt ids (contracts.generation.RenderChat)."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, messages: Sequence[Mapping[str, str]], prefill: str = "") -> list[int]:
        """Token ids of the chat, the opening of the answer and `prefill`.

        Raises:
            ModelError: the template refuses these messages.
        """
        ids = self.tokenizer.encode(self.tokenizer.render(messages))
        return ids + self.tokenizer.encode(prefill) if prefill else ids

    def count(self, messages: Sequence[Mapping[str, str]], prefill: str = "") -> int:
        """Number of prompt tokens."""
        return len(self(messages, prefill))


def load_tokenizer(folder: Path) -> ChatTokenizer:
    """The tokenizer of a prepared model folder, without importing torch or transformers.

    Raises:
        ModelError: see ChatTokenizer.
    """
    return ChatTokenizer(folder)


def require_fit(prompt_tokens: int, answer_tokens: int, context: int, who: str) -> None:
    """Checks that prompt and answer fit the context together; prompts are never cut.

    Raises:
        PromptTooLongError: they do not.
    """
    if prompt_tokens + answer_tokens > context:
        raise PromptTooLongError(
            f"{who}: {prompt_tokens} prompt tokens and {answer_tokens} answer tokens",
            f"together at most serving.context = {context}",
            "lower prompts.visits or prompts.features, or raise serving.context")


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"no {path.name} in {path.parent}", "a model folder holds its tokenizer", _CHOOSE) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no JSON: {error}", "a tokenizer file is JSON", _CHOOSE) from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}", "a tokenizer file is a JSON object", _CHOOSE)
    return values


def _backend(path: Path) -> tuple[Tokenizer, str]:
    # The Rust reader raises bare Exception, so what a wrong file looks like is checked before it is called.
    values = _json(path)
    if not isinstance(values.get("model"), dict):
        raise ModelError(f"{path} has no `model`", "tokenizer.json is a file of the tokenizers library", _CHOOSE)
    return Tokenizer.from_file(str(path)), json.dumps(values.get("decoder") or {})


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named templates; the default one is for chats without tools
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ModelError(f"{folder} has no chat template", "the policy is an instruction-tuned chat model", _CHOOSE)
    return template


def _compiled(source: str, folder: Path) -> jinja2.Template:
    """Compiles the template as transformers does: sandboxed, with the same helpers, but on a fixed day."""
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    world.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    world.globals["raise_exception"] = _refuse
    world.globals["strftime_now"] = TODAY.strftime
    try:
        return world.from_string(source)
    except jinja2.TemplateError as error:
        raise ModelError(f"chat template of {folder}: {error}", "it is a Jinja template", _CHOOSE) from error


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
