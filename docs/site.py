"""Build the docs as a site, with a search and API pages from the docstrings: `python docs/site.py OUT`.

Pages are copied beside the README and the root's other pages; links to code become links to its API page. Any warning
of Sphinx's, such as a link to nowhere, ends it with exit code 1.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import main as sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""The root's pages, and what they are called in the site."""
CONTENTS = {
    "Use it": ["variables", "paper", "cluster", "remote", "copies", "recipes", "inspect", "faults", "commands"],
    "What it reaches": ["results", "parity", "portability", "benchmarks"],
    "Take it further": ["api", "design", "contributing", "changelog", "security"],
}
PLACES = ("datasets", "cache", "replay", "train", "inspection", "models", "runtime")
_PICTURE = re.compile("<picture>.*</picture>", re.DOTALL)
_STAGES = "".join(f"```{{image}} stages-{theme}.svg\n:class: only-{theme}\n```\n" for theme in ("light", "dark"))
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def stage(folder: Path) -> None:
    """Write all pages of the site into `folder`."""
    for page in DOCS.glob("*.md"):
        (folder / page.name).write_text(relinked(page.read_text(), DOCS))
    for source, name in FROM_ROOT.items():
        (folder / name).write_text(relinked((ROOT / source).read_text(), ROOT))
    with (folder / "index.md").open("a") as index:
        index.writelines(contents(caption, names) for caption, names in CONTENTS.items())
        index.write(contents("API", [f"api/{place}" for place in PLACES]))
    (folder / "api").mkdir()
    for place in PLACES:
        (folder / "api" / f"{place}.md").write_text(api(place))
    for picture in (*DOCS.glob("*.svg"), *DOCS.glob("*.png")):
        shutil.copy(picture, folder)


def contents(caption: str, names: list[str]) -> str:
    """Return a part of the site's table of contents."""
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```", ""])


def api(place: str) -> str:
    """Return the page of a place: every module of it, as its docstrings describe it."""
    modules = sorted(path for path in (ROOT / place).rglob("*.py") if path.name != "__init__.py")
    parts = [f"# {place}"]
    for path in modules:
        name = path.relative_to(ROOT)
        parts += ["", f"## {name}", "", "```{eval-rst}", f".. automodule:: {dotted(name)}", "```"]
    return "\n".join([*parts, ""])


def dotted(path: Path) -> str:
    """Return the module's name of a file."""
    return ".".join(["distillcache", *path.with_suffix("").parts])


def relinked(markdown: str, folder: Path) -> str:
    """Return a page that lies in `folder` with its links as the site has them."""

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = (folder / target).resolve().relative_to(ROOT)
        if str(path) in FROM_ROOT:
            return f"[{words}]({FROM_ROOT[str(path)]}{anchor})"
        if path.parts[0] == "docs":
            return f"[{words}]({path.relative_to('docs')}{anchor})"
        if path.parts[0] in PLACES and path.suffix == ".py":
            return f"[{words}](#{dotted(path)})"
        return words  # a file that the site does not have

    return _LINK.sub(link, _PICTURE.sub(_STAGES, markdown))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as pages:
        stage(Path(pages))
        sys.exit(sphinx(["-W", "--keep-going", "-q", "-c", str(DOCS), pages, sys.argv[1]]))
