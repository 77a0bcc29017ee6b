"""The rules that keep the packages apart, read from the source: `server -> worker -> cnn`, no torch in the server."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cnn", "worker", "server")

MAY_IMPORT = {
    "cnn": {"cnn"},
    "worker": {"worker", "cnn"},
    "server": {"server", "worker", "cnn"},
}
TORCH = ("torch", "torchvision")
TRAINS = ("worker/trainer.py", "worker/launcher.py")
"""The modules outside of `cnn` that may load torch: they run in processes of their own."""
CLIENT_SIDE = (
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "server/client").glob("*.py")),
    *(
        f"server/{name}.py"
        for name in (
            "actions_cli",
            "cli",
            "compare_cli",
            "console",
            "datasets_cli",
            "keys_cli",
            "operation_schemas",
            "plan_cli",
            "predict_cli",
            "prediction_schemas",
            "progress",
            "schemas",
            "dataset_schemas",
            "plan_schemas",
            "webhook_schemas",
            "webhooks_cli",
        )
    ),
)
"""What a client installs without the server: these import no other part of it."""
SOURCES = [path.relative_to(ROOT).as_posix() for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


@pytest.mark.parametrize("source", SOURCES)
def test_a_package_imports_only_what_stands_to_its_right(source: str) -> None:
    package = source.partition("/")[0]
    imported = {name.partition(".")[0] for name, _ in _imports(_tree(source))}
    assert imported & set(PACKAGES) <= MAY_IMPORT[package]


def test_nothing_that_the_server_or_a_supervisor_loads_loads_torch() -> None:
    """Spec modules import torch inside the functions that build something; so do all that they load with them."""
    start = [source for source in SOURCES if not source.startswith("cnn/") and source not in TRAINS]
    reached = _loaded_with(start)
    assert {"cnn/spec.py", "cnn/optimizers.py", "cnn/plan.py"} <= reached
    assert reached.isdisjoint(TRAINS)
    assert not {source for source in reached if _names_torch(source, only_at_import=True)}
    assert not {source for source in start if _names_torch(source, only_at_import=False)}


@pytest.mark.parametrize("source", SOURCES)
def test_the_environment_is_read_in_one_place(source: str) -> None:
    if source == "worker/settings.py":
        return
    read = [
        node.lineno
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    ]
    assert not read, f"{source} reads the environment in lines {read}"


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_pickled(source: str) -> None:
    names = {name for name, _ in _imports(_tree(source))}
    assert not names & {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
    loads = [
        ast.unparse(node)
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save", "torch.export.load")
    ]
    assert not loads


def test_the_client_needs_no_server() -> None:
    assert _loaded_with(CLIENT_SIDE) == set(CLIENT_SIDE)


def test_every_exception_is_caught_in_one_place() -> None:
    """The boundary of the task, which records the unforeseen as the job's failure; others clean up and raise on."""
    broad = [
        source
        for source in SOURCES
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and ast.unparse(node.body[-1]) != "raise"
    ]
    assert set(broad) <= {"worker/tasks.py"}


def _names_torch(source: str, *, only_at_import: bool) -> bool:
    names = {name for name, at_import in _imports(_tree(source)) if at_import or not only_at_import}
    return any(name.partition(".")[0] in TORCH for name in names)


def _loaded_with(start: Iterable[str]) -> set[str]:
    """The sources that are executed when those are imported."""
    reached: set[str] = set()
    waiting = list(start)
    while waiting:
        source = waiting.pop()
        if source in reached:
            continue
        reached.add(source)
        for name, at_import in _imports(_tree(source)):
            path = name.replace(".", "/")
            waiting += [found for found in (f"{path}.py", f"{path}/__init__.py") if at_import and found in SOURCES]
    return reached


def _tree(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text("utf-8"))


def _imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """The imported modules, each with whether it is imported when the module itself is."""
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        at_import = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their package"
            yield str(node.module), at_import
            yield from ((f"{node.module}.{alias.name}", at_import) for alias in node.names)


def _for_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
