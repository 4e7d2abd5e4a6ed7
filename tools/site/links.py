"""A hook of MkDocs': what lies outside docs/ and is linked to from there becomes part of the site.

The README is its first page. Links are written as they are right in the repository, where every
page can be read as well, and made right for the site here. One to a file of the repository that is
no page brings that file along. A link to what does not exist is left as it is, and MkDocs
then fails.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/README.md": "bench.md",
}
"""Pages outside docs/ by their place in the site."""

LINK = re.compile(r"""(?P<before>\]\(|<(?:img|a)[^>]* (?:src|href)=")(?P<target>[^)"#\s:]+)""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that pages link to."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for file in list(files.documentation_pages()):
        for target in linked(file):
            if place_of(target) == target and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make a page's links right for its place in the site."""
    source = source_of(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        target = resolved(source, match["target"])
        if not (ROOT / target).is_file():
            return match[0]
        start = posixpath.dirname(page.file.src_uri)
        return match["before"] + posixpath.relpath(place_of(target), start or ".")

    return LINK.sub(replaced, markdown)


def linked(file: File) -> set[str]:
    """Return the files of the repository, outside docs/, that a page links to."""
    source = source_of(file.src_uri)
    targets = {resolved(source, match["target"]) for match in LINK.finditer(file.content_string)}
    return {t for t in targets if (ROOT / t).is_file() and not t.startswith("docs/")}


def resolved(source: str, target: str) -> str:
    """Return a link's target as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def source_of(place: str) -> str:
    """Return the path in the repository of a page of the site."""
    sources = {page: source for source, page in PAGES.items()}
    return sources.get(place, f"docs/{place}")


def place_of(source: str) -> str:
    """Return the place in the site of a file of the repository."""
    return PAGES.get(source, source.removeprefix("docs/"))
