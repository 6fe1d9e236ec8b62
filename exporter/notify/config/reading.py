"""Mappings of the file into the frozen models, with the place of every mistake.

A value may be a secret that stands in the wrong place. So messages about receivers name keys that look like names, and show
no values; what they show beside that are names of receivers, routes and hours, and the texts of matchers and durations.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from exporter.alerting.document import Node
from exporter.alerting.fields import Reader
from exporter.notify.config.receivers import Part
from exporter.notify.config.values import SECRET_MASK, refuse_special

SECRET_BYTES = 1 << 16
"""Largest file that a secret or a text is read from."""

P = TypeVar("P", bound=Part)
Fields = dict[str, tuple[Node, Node]]
"""A mapping's keys and values by key."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
_EXPECTED = {"scalar": "a single value", "list": "a list", "mapping": "a mapping"}
_WORDS = {
    "bool_parsing": "expected true or false",
    "int_parsing": "expected a whole number",
    "float_parsing": "expected a number",
    "missing": "is missing",
    "too_short": "needs at least one entry",
}


class Reading:
    """Reads a file's nodes; `folder` is where relative paths start."""

    def __init__(self, file: str, folder: Path) -> None:
        self.reader = Reader(file)
        self.folder = folder
        self._told: set[tuple[int, int, str]] = set()

    def problem(self, where: Node | None, what: str, message: str) -> None:
        """Note a mistake, once, however many receivers inherit it."""
        key = (where.line if where else 0, where.column if where else 0, message)
        if key not in self._told:
            self._told.add(key)
            self.reader.problem(where, f"{what}: {message}" if what else message)

    def is_kind(self, node: Node, kind: str, what: str) -> bool:
        """Whether a node is a scalar, a list or a mapping; a mistake where it is not."""
        if node.kind != kind:
            self.problem(node, what, f"expected {_EXPECTED[kind]}")
        return node.kind == kind

    def entries(self, node: Node | None, what: str) -> Fields:
        """A mapping's entries, `<<` followed; some may be null."""
        if node is None or node.is_null or not self.is_kind(node, "mapping", what):
            return {}
        times = Counter(key.text for key, _ in node.pairs if key.kind == "scalar" and key.text != "<<")
        if any(many > 1 and _key(name) != name for name, many in times.items()):
            self.problem(node, what, "a key is there twice")  # the reader's own message would show it
            for key, _ in node.pairs:
                self.reader.visit(key)
            return {key.text: (key, value) for key, value in node.pairs if key.kind == "scalar"}
        return self.reader.entries(node, what)

    def known(self, fields: Fields, what: str, names: Collection[str], refused: Mapping[str, str]) -> Fields:
        """The entries with known names that are not null; of the others it says what was meant, or why they are refused."""
        for name, (key, _) in fields.items():
            if name in refused:
                self.problem(key, what, f"{name} is not carried out here: {refused[name]}")
            elif name not in names:
                # `{url:http://…}` is a key, and a secret
                shown_name = f" {name}" if _NAME.fullmatch(name) else ", or a colon without a space behind it"
                self.problem(key, what, f"unknown key{shown_name}{meant(name, [*names, *refused])}")
        return {name: pair for name, pair in given(fields).items() if name in names and name not in refused}

    def items(self, node: Node | None, what: str) -> list[Node]:
        """A list's values; one that is null is a mistake."""
        if node is None or node.is_null or not self.is_kind(node, "list", what):
            return []
        for at, item in enumerate(node.items):
            self.reader.visit(item)
            if item.is_null:
                self.problem(item, f"{what}[{at}]", "there is nothing")
        return [item for item in node.items if not item.is_null]

    def text(self, node: Node | None, what: str) -> str:
        """A string; empty where there is none."""
        if node is None or node.is_null or not self.is_kind(node, "scalar", what):
            return ""
        return self.reader.text(node, what)

    def part(self, model: type[P], node: Node, fields: Fields, what: str) -> P | None:
        """A model out of a mapping's entries; None, and every mistake noted, where it is wrong."""
        before = len(self._told)
        places: dict[tuple[str | int, ...], Node] = {(): node}
        data = self._mapping(model, fields, what, (), places)
        try:
            made = model.model_validate(data)
        except ValidationError as error:
            for mistake in error.errors(include_url=False, include_input=False, include_context=False):
                self._mistaken(mistake["loc"], mistake["type"], mistake["msg"], what, places)
            return None
        return made if len(self._told) == before else None

    def _mistaken(
        self,
        location: tuple[str | int, ...],
        kind: str,
        message: str,
        what: str,
        places: Mapping[tuple[str | int, ...], Node],
    ) -> None:
        known = location
        while known not in places:
            known = known[:-1]
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in location)[1:]
        if kind == "missing" and location in places:
            return  # it is there, and what is wrong with it has been told
        message = _WORDS.get(kind, message.removeprefix("Value error, "))
        if kind == "missing":
            message = f"{name} is missing"
        elif name:
            what = f"{what}.{name}" if what else name
        self.problem(places[known], what, message)

    def _mapping(
        self,
        model: type[BaseModel],
        fields: Fields,
        what: str,
        path: tuple[str | int, ...],
        places: dict[tuple[str | int, ...], Node],
    ) -> dict[str, Any]:
        options = {option.alias or name: option.annotation for name, option in model.model_fields.items()}
        refused, from_files = (
            (model.refused, model.from_files) if issubclass(model, Part) else ({}, frozenset())
        )
        files = {
            f"{name}_file": name
            for name, annotation in options.items()
            if name in from_files or _is_secret(annotation)
        }
        found: dict[str, Any] = {}
        for name, (key, value) in self.known(fields, what, [*options, *files], refused).items():
            where = f"{what}.{name}" if what else name
            target = files.get(name, name)
            if target in found:
                self.problem(key, what, f"{target} and {target}_file are both set: keep one")
                continue
            places[*path, target] = value
            if name in files:
                found[target] = self._file(value, where)
            else:
                found[name] = self._value(options[name], value, where, (*path, name), places)
        return {name: value for name, value in found.items() if value is not None}

    def _value(
        self,
        annotation: Any,
        node: Node,
        what: str,
        path: tuple[str | int, ...],
        places: dict[tuple[str | int, ...], Node],
    ) -> Any:
        places[path] = node
        for model in _kinds(annotation):
            if isinstance(model, type) and issubclass(model, BaseModel):
                return self._mapping(model, self.entries(node, what), what, path, places)
        for generic in _kinds(annotation):
            if get_origin(generic) is tuple:
                item = get_args(generic)[0]
                return tuple(
                    self._value(item, one, f"{what}[{number}]", (*path, number), places)
                    for number, one in enumerate(self.items(node, what))
                )
            if get_origin(generic) is dict:
                item = get_args(generic)[1]
                return {
                    name: self._value(item, one, f"{what}.{_key(name)}", (*path, name), places)
                    for name, (_, one) in self.entries(node, what).items()
                }
        if not self.is_kind(node, "scalar", what):
            return None
        text = self.text(node, what)
        return self.folder / Path(text) if Path in _kinds(annotation) else text

    def _file(self, node: Node, what: str) -> str | None:
        name = self.text(node, what)
        try:
            path = self.folder / Path(name).expanduser()
            refuse_special(path)
            with path.open(encoding="utf-8") as file:
                text = file.read(SECRET_BYTES + 1)
        except OSError as error:
            self.problem(node, what, f"cannot be read: {error.strerror or error}")
        except RuntimeError:  # from expanduser
            self.problem(node, what, "cannot be read: there is no such user")
        except ValueError:
            self.problem(node, what, "cannot be read: it is not UTF-8 text")
        else:
            if len(text) > SECRET_BYTES:
                self.problem(node, what, f"is longer than {SECRET_BYTES} characters")
            elif not text.strip():
                self.problem(node, what, "is empty")
            else:
                return text.strip()
        return None


def given(fields: Fields) -> Fields:
    """The entries that are not null: null is as good as absent, as Go has it."""
    return {name: pair for name, pair in fields.items() if not pair[1].is_null}


def meant(name: str, names: Iterable[str]) -> str:
    """`; did you mean …?` where one of the names is close."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def shown(node: Node) -> Any:
    """A node as plain data, for writing it again; a null is None, and any other scalar is its text."""
    if node.kind == "scalar":
        return None if node.is_null else _typed(node)
    if node.kind == "list":
        return [shown(item) for item in node.items]
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in node.pairs:
        if key.plain and key.text == "<<":
            for source in value.items if value.kind == "list" else [value]:
                merged = shown(source) | merged
        else:
            own[key.text] = shown(value)
    return merged | own


def masked(model: type[BaseModel], data: Any) -> Any:
    """Plain data of a model's mapping with Alertmanager's `<secret>` in place of every secret, and of whatever a model's
    own `repr` leaves out, as it may hold one; names of files stay."""
    if not isinstance(data, dict):
        return data
    options = {option.alias or name: option for name, option in model.model_fields.items()}
    found: dict[str, Any] = {}
    for name, value in data.items():
        option = options.get(name)
        if option is None:
            found[name] = value
        else:
            found[name] = _masked(option.annotation, value) if option.repr else _all_masked(value)
    return found


def _masked(annotation: Any, data: Any) -> Any:
    if _is_secret(annotation):
        return _all_masked(data)
    for kind in _kinds(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return masked(kind, data)
        if get_origin(kind) is tuple and isinstance(data, list):
            return [_masked(get_args(kind)[0], item) for item in data]
        if get_origin(kind) is dict and isinstance(data, dict):
            return {name: _masked(get_args(kind)[1], value) for name, value in data.items()}
    return data


def _all_masked(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _all_masked(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_all_masked(value) for value in data]
    return data if data is None else SECRET_MASK


def _kinds(annotation: Any) -> list[Any]:
    """What an annotation allows, without None and without what `Annotated` adds."""
    if hasattr(annotation, "__metadata__"):
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [] if annotation is NoneType else [annotation]


def _is_secret(annotation: Any) -> bool:
    return SecretStr in _kinds(annotation)


def _key(name: str) -> str:
    """A key of the user's own, such as a header's name; what looks like no name may be a secret in the wrong place."""
    return name if _NAME.fullmatch(name.replace("-", "_")) else "…"


def _typed(node: Node) -> Any:
    """True and whole numbers as such: a reader that is typed, as Alertmanager's is, refuses them in quotes."""
    if node.plain:
        if node.text in ("true", "false"):
            return node.text == "true"
        digits = node.text.removeprefix("-")
        if (
            digits.isascii()
            and digits.isdigit()
            and (digits == "0" or not digits.startswith("0"))
            and len(digits) < 19
        ):
            return int(node.text)
    return node.text
