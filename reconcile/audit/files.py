"""The files of the project's own source."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from django.apps import apps
from django.conf import settings

from reconcile.audit.effects import is_third_party

__all__ = ["is_migration", "is_test", "own_files", "python_files", "roots"]

IGNORED = frozenset({"node_modules", "site-packages", "__pycache__", "build", "dist"})
TESTS = frozenset({"tests", "test", "testing"})
_MIGRATION = re.compile(r"[/\\]migrations[/\\][^/\\]+$")
_TEST_FILE = re.compile(r"(test_.*|tests|.*_tests?|conftest)\.py")


def own_files() -> list[str]:
    """The files of the project's own source, without tests and migrations."""
    return [each for each in python_files(roots()) if not is_test(each) and not is_migration(each)]


def roots() -> list[Path]:
    """The folders of the project's own source: of its apps and of its settings, each with all that stands beside it and a manage.py."""
    found = [_outermost(Path(each.path)) for each in apps.get_app_configs() if not is_third_party(each.path)]
    module = sys.modules.get(str(getattr(settings, "SETTINGS_MODULE", "")))
    file = getattr(module, "__file__", None)
    if file and not is_third_party(file) and (Path(file).parent / "__init__.py").exists():
        found.append(_outermost(Path(file).parent))
    found = [each.parent if (each.parent / "manage.py").is_file() else each for each in found]
    return sorted(
        {each for each in found if not any(each != other and each.is_relative_to(other) for other in found)}
    )


def _outermost(folder: Path) -> Path:
    """The outermost folder around it that is a package."""
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder.resolve()


def python_files(places: Iterable[Path]) -> Iterator[str]:
    """The Python files in the folders, and those that are named themselves."""
    for place in places:
        if place.is_file():
            yield str(place)
            continue
        for folder, folders, files in os.walk(place):
            folders[:] = sorted(each for each in folders if _is_own(Path(folder, each)))
            yield from (f"{folder}{os.sep}{each}" for each in sorted(files) if each.endswith(".py"))


def _is_own(folder: Path) -> bool:
    """Whether a folder within the project's holds source of its own, and no environment."""
    return (
        folder.name not in IGNORED
        and not folder.name.startswith(".")
        and not (folder / "pyvenv.cfg").is_file()
        and not is_third_party(str(folder))
    )


def is_test(path: str) -> bool:
    """Whether the file is one of tests, by its name or the names of its folders within the project."""
    *folders, name = _within(path).split(os.sep)  # noqa: PTH206 - asked of each file, and a Path takes ten times as long
    return not TESTS.isdisjoint(folders) or bool(_TEST_FILE.fullmatch(name))


def is_migration(path: str) -> bool:
    """Whether the file is one of migrations."""
    return bool(_MIGRATION.search(path))


def _within(path: str) -> str:
    """The path from the folder in which the project's own packages stand: what that is called says nothing of the file."""
    folders = _folders_of(tuple(each.path for each in apps.get_app_configs()))
    return next((path[len(each) :] for each in folders if path.startswith(each)), Path(path).name)


@cache
def _folders_of(paths: tuple[str, ...]) -> list[str]:  # noqa: ARG001 - of these apps
    return [f"{each.parent if (each / '__init__.py').is_file() else each}{os.sep}" for each in roots()]
