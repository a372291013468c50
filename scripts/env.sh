# Sourced by every script here: where the project lies, how it speaks, and what must not leave this machine.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
export venv="$root/.venv"

# Without bytecode on disk every start of Python compiles thousands of files again: minutes for a server and its children.
unset PYTHONDONTWRITEBYTECODE

# Telemetry off. The same list, for programs that do not come through here, is in operations/privacy.py;
# tests/operations/test_privacy.py holds the two together.
export DO_NOT_TRACK=1
export HF_HUB_DISABLE_TELEMETRY=1
export HF_HUB_DISABLE_UPDATE_CHECK=1
export PREFECT_SERVER_ANALYTICS_ENABLED=false
export VLLM_NO_USAGE_STATS=1
export VLLM_DO_NOT_TRACK=1
export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_MODEL_CATALOG_URI=
# MLflow's server runs no jobs and nothing reads a pickle.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
export MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE=false
# Choices: what the user set stands. MLflow's pages answer to loopback names only; tokenizers fork without a warning.
export MLFLOW_SERVER_ALLOWED_HOSTS="${MLFLOW_SERVER_ALLOWED_HOSTS:-localhost,localhost:*,127.0.0.1,127.0.0.1:*}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"

say() { printf '%s\n' "$*" >&2; }

# Ends with a cause and the next step, the way `eag-rl` does: exit code 2.
refuse() {
  say "error: $1"
  say " next: $2"
  exit 2
}

# Sets up the environment unless it stands. The test tools and `eag-rl` are then in "$venv/bin".
need_setup() { "$root/scripts/setup" --quiet; }
