"""The tree of a parsed template. `at` is the character at which Go says that a node stands; `str()` is how Go shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from exporter.alerting.template.literals import quote_go


@dataclass(slots=True, eq=False)
class Node:
    """Anything in a template."""

    at: int


@dataclass(slots=True, eq=False)
class Dot(Node):
    """`.`"""

    def __str__(self) -> str:
        return "."


@dataclass(slots=True, eq=False)
class Nil(Node):
    """`nil`"""

    def __str__(self) -> str:
        return "nil"


@dataclass(slots=True, eq=False)
class Bool(Node):
    """`true` or `false`"""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(slots=True, eq=False)
class Number(Node):
    """A number or a character."""

    text: str
    value: int | float

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True, eq=False)
class String(Node):
    """A string, with the quotes that it was written in."""

    quoted: str
    value: str

    def __str__(self) -> str:
        return self.quoted


@dataclass(slots=True, eq=False)
class Function(Node):
    """A function's name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True, eq=False)
class Field(Node):
    """`.A.B`: fields of the dot."""

    names: list[str]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(slots=True, eq=False)
class Variable(Node):
    """`$x.A`: a variable, and fields of it."""

    name: str
    names: list[str]

    def __str__(self) -> str:
        return ".".join((self.name, *self.names))


@dataclass(slots=True, eq=False)
class Chain(Node):
    """`(pipeline).A`: fields of what something gives."""

    of: Operand
    names: list[str]

    def __str__(self) -> str:
        inner = f"({self.of})" if isinstance(self.of, Pipe) else str(self.of)
        return inner + "".join(f".{name}" for name in self.names)


@dataclass(slots=True, eq=False)
class Command(Node):
    """An operand, or a function with its arguments."""

    words: list[Operand] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(f"({word})" if isinstance(word, Pipe) else str(word) for word in self.words)


@dataclass(slots=True, eq=False)
class Pipe(Node):
    """Commands, each of which gets what the one before it gives; and the variables that get what the last gives."""

    variables: list[Variable] = field(default_factory=list)
    assigns: bool = False
    commands: list[Command] = field(default_factory=list)

    def __str__(self) -> str:
        names = ", ".join(map(str, self.variables))
        sign = " = " if self.assigns else " := "
        return (names + sign if names else "") + " | ".join(map(str, self.commands))


Operand = Dot | Nil | Bool | Number | String | Function | Field | Variable | Chain | Pipe


@dataclass(slots=True, eq=False)
class Text(Node):
    """What is shown as it stands."""

    text: str


@dataclass(slots=True, eq=False)
class Action(Node):
    """`{{ pipeline }}`"""

    pipe: Pipe

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@dataclass(slots=True, eq=False)
class Branch(Node):
    """`if`, `with` or `range`."""

    kind: str
    pipe: Pipe
    body: Body
    otherwise: Body | None


@dataclass(slots=True, eq=False)
class Jump(Node):
    """`break` or `continue`."""

    kind: str


@dataclass(slots=True, eq=False)
class Call(Node):
    """`{{ template "name" pipeline }}`"""

    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        data = f" {self.pipe}" if self.pipe else ""
        return f"{{{{template {quote_go(self.name)}{data}}}}}"


@dataclass(slots=True, eq=False)
class End(Node):
    """`{{ end }}` or `{{ else }}`: what closes a body; it is in no tree."""

    kind: str

    def __str__(self) -> str:
        return f"{{{{{self.kind}}}}}"


Statement = Text | Action | Branch | Jump | Call
Body = list[Statement]
