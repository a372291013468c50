"""Prefect flows: the order of tasks and nothing else; and `cli`, the command `eag-rl`."""
