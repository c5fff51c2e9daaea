"""The house has floors: a module imports its own package and lower floors only (docs/architecture.md)."""

import ast
from pathlib import Path

import difix3d

PACKAGE = Path(difix3d.__file__).parent
FLOORS = [
    {"errors", "schedule", "interrupt"},
    {"files", "places", "streams"},
    {"console", "runfiles"},
    {"types", "native", "devices", "limits", "formats", "ranks"},
    {"geometry", "images", "background", "download", "features", "ssim", "video", "gpu"},
    {"synthetic", "sfm", "gaussians", "render", "difix", "losses", "metrics"},
    {"scene", "distill"},
    {"postrender", "evaluate", "stereo"},
    {"training"},
    {"curation", "difix_training"},
    {"viewer", "logs", "benchmark", "report", "integrations"},
    {"cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imports(path: Path) -> set[str]:
    """First names below ``difix3d`` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in modules if name.startswith("difix3d.")}
    return found


def test_each_module_imports_lower_floors_only():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        home = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if home == "__init__":
            continue
        others = imports(path) - {home, "__version__"}
        wrong += [f"{path.relative_to(PACKAGE)} imports {name}" for name in others if FLOOR[name] >= FLOOR[home]]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_floor():
    homes = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert homes - {"__init__", "__pycache__"} <= set(FLOOR)
