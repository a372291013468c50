"""What vLLM's CPU worker imports when it starts (`--worker-extension-cls`): puts `lora_cpu` and `sampling_cpu` in
place. Not for us."""

from __future__ import annotations

from serving import lora_cpu, sampling_cpu

lora_cpu.install()
sampling_cpu.install()


class FasterCpu:
    """The class vLLM asks for and mixes into its worker; it adds nothing, the installations above are the point."""
