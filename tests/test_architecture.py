"""The house's own rules, read off the source: arrows, who may import what, and how long a file may be."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("runtime", "datasets", "cache", "replay", "train", "commands")
"""From the ground up: each may use all below it."""
PLACES = {place: set(FLOORS[:number]) for number, place in enumerate(FLOORS)}
PLACES |= {"inspection": {"runtime", "datasets", "cache"}, "models": {"runtime"}}
PLACES["commands"] |= {"inspection", "models"}
PLACES["train"] |= {"models"}
MODELS = ("stage2.py", "teaching.py", "trained.py", "export.py")
"""Of train/, what names models: the functions that users call. All else takes any."""
FILES = sorted(path for place in PLACES for path in (ROOT / place).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return every module that a file imports; ours as `.place.module`, relative to the root."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ("", *path.relative_to(ROOT).parent.parts)
            inside = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*inside, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_one_way(path: Path) -> None:
    place = path.relative_to(ROOT).parts[0]
    allowed = PLACES[place] | {place}
    ours = {name.split(".")[1] for name in imports(path) if name.startswith(".")}
    assert ours <= allowed
    assert "models" not in ours or place != "train" or path.name in MODELS, "a loop takes any"
    assert not any(name.split(".")[0] == "distillcache" for name in imports(path)), "inside, imports are relative"


def test_only_the_store_imports_zarr_and_only_models_build_models() -> None:
    importers = {str(p.relative_to(ROOT)) for p in FILES if any(n.split(".")[0] == "zarr" for n in imports(p))}
    storages = {str(p.relative_to(ROOT)) for p in (ROOT / "cache" / "storage").glob("*.py")} - {
        "cache/storage/__init__.py"
    }
    assert importers == {"cache/store.py", "cache/arrays.py"} | storages
    builders = {
        p.relative_to(ROOT).parts[0] for p in FILES for n in ast.walk(ast.parse(p.read_text())) if _is_create_model(n)
    }
    assert builders == {"models"}


def _is_create_model(node: ast.AST) -> bool:
    return "create_model" in (getattr(node, "attr", ""), getattr(node, "id", ""))


def test_plans_import_no_torch_and_no_image_library() -> None:
    numbers_only = {"philox.py", "recipes.py", "plans.py", "order.py", "samples.py", "files.py", "index.py"}
    for path in (p for p in FILES if p.relative_to(ROOT).parts[0] == "datasets" and p.name in numbers_only):
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "torchvision", "cv2", "PIL", "timm"}
        assert "np.random." not in path.read_text().replace("np.random.Philox", "")
        assert not {"random"} & imports(path)


def test_only_commands_name_options() -> None:
    """An error names a parameter (`epochs`); how that is given on a command line, only commands know."""
    spelled = {
        f"{path.relative_to(ROOT)}: {node.value}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] != "commands"
        for raised in ast.walk(ast.parse(path.read_text()))
        if isinstance(raised, (ast.Raise, ast.Assign))
        for node in ast.walk(raised)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"(^|\s)--[a-z]", node.value)
    }
    command_to_fill = {"inspection/info.py: --shards", "inspection/info.py: --cache"}  # one of a store's facts
    assert spelled == command_to_fill


def test_files_stay_short() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in [*FILES, *ROOT.glob("*.py")]}
    assert {name: n for name, n in lengths.items() if n > 300} == {}
