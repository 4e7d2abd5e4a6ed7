"""Where the tensors are that a pickle of PyTorch's speaks of. Nothing in it is called or imported.

A pickle is a program for a stack machine, and may ask for any function to be called. The standard
library's `pickletools` takes it apart without running it. Of its instructions, those that
`torch.save` writes for a mapping of names to tensors are followed here, on plain values; any other,
and any name but those below, is refused. Keys must be strings: to hash something deeper could take
for ever.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
MAPPING, TENSOR, PARAMETER = "an OrderedDict", "a tensor", "a parameter"
NAMES = {
    ("collections", "OrderedDict"): MAPPING,
    ("torch._utils", "_rebuild_tensor_v2"): TENSOR,
    ("torch._utils", "_rebuild_parameter"): PARAMETER,
}
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors are cut from: the entry of the file that holds them."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A part of a storage, `start` numbers after its beginning."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Mapping:
    """A dict or OrderedDict; what `BUILD` would set on it is thrown away."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Named:
    """What a name stands for: one of NAMES' values, or a dtype of STORAGES."""

    what: str


class Mark:
    """A place on the stack."""


MARK = Mark()


class Refused(ValueError):
    """A pickle that is not one of tensors."""


def read_pickle(data: bytes) -> Any:
    """Return what a pickle holds: numbers, strings, None, tuples, lists, `Mapping` and `Tensor`.

    Raises
    ------
    ValueError
        If it is damaged, or holds or does anything else. The message names that.
    """
    machine = Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.result()
            machine.follow(opcode.name, argument)
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise Refused(f"it is damaged ({error})") from None
    raise Refused("it has no end")


class Machine:
    """The stack, and what was put aside under numbers."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        """Return what is left at the end."""
        (value,) = self.stack
        return value

    def follow(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        if name in NUMBERS or name in TEXTS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in PUTS:
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in GETS:
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(MARK)
        elif name in TUPLES:
            stack.append(tuple(self.popped(TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self.above_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append(Mapping())
        elif name in ("APPEND", "APPENDS"):
            values = self.above_mark() if name == "APPENDS" else self.popped(1)
            self.top(list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            self.set_items(self.above_mark() if name == "SETITEMS" else self.popped(2))
        elif name == "GLOBAL":
            stack.append(named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(named(*self.popped(2)))
        elif name == "BINPERSID":
            stack.append(storage_of(*self.popped(1)))
        elif name == "REDUCE":
            stack.append(made(*self.popped(2)))
        elif name == "BUILD":
            self.popped(1)
            self.top(Mapping)
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"its instruction {name} is none that tensors need")

    def popped(self, count: int) -> list[Any]:
        """Take so many values off the stack."""
        if count == 0:
            return []
        values = self.stack[-count:]
        if len(values) < count or any(value is MARK for value in values):
            raise Refused("it takes what is not there")
        del self.stack[-count:]
        return values

    def above_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise Refused("it takes what is not there")

    def top(self, kind: type) -> Any:
        """Return the value on top, which must be of a kind."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise Refused(f"it changes {shown_kind(value)}")
        return value

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the mapping on top."""
        mapping = self.top(Mapping)
        if len(items) % 2 != 0:
            raise Refused("it has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float)):
                raise Refused(f"it has {shown_kind(key)} for a key")
            mapping.values[str(key)] = value


def named(module: Any, name: Any) -> Named:
    """Return what a name stands for."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("it has a name that is none")
    if module == "torch" and name in STORAGES:
        return Named(STORAGES[name])
    if (module, name) not in NAMES:
        shown = f"{module}.{name}"
        raise Refused(
            f"it asks for {shown[:120]!r}, which is no part of a mapping of tensors, and nothing "
            "is imported or called"
        )
    return Named(NAMES[module, name])


def storage_of(reference: Any) -> Storage:
    """Return the storage that an id outside the pickle stands for."""
    if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
        raise Refused("it refers to something outside that is no storage")
    _, kind, key, _, count = reference
    if not isinstance(kind, Named) or kind.what not in STORAGES.values():
        raise Refused("it has a storage of no known dtype")
    if not isinstance(key, str) or not key.isascii() or not key.isalnum():
        raise Refused("it has a storage of no name")
    return Storage(key, kind.what, size_of(count))


def made(function: Any, arguments: Any) -> Any:
    """Return what a call stands for."""
    what = function.what if isinstance(function, Named) else None
    if not isinstance(arguments, tuple):
        raise Refused("it calls something without arguments")
    if what == MAPPING and arguments == ():
        return Mapping()
    if what == PARAMETER and arguments and isinstance(arguments[0], Tensor):
        return arguments[0]
    if what == TENSOR and 6 <= len(arguments) <= 7 and isinstance(arguments[0], Storage):
        storage, start, shape, strides = arguments[:4]
        return Tensor(storage, size_of(start), sizes_of(shape), sizes_of(strides))
    raise Refused(f"it calls {shown_kind(function)} by no arguments that are known")


def size_of(value: Any) -> int:
    """Return a whole number from 0 on."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise Refused("it has a size that is none")
    return value


def sizes_of(values: Any) -> tuple[int, ...]:
    """Return a shape or strides."""
    if not isinstance(values, tuple) or len(values) > MOST_DIMENSIONS:
        raise Refused("it has a shape that is none")
    return tuple(map(size_of, values))


def shown_kind(value: Any) -> str:
    """Return what a value is, in few words whatever it holds."""
    return value.what if isinstance(value, Named) else f"a {type(value).__name__}"
