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

ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):`~?([\w.]+)`")


class Docstrings(griffe.Extension):
    """Rewrites what has been read."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Spell out ``**score``."""
        if func.docstring is not None and "{score}" in func.docstring.value:
            found = imported(func)
            func.docstring.value = inspect.getdoc(found) or ""
            func.parameters = parameters_of(found)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Say what is public where a module has the name, and make roles of Sphinx references."""
        modules = list(modules_of(pkg))
        for module in modules:
            show_what_is_public(module)
        public = {f"{module.path}.{name}" for module in modules for name in module.exports or ()}
        for module in modules:
            refer(module, public)


def imported(func: griffe.Function) -> Any:
    """Return the function itself."""
    module = func.module.path
    names = func.path.removeprefix(f"{module}.").split(".")
    return reduce(getattr, names, import_module(module))


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
    for inner in thing.members.values():
        if not inner.is_alias and not isinstance(inner, griffe.Module):
            refer(inner, public)
