"""Loading: flags > environment > systemd credentials > TOML or YAML file > defaults, and every mistake at once."""

from __future__ import annotations

import copy
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from exporter.errors import ConfigError
from exporter.settings.engines import EngineEntry, check_entries, read_entries
from exporter.settings.gateway import GatewaySettings
from exporter.settings.sections import (
    EngineSettings,
    GpuSettings,
    LogSettings,
    NotifySettings,
    RuleSettings,
    ScrapeSettings,
    Section,
    SliSettings,
    StorageSettings,
    WebSettings,
    default_data_dir,
)

CONFIG_BYTES = 1 << 20
"""Largest config file that is read."""
ENV_PREFIX = "VLLM_EXPORTER_"
FLAGS = {
    "--listen": "web.listen",
    "--engine-url": "engine.url",
    "--scrape-interval": "scrape.interval",
    "--data-dir": "data_dir",
    "--on-exit": "engine.on_exit",
    "--rules": "rules.files",
    "--webhook": "notify.webhooks",
    "--log-format": "log.format",
    "--log-level": "log.level",
}
"""Flags that scripts rely on, and the settings that they are short for."""


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("expected a folder, not nothing")
    return value


class Settings(BaseSettings):
    """Every setting of the daemon."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    engine: EngineSettings = EngineSettings()
    scrape: ScrapeSettings = ScrapeSettings()
    sli: SliSettings = SliSettings()
    gpu: GpuSettings = GpuSettings()
    storage: StorageSettings = StorageSettings()
    rules: RuleSettings = RuleSettings()
    notify: NotifySettings = NotifySettings()
    gateway: GatewaySettings = GatewaySettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    engines: Annotated[tuple[EngineEntry, ...], NoDecode] = Field(
        (),
        description="Several engines on this box, as a list of tables `[[engines]]`: each with `name`, `gpus`, and options of `[engine]` of its own, which holds what they share. As JSON in the environment.",
    )
    data_dir: Annotated[Path, BeforeValidator(_not_empty)] = Field(
        default_factory=default_data_dir,
        description="Folder for the engine's output, incidents and what must outlive a restart; one daemon each.",
    )

    @field_validator("engines", mode="before")
    @classmethod
    def _inherit(cls, value: object, info: ValidationInfo) -> object:
        return read_entries(value, info.data.get("engine"))

    @field_validator("engines")
    @classmethod
    def _differ(cls, value: tuple[EngineEntry, ...], info: ValidationInfo) -> tuple[EngineEntry, ...]:
        rules = info.data.get("rules")
        return check_entries(value, None if rules is None else rules.instance)


_SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


class _Given(PydanticBaseSettingsSource):
    """A source that is a nested mapping, read beforehand."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = dict(values)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class _Environment(EnvSettingsSource):
    """pydantic-settings' environment, of the mapping that is passed in."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items() if value}


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The effective settings; `flags` has dotted names (`web.listen`), `environ` defaults to the process's own.

    Raises:
        ConfigError: with every mistake of every source at once, each with its place and a hint.
    """
    variables = os.environ if environ is None else environ
    file_values = read_config_file(config) if config is not None else {}
    credentials = _read_credentials(variables.get("CREDENTIALS_DIRECTORY"))
    try:
        from_environment = _Environment(Settings, variables)()
    except SettingsError as error:
        raise ConfigError([f"environment: {error}"]) from None
    sources = [
        copy.deepcopy(values) for values in (_nest(flags or {}), from_environment, credentials, file_values)
    ]

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Given(settings_cls, values) for values in sources)

    places = _Places(flags or {}, variables, credentials, config, file_values)
    problems: list[str] = []
    while True:
        try:
            loaded = Loaded()
        except ValidationError as error:
            problems += _problems(error, places)
            # What is wrong by itself hides what is wrong together: take it out and look again.
            if not _remove([mistake["loc"] for mistake in error.errors()], sources):
                break
        else:
            break
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})


def _remove(locations: Iterable[tuple[int | str, ...]], sources: list[dict[str, Any]]) -> bool:
    removed = False
    for location in locations:
        for values in sources:
            if len(location) == 1 and not isinstance(values.get(str(location[0])), dict):
                removed |= values.pop(str(location[0]), None) is not None
            elif len(location) > 1 and isinstance(section := values.get(str(location[0])), dict):
                removed |= section.pop(location[1], None) is not None
            elif location[0] == "engines":
                removed |= values.pop("engines", None) is not None
    return removed


def read_config_file(path: Path) -> dict[str, Any]:
    """The mapping in a TOML (`.toml`) or YAML (`.yaml`, `.yml`, `.json`) file; ConfigError says what is wrong with it."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"cannot read the config file {path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"]) from error
    if len(text) > CONFIG_BYTES:
        raise ConfigError([f"{path}: longer than {CONFIG_BYTES} characters; is it a config file?"])
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([f"{path}: not valid TOML: {error}"]) from error
    if path.suffix in (".yaml", ".yml", ".json"):
        import yaml

        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError([f"{path}: not valid YAML: {' '.join(str(error).split())}"]) from error
        if values is None:
            return {}
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ConfigError(
                [f"{path}: expected a mapping of settings, such as `engine:` with options below it"]
            )
        return values
    raise ConfigError([f"{path}: unknown kind of file; name it .toml, .yaml or .yml"])


def option_names() -> dict[str, FieldInfo]:
    """Every option by its dotted name, in the order in which it is defined."""
    found: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        if name in _SECTIONS:
            found.update({f"{name}.{key}": option for key, option in _SECTIONS[name].model_fields.items()})
        else:
            found[name] = field
    return found


def _nest(dotted: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in dotted.items():
        section, dot, key = name.partition(".")
        if dot:
            nested.setdefault(section, {})[key] = value
        elif section in _SECTIONS:
            raise ConfigError(
                [f"--set {name}: a section is no setting; name one of its options, such as {name}.…"]
            )
        else:
            nested[section] = value
    return nested


def _read_credentials(folder: str | None) -> dict[str, Any]:
    """systemd credentials (`LoadCredential=engine.api_key:/path`): each file is named as the option that it sets."""
    if not folder:
        return {}
    found: dict[str, Any] = {}
    for name in option_names():
        path = Path(folder, name)
        try:
            text = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"cannot read the credential {name} in {folder}: {error}"]) from error
        if text:  # systemd may hand over an empty one where the source is missing
            found[name] = text
    return _nest(found)


class _Places:
    """Where a value came from, for messages."""

    def __init__(
        self,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        credentials: Mapping[str, Any],
        config: Path | None,
        file_values: Mapping[str, Any],
    ) -> None:
        self._flags = flags
        self._variables = {name.upper(): name for name in environ}
        self._credentials = credentials
        self._config = config
        self._file_values = file_values

    def of(self, location: tuple[str, ...]) -> str:
        if location[0] == "engines" and len(location) > 1:
            return self._of_entry(int(location[1]), location[2] if len(location) > 2 else None)
        dotted = ".".join(location[:2])
        if dotted in _SECTIONS:
            return dotted  # options of it that do not go together, each from where it may come
        if dotted in self._flags:
            flag = next((flag for flag, name in FLAGS.items() if name == dotted), f"--set {dotted}")
            return f"flag {flag}"
        variable = self._variables.get((ENV_PREFIX + "__".join(location[:2])).upper())
        if variable is not None:
            return f"environment {variable}"
        if _has(self._credentials, location):
            return f"credential {dotted}"
        if self._config is not None and _has(self._file_values, location):
            line = _line_of(self._config.read_text(encoding="utf-8"), location)
            return f"{self._config}:{line}: {dotted}" if line else f"{self._config}: {dotted}"
        return dotted

    def _of_entry(self, number: int, option: str | None) -> str:
        """The place of one of several engines, by its name where it has one."""
        place = self.of(("engines",))
        entries = self._file_values.get("engines")
        named = f"engines[{number}]"
        if self._config is None or not place.startswith(f"{self._config}:"):
            source = "" if place == "engines" else f"{place}: "
        else:
            entry = entries[number] if isinstance(entries, list) and number < len(entries) else None
            if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                named = f"engines[{entry['name']}]"
            line = _line_of_entry(self._config.read_text(encoding="utf-8"), number, option)
            source = f"{self._config}:{line}: " if line else f"{self._config}: "
        return source + named + (f".{option}" if option else "")


def _has(values: Mapping[str, Any], location: tuple[str, ...]) -> bool:
    here: Any = values
    for key in location[:2]:
        if not isinstance(here, Mapping) or key not in here:
            return False
        here = here[key]
    return True


def _line_of(text: str, location: tuple[str, ...]) -> int | None:
    """The line, from 1, on which a TOML or YAML file sets an option, where it is written in the plain form."""
    section, key = location[0], location[1] if len(location) > 1 else None
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        bare = line.split("#")[0].strip()
        name = re.split(r"[=:]", bare, maxsplit=1)[0].strip(" \"'")
        if bare.startswith("["):
            inside = bare.strip("[] \"'") == section
        elif not line[0].isspace() and name == section:
            inside = True
        elif not line[0].isspace() and bare.endswith(":"):
            inside = False
        if key is None and name.strip("[]") == section:
            return number
        if key is not None and (name == f"{section}.{key}" or (inside and name == key)):
            return number
    return None


def _line_of_entry(text: str, number: int, option: str | None) -> int | None:
    """The line, from 1, of an option within the table `[[engines]]` of this number, or of the table where it is not there."""
    at, inside, header = -1, False, None
    for line, words in enumerate(text.splitlines(), start=1):
        bare = words.split("#")[0].strip()
        if bare.startswith("["):
            entry = bare.replace(" ", "") == "[[engines]]"
            at += entry
            inside = entry and at == number
            header = line if inside else header
        elif inside and re.split(r"[=:]", bare, maxsplit=1)[0].strip(" \"'") == option:
            return line
    return header


def _problems(error: ValidationError, places: _Places) -> list[str]:
    known = option_names()
    problems = []
    for mistake in error.errors(include_url=False, include_input=False):
        location = tuple(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            dotted = ".".join(location)
            near = difflib.get_close_matches(dotted, known if "." in dotted else Settings.model_fields, n=1)
            if location[0] == "engines" and len(location) > 2:
                dotted = location[2]
                near = difflib.get_close_matches(dotted, EngineEntry.model_fields, n=1)
            message = f"no such setting {dotted}" + (f"; did you mean {near[0]}?" if near else "")
        problems.append(f"{places.of(location)}: {message}")
    return problems
