"""Where the headers of the C and C++ interfaces are, for who builds on them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def get_include() -> str:
    """The folder of ``numattn.h`` and of the C++ headers ``numattn/*.h``, for ``-I``.

    The library itself is not in the wheel: the Python package holds its own copy, whose functions
    are not visible to others. Build ``libnumattn`` from the sources of the same version
    (``cmake --install``, docs/embedding.md), and link with it or load it at run time.

    Returns
    -------
    str
        An absolute path.

    Raises
    ------
    FileNotFoundError
        The package lies in no place where headers were installed.

    Examples
    --------
    >>> import numattn as na
    >>> from pathlib import Path
    >>> (Path(na.get_include()) / "numattn.h").is_file()
    True
    """
    return _folder("include", "cpp/include", "numattn.h")


def get_cmake_dir() -> str:
    """The folder of a CMake package of these headers, for ``numattn_DIR``.

    ``find_package(numattn)`` then defines the target ``numattn::headers``, and neither
    ``numattn::numattn`` nor ``numattn::static``: the wheel has no library to link with (see
    :func:`get_include`).

    Returns
    -------
    str
        An absolute path.

    Raises
    ------
    FileNotFoundError
        The package lies in no place where it was installed.

    Examples
    --------
    >>> import numattn as na
    >>> from pathlib import Path
    >>> (Path(na.get_cmake_dir()) / "numattnConfig.cmake").is_file()
    True
    """
    return _folder("cmake", "cmake/wheel", "numattnConfig.cmake")


def _folder(installed: str, in_sources: str, file: str) -> str:
    """The folder in the package that has the file or, where that runs from a checkout, in this."""
    for folder in (FOLDER / installed, FOLDER.parents[1] / in_sources):
        if (folder / file).is_file():
            return str(folder)
    raise FileNotFoundError(f"{file} was not installed in {FOLDER / installed}")
