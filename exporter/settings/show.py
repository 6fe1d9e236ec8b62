"""The effective configuration as TOML, and the table of settings for the README; both from the models themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from exporter.engine.secrets import mask_argv
from exporter.settings.engines import EngineEntry
from exporter.settings.load import FLAGS, Settings, option_names
from exporter.settings.sections import EngineSettings, Section, is_secret

MASK = "********"


def as_toml(settings: Settings) -> str:
    """The whole effective configuration as a TOML file that can be loaded again, secrets masked, unset options as comments."""
    lines: list[str] = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if name == "engines":
            continue
        if not isinstance(value, Section):
            lines.insert(0, f"{name} = {_toml_value(value)}")
            continue
        lines += ["", f"[{name}]"]
        lines += [_line(value, key) for key in type(value).model_fields]
    for entry in settings.engines:
        lines += ["", "[[engines]]", *_entry(entry, settings.engine)]
    return "\n".join(lines) + "\n"


def _entry(entry: EngineEntry, shared: EngineSettings) -> list[str]:
    """What one of several engines has of its own: its name first, and nothing that `[engine]` says for all."""
    own = ("name", "gpus", "command", "url")
    others = [
        key
        for key in EngineSettings.model_fields
        if key not in own and getattr(entry, key) != getattr(shared, key)
    ]
    return [_line(entry, key) for key in (*own, *others) if getattr(entry, key) not in (None, ())]


def _line(section: Section, key: str) -> str:
    """One option as a line of TOML, a comment where it is not set or secret."""
    option = getattr(section, key)
    if key == "command":
        option = mask_argv(option)
    if option is None:
        return f"# {key} is not set"
    if isinstance(option, SecretStr) or (option and is_secret(type(section).model_fields[key].annotation)):
        return f'# {key} = "{MASK}"' + (
            " (read from its file)" if getattr(section, f"{key}_file", None) else ""
        )
    return f"{key} = {_toml_value(option)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Path):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(part) for part in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def settings_table() -> str:
    """Markdown rows of every option: name, default, what it is; the flag where there is one."""
    flag_of = {name: flag for flag, name in FLAGS.items()}
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, option in option_names().items():
        shown = f"`{name}`" + (f"<br>`{flag_of[name]}`" if name in flag_of else "")
        rows.append(f"| {shown} | {_default(name, option)} | {option.description} |")
    return "\n".join(rows) + "\n"


def _default(name: str, option: FieldInfo) -> str:
    if name == "data_dir":
        return "`~/.local/state/vllm-exporter`"
    if option.default is None or option.default == ():
        return ""
    if isinstance(option.default, tuple):
        return f"`{option.default[0]}` to `{option.default[-1]}`, {len(option.default)} bounds"
    return f"`{_toml_value(option.default)}`"
