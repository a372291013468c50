"""YAML with `extends` and dotted overrides to a `Config`; reports all errors at once, each with its valid range.

In: the name of a file beside this module ("demo") or a path; overrides such as "policy.grpo.lr=1e-5".
Out: a frozen `Config`; `dump` turns it into plain values for printing and storing.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from configs.schema import Config
from contracts.errors import ConfigError

FOLDER = Path(__file__).parent
WORKSPACE = "EAG_RL_WORKSPACE"


def load(name: str, overrides: Iterable[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        name: a shipped configuration ("demo", "tjh_small", "tjh") or a path to a YAML file.
        overrides: dotted settings, "section.key=value"; the value is read as YAML.

    Where nothing sets paths.workspace, the variable EAG_RL_WORKSPACE does: a worker runs all studies in its own.

    Raises:
        ConfigError: the file is missing or no YAML, or any setting is unknown or out of range (all are named).
    """
    values = _in_workspace(_read(_locate(name, FOLDER), ()), os.environ.get(WORKSPACE))
    for override in overrides:
        values = _merged(values, _nested(override))
    config = _validated({**values, **_arms(values)}, name)
    for arm in config.arms:
        for_arm(config, arm)
    return config


def for_arm(config: Config, name: str) -> tuple[Config, Config]:
    """The study as an arm wants it: for its stages from the prompts on, and for its own training and judging.

    Dynamic sampling that is given no budget of rollouts gets as many as the study's own stage 2 takes.

    Raises:
        ConfigError: a setting of the arm is unknown or out of range.
    """
    arm, values = config.arms[name], dump(config)
    for dotted, value in arm.prepare.items():
        values = _merged(values, _placed(dotted, value))
    prepared = _validated(values, f"arm {name}")
    for dotted, value in {**arm.train, "evaluation.style": arm.style}.items():
        values = _merged(values, _placed(dotted, value))
    own = _validated(values, f"arm {name}")
    if own.policy.grpo.resample_rounds and own.policy.grpo.rollout_budget is None:
        grpo = config.policy.grpo
        spent = -(-grpo.steps // grpo.steps_per_batch) * grpo.rollouts_per_batch
        own = _validated(_merged(values, _placed("policy.grpo.rollout_budget", spent)), f"arm {name}")
    return prepared, own


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shipped_arms() -> list[str]:
    """Names of the arms that come with the package."""
    return sorted(path.stem for path in (FOLDER / "arms").glob("*.yaml"))


def dump(config: BaseModel) -> dict[str, Any]:
    """The configuration as plain JSON-ready values."""
    return config.model_dump(mode="json")


def describe(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Every setting: (dotted name, valid range, default, description)."""
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from describe(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", valid_range(info), info.default, info.description or ""


def valid_range(info: FieldInfo) -> str:
    """What a field accepts, in words: its type or choices and its bounds."""
    choices = [choice for choice in get_args(info.annotation) if isinstance(choice, str)]
    if choices and not any(isinstance(part, type) for part in get_args(info.annotation)):
        text = "one of " + ", ".join(choices)
    else:
        text = getattr(info.annotation, "__name__", str(info.annotation)).replace("typing.", "")
        if get_args(info.annotation):
            text = str(info.annotation).replace("typing.", "")
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(meta, word)}" for meta in info.metadata for word, sign in signs.items()
              if getattr(meta, word, None) is not None]
    return " ".join([text, ", ".join(bounds)]).strip()


def _locate(name: str, folder: Path) -> Path:
    for path in (folder / f"{name}.yaml", Path(name), folder / name):
        if _is_file(path):
            return path
    raise ConfigError(f"no configuration {name!r}", f"a YAML file, or one of: {', '.join(shipped())}",
                      "correct --config, or give the path of your own file")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # its name is too long, or a folder above is closed
        raise ConfigError(f"{str(path)[:200]}: {error.strerror}", "a path that can be read",
                          "correct the path, or give a shorter one") from error


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"{path.name} extends itself", "`extends` makes a chain without a loop", f"edit {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date that does not exist
        raise ConfigError(f"{path} is no YAML: {error}", "a configuration is a YAML mapping", f"edit {path}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "a file that can be read", "correct its permissions") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}", "a configuration is a YAML mapping",
                          f"edit {path}")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    folder = FOLDER if _is_file(FOLDER / f"{parent}.yaml") else path.parent
    return _merged(_read(_locate(str(parent), folder), (*seen, path)), values)


def _in_workspace(values: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """The settings with the workspace of the environment, if that names one and they do not."""
    return _merged(_placed("paths.workspace", folder), values) if folder else values


def _nested(override: str) -> dict[str, Any]:
    name, sign, text = override.partition("=")
    if not sign or not name:
        raise ConfigError(f"override {override!r}", "section.key=value", "for example --set policy.grpo.lr=1e-5")
    try:
        value = yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"override {override!r}: {error}", "the value is read as YAML", "quote the value") from error
    return _placed(name.strip(), value)


def _placed(dotted: str, value: Any) -> dict[str, Any]:
    """A value under its dotted name."""
    nested: Any = value
    for part in reversed(dotted.split(".")):
        nested = {part: nested}
    return dict(nested)


def _arms(values: dict[str, Any]) -> dict[str, Any]:
    """The section arms with each arm that other sections name, read from its file where the configuration does not
    describe it; those sections too, where paths have become names."""
    own = values.get("arms") or {}
    if not isinstance(own, dict):
        return {}  # the schema says what is wrong
    found = {name: _extended(name, arm) for name, arm in own.items()}
    sections: dict[str, Any] = {}
    for place in ("evaluation", "robustness", "transfer"):
        usual = getattr(Config(), place).arms
        section = values.get(place) or {}
        named = section.get("arms", usual) if isinstance(section, dict) else None
        if isinstance(named, list | tuple):
            names = _located(list(map(str, named)), found, place)
            sections |= {place: {**section, "arms": names}} if names else {}
    return {"arms": found, **sections}


def _extended(name: str, arm: Any) -> Any:
    """An arm of the configuration, with the settings of the arm that its `extends` names, a file, below its own."""
    if not isinstance(arm, dict) or "extends" not in arm:
        return arm
    parent = _arm_file(str(arm["extends"]), (), f"correct arms.{name}.extends")
    return _merged(_read(parent, ()), {key: value for key, value in arm.items() if key != "extends"})


def _arm_file(arm: str, own: Iterable[str], remedy: str) -> Path:
    """The file of an arm: a path to a YAML file, or the name of a shipped arm."""
    path = Path(arm)
    file = path if path.suffix in (".yaml", ".yml") else FOLDER / "arms" / f"{arm}.yaml"
    if not _is_file(file):
        known = ", ".join(sorted({*own, *shipped_arms()}))
        raise ConfigError(f"no arm {arm!r}", f"a YAML file, or one of: {known}", remedy)
    return file


def _located(named: list[str], found: dict[str, Any], place: str) -> list[str]:
    """Names of arms; those that are not in `found` are read from their files into it."""
    names, own = [], set(found)
    for arm in named:
        path = Path(arm)
        name = path.stem if path.suffix in (".yaml", ".yml") else arm
        names.append(name)
        if name in found:
            continue
        file = _arm_file(arm, own, f"correct {place}.arms, or describe the arm in the section `arms`")
        found[name] = _read(file, ())
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ConfigError(f"{place}.arms names {', '.join(sorted(repeated))} twice", "each arm stands once",
                          f"correct {place}.arms")
    return names


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


def _validated(values: Mapping[str, Any], name: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_problem(entry) for entry in error.errors()]
    raise ConfigError(f"{name}: {len(problems)} invalid setting(s):\n  " + "\n  ".join(problems),
                      "each setting stays in its range", "`eag-rl config show --all` lists every setting and its range")


def _problem(entry: ErrorDetails) -> str:
    """One pydantic error as: dotted name = value: message (valid: range)."""
    parts = [str(part) for part in entry["loc"]]
    parent: type[BaseModel] | None = Config
    info: FieldInfo | None = None
    path: list[str] = []
    for part in parts:
        info = parent.model_fields.get(part) if parent is not None else None
        if info is None:
            break
        path.append(part)
        kind = info.annotation
        if get_origin(kind) is dict:
            path, info, parent = parts, None, None
            break
        parent = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    dotted = ".".join(path) or "configuration"
    if entry["type"] == "extra_forbidden":
        known = list(parent.model_fields) if parent is not None else []
        close = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{'.'.join(parts)}: unknown setting ({hint})"
    valid = f" (valid: {valid_range(info)})" if info is not None and parent is None else ""
    found = "" if parent is not None else f" = {entry['input']!r}"
    return f"{dotted}{found}: {entry['msg']}{valid}"
