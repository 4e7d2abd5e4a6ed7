"""A sub-interpreter is refused by an ImportError that says so, and not by waiting for ever."""

from __future__ import annotations

import sys

import pytest

from child import output_of

PRELUDE = """
import sys

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

def run(*options, **more):
    '''Runs the script's argument in an interpreter that is made for it.'''
    interpreter = interpreters.create(*options, **more)
    (interpreters.exec if sys.version_info >= (3, 13) else interpreters.run_string)(
        interpreter, sys.argv[1]
    )
    interpreters.destroy(interpreter)
"""

IMPORT = """
try:
    import numattn
    print("imported", flush=True)
except ImportError as error:
    print(error, flush=True)
"""

# Of its own lock, if the system has such, or with the main interpreter's as those of mod_wsgi.
KINDS = {
    "isolated": "",
    "legacy": "'legacy'" if sys.version_info >= (3, 13) else "isolated=False",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["pass", "import numattn"], ids=["first there", "first here"])
def test_refused(first: str, kind: str) -> None:
    script = f"""
        {first}
        run({KINDS[kind]})
        run({KINDS[kind]})
        import numattn
        print(numattn.get_num_threads() > 0)
    """
    refused, again, works = output_of(script, IMPORT, prelude=PRELUDE).splitlines()
    assert "numattn" in refused and "interpreter" in refused
    assert again == refused
    assert works == "True"
