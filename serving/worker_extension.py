"""What vLLM's CPU worker imports when it starts (`--worker-extension-cls`): puts `lora_cpu` in place. Not for us."""

from __future__ import annotations

from serving.lora_cpu import install

install()


class GroupedLora:
    """The class vLLM asks for and mixes into its worker; it adds nothing, the import above is the point."""
