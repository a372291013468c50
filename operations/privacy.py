"""What must not leave this machine and what must not run on it, as environment variables.

In: the environment. Out: the same, hardened: no telemetry of any library, no pickle read by MLflow, no jobs run by its
server, its pages answering to loopback names only; a Prefect beyond loopback only with a password. Called before
prefect, mlflow, transformers or vllm is imported, since most of them read these variables at import. `scripts/env.sh`
sets the same for shell scripts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

from contracts.errors import ConfigError
from serving.guard import is_loopback

# Set whatever the user set: patient data is near, and none of these has a good reason to be otherwise.
ENFORCED: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",  # Prefect's client, vLLM, Hugging Face
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow takes DO_NOT_TRACK only as the word "true"
    "MLFLOW_MODEL_CATALOG_URI": "",  # else its server downloads a list of hosted models
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
}

# Set unless the user set them.
DEFAULTS: Mapping[str, str] = {
    # By default MLflow's server also answers to names of private networks.
    "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost,localhost:*,127.0.0.1,127.0.0.1:*",
    "TOKENIZERS_PARALLELISM": "false",
}


def harden_environment(environment: MutableMapping[str, str] | None = None) -> list[str]:
    """Sets ENFORCED and, where absent, DEFAULTS; idempotent.

    Args:
        environment: what to change; none: this process's own.

    Returns:
        Names of the user's settings that were overruled.
    """
    target = os.environ if environment is None else environment
    overruled = [name for name, value in ENFORCED.items() if name in target and target[name] != value]
    target.update(ENFORCED)
    for name, value in DEFAULTS.items():
        target.setdefault(name, value)
    return overruled


def check_exposure(environment: MutableMapping[str, str] | None = None) -> None:
    """Prefect and MLflow beyond loopback: only with a password, and never one in the address; CSRF tokens on.

    Args:
        environment: what to look at, and where CSRF protection is set; none: this process's own.

    Raises:
        ConfigError: a server would be open to its network, or an address carries a password.
    """
    target = os.environ if environment is None else environment
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        parts = urlsplit(target.get(name, ""))
        if parts.scheme in ("http", "https") and parts.password is not None:
            raise ConfigError(f"{name} carries a password", "addresses are logged and carry none",
                              "give it in PREFECT_API_AUTH_STRING, or MLFLOW_TRACKING_USERNAME and _PASSWORD")
    asked = urlsplit(target.get("PREFECT_API_URL", "")).hostname
    if asked and not is_loopback(asked) and not {"PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"} & set(target):
        raise ConfigError(f"PREFECT_API_URL names {asked!r} without a password",
                          "a Prefect server beyond this machine asks for one",
                          "set PREFECT_API_AUTH_STRING=USER:PASSWORD here and PREFECT_SERVER_API_AUTH_STRING there")
    served = target.get("PREFECT_SERVER_API_HOST", "")
    if served and not is_loopback(served):
        if not target.get("PREFECT_SERVER_API_AUTH_STRING"):
            raise ConfigError(f"PREFECT_SERVER_API_HOST={served} without a password",
                              "a Prefect server that others can reach asks for one",
                              "set PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD, or serve on 127.0.0.1")
        target["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] = "true"
