"""Prefect tasks, one file a stage: open the inputs, call one room, store the artifact, track the run."""
