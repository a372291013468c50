"""Token ids to characters: which characters of the decoded text each token wrote.

The item is one completion. In: its L token ids. Out: its text and L spans (start, end) in characters. Works on bytes,
so that a character split over tokens belongs to all of them, and never tokenises text a second time: text that was
sampled token by token need not tokenise back to the same ids.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache

from contracts.errors import ModelError
from models.policy.chat import ChatTokenizer

Span = tuple[int, int]
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Speller:
    """Spells token ids out as bytes, for byte-level BPE (Llama 3, Qwen, SmolLM) and SentencePiece-like vocabularies.

    Args:
        tokenizer: of the policy.

    Raises:
        ModelError: the vocabulary writes its bytes in neither way.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._raw, self._special = tokenizer.raw, tokenizer.special_ids
        self._added = frozenset(tokenizer.raw.get_added_tokens_decoder())
        kinds = tokenizer.decoder
        self._byte_level = '"ByteLevel"' in kinds
        if not self._byte_level and "\\u2581" not in kinds and "Metaspace" not in kinds:
            raise ModelError(f"{tokenizer.folder}: unknown decoder {kinds[:80]}",
                             "the vocabulary is byte-level BPE or SentencePiece", "choose another policy.model")

    def bytes_of(self, token_id: int) -> bytes:
        """The UTF-8 bytes that a token writes; none for a special token.

        Nor for an id beyond the vocabulary: embeddings are often padded, so that such an id can be sampled.
        """
        token = None if token_id in self._special else self._raw.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._added:
            return str(token).encode()
        if self._byte_level:
            return bytes(_byte_of()[char] for char in token)
        hexed = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(hexed[1], 16)]) if hexed else token.replace("\u2581", " ").encode()

    def text_of(self, token_id: int) -> str:
        """What a token writes by itself; U+FFFD stands for bytes that are a part of a character."""
        return self.bytes_of(token_id).decode("utf-8", "replace")

    def spell(self, token_ids: Sequence[int]) -> tuple[str, list[Span]]:
        """The text of L tokens and the L spans of characters they wrote.

        A token that holds a part of a character has the whole character in its span; the span of a special token is
        empty. Bytes that are no UTF-8 become U+FFFD.
        """
        reader = codecs.getincrementaldecoder("utf-8")("replace")
        pieces, owners, written = [], [], 0
        for token_id in token_ids:
            chars = []
            for byte in self.bytes_of(token_id):
                piece = reader.decode(bytes([byte]))
                pieces.append(piece)
                written += len(piece)
                # A byte that leaves the decoder waiting belongs to the character not yet written.
                chars.append(written if reader.getstate()[0] else written - 1)
            owners.append((chars[0], chars[-1] + 1) if chars else (written, written))
        pieces.append(reader.decode(b"", final=True))
        return "".join(pieces), owners


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    """Characters of GPT-2's byte-level alphabet to bytes: printable Latin-1 is itself, the rest starts at 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
