"""An extension of griffe's: docstrings as Python's help() has them, with references of the site.

Griffe reads sources. What takes ``**score`` has its signature and docstring only once it is
imported (numattn/_score.py), and so is imported here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from typing import Any

import griffe

PICKLED = {"__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__deepcopy__"}
"""Methods that nobody calls by name."""

ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):`~?([\w.]+)`")


class Docstrings(griffe.Extension):
    """Rewrites what has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Say what is public where a module has the name; spell out, and make roles references."""
        modules = list(modules_of(pkg))
        for module in modules:
            spell_out(module)
            show_what_is_public(module)
        public = {f"{module.path}.{name}" for module in modules for name in module.exports or ()}
        for module in modules:
            refer(module, public)


def spell_out(thing: griffe.Object) -> None:
    """Give what takes ``**score`` the docstring and signature that it has in Python."""
    for inner in own_members(thing):
        if isinstance(inner, griffe.Class):
            inner.members = {n: each for n, each in inner.members.items() if n not in PICKLED}
            spell_out(inner)
        elif isinstance(inner, griffe.Function) and "score" in inner.parameters:
            module = inner.module.path
            names = inner.path.removeprefix(f"{module}.").split(".")
            function = reduce(getattr, names, import_module(module))
            if inner.docstring is not None and not inner.name.startswith("_"):
                inner.docstring.value = inspect.getdoc(function) or ""
                inner.parameters = parameters_of(function)


def parameters_of(function: Any) -> griffe.Parameters:
    """Return what its signature says, in griffe's terms."""
    return griffe.Parameters(
        *(
            griffe.Parameter(
                parameter.name,
                kind=griffe.ParameterKind[parameter.kind.name.lower()],
                annotation=None,
                default=None if parameter.default is parameter.empty else repr(parameter.default),
            )
            for parameter in inspect.signature(function).parameters.values()
        )
    )


def modules_of(module: griffe.Module) -> Iterator[griffe.Module]:
    """Return a module and those within."""
    yield module
    for inner in module.members.values():
        if isinstance(inner, griffe.Module):
            yield from modules_of(inner)


def show_what_is_public(module: griffe.Module) -> None:
    """Have `approx.nystrom` be the function, as in Python, where its module has that name too."""
    for name in module.exports or ():
        inner = module.members.get(str(name))
        if isinstance(inner, griffe.Module) and str(name) in inner.members:
            thing = inner.members[str(name)]
            thing.parent = module
            module.members[str(name)] = thing


def refer(thing: griffe.Object, public: set[str]) -> None:
    """Make each role in the docstrings of a thing a reference, where the name is public."""

    def reference(match: re.Match[str]) -> str:
        parts = thing.path.split(".")
        homes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        for path in (match[1], *(f"{home}.{match[1]}" for home in homes)):
            if path in public:
                return f"[`{match[1]}`][{path}]"
        return f"`{match[1]}`"

    if thing.docstring is not None:
        thing.docstring.value = ROLE.sub(reference, thing.docstring.value)
    for inner in own_members(thing):
        refer(inner, public)


def own_members(thing: griffe.Object) -> Iterator[Any]:
    """Return what is defined in a module or class, without modules."""
    for inner in thing.members.values():
        if not inner.is_alias and not isinstance(inner, griffe.Module):
            yield inner
