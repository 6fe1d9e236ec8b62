"""The effective configuration as TOML, and the table of settings for the README; both from the models themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from exporter.engine.secrets import mask_argv
from exporter.settings.load import FLAGS, Settings, option_names
from exporter.settings.sections import Section, is_secret

MASK = "********"


def as_toml(settings: Settings) -> str:
    """The whole effective configuration as a TOML file that can be loaded again, secrets masked, unset options as comments."""
    lines: list[str] = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if not isinstance(value, Section):
            lines.insert(0, f"{name} = {_toml_value(value)}")
            continue
        lines += ["", f"[{name}]"]
        for key in type(value).model_fields:
            option = getattr(value, key)
            if key == "command":
                option = mask_argv(option)
            from_file = getattr(value, f"{key}_file", None)
            if option is None:
                lines.append(f"# {key} is not set")
            elif isinstance(option, SecretStr) or (
                option and is_secret(type(value).model_fields[key].annotation)
            ):
                lines.append(f'# {key} = "{MASK}"' + (" (read from its file)" if from_file else ""))
            else:
                lines.append(f"{key} = {_toml_value(option)}")
    return "\n".join(lines) + "\n"


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
