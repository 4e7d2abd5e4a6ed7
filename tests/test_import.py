"""What `import numattn` costs: the modules it pulls in and the bytes it installs."""

from __future__ import annotations

import sys
from pathlib import Path

import numattn as na
from child import output_of

MIB = 1 << 20

NEW_MODULES = """
    import sys
    import numpy
    before = set(sys.modules)
    import numattn
    print(*sorted(set(sys.modules) - before))
"""


def new_modules() -> set[str]:
    """Return the modules that come with numattn; numpy's own lazy ones are numpy's business."""
    names = set(output_of(NEW_MODULES).split())
    return {name for name in names if name.split(".")[0] not in ("numpy", "__future__")}


def test_nothing_but_itself_and_the_standard_library() -> None:
    tops = {name.split(".")[0] for name in new_modules()} - {"numattn"}
    assert tops <= set(sys.stdlib_module_names)


def test_nothing_heavy_of_the_standard_library() -> None:
    heavy = {
        "argparse",
        "asyncio",
        "concurrent",
        "email",
        "html",
        "http",
        "importlib.metadata",
        "logging",
        "multiprocessing",
        "subprocess",
        "tkinter",
        "unittest",
        "urllib",
        "xml",
    }
    found = {name for name in new_modules() for h in heavy if name == h or name.startswith(h + ".")}
    assert found == set()


def test_the_optional_parts_wait() -> None:
    """The command line, the models, the other operators and the reference load when asked for."""
    parts = {name.split(".")[1] for name in new_modules() if name.startswith("numattn.")}
    assert not parts & {"cli", "models", "compat", "reference"}
    assert len(parts) <= 26


def test_what_waits_is_there_when_asked_for() -> None:
    printed = output_of("import numattn as na; print(na.reference.attention.__module__)")
    assert printed.startswith("numattn.reference")
    assert "reference" in dir(na)


def test_ml_dtypes_is_recognised_without_being_imported() -> None:
    script = """
        import sys
        import numpy as np
        import numattn as na
        x = np.zeros((1, 1, 2, 2), np.float32)
        na.attention(x, x, x)
        na.attention(x.astype(np.float16), x.astype(np.float16), x.astype(np.float16))
        print("ml_dtypes" in sys.modules)
    """
    assert output_of(script).strip() == "False"


def test_the_extension_is_small() -> None:
    """The wheel must stay below 2 MB; compressed it is smaller still than what it installs."""
    folder = Path(na.__file__).parent
    extensions = [  # test_onnxruntime_process.py has the bound of compat's
        path for path in folder.iterdir() if ".so" in path.suffixes or path.suffix == ".pyd"
    ]
    assert extensions
    assert sum(path.stat().st_size for path in extensions) < 2 * MIB


def test_the_type_information_is_installed() -> None:
    folder = Path(na.__file__).parent
    assert (folder / "py.typed").is_file()
    assert (folder / "_core.pyi").is_file()


def test_every_public_name_exists() -> None:
    wanted = {
        "KVCache",
        "Linear",
        "MultiHeadAttention",
        "PagedKVCache",
        "apply_rope",
        "attention",
        "attention_paged",
        "attention_varlen",
        "attention_weights",
        "get_num_threads",
        "isa",
        "layer_norm",
        "merge_states",
        "plan",
        "position",
        "quantize",
        "rms_norm",
        "set_num_threads",
        "show_config",
    }
    assert wanted <= set(na.__all__)
    for name in na.__all__:
        assert getattr(na, name) is not None


def test_no_module_is_hidden_by_a_function_of_its_name() -> None:
    """Or else ``import numattn.plan as m`` would give the function."""
    folder = Path(na.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")}
    assert not {name for name in modules & set(na.__all__) if callable(getattr(na, name))}
