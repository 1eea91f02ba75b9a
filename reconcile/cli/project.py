"""The project that a person stands in: its manage.py, and the settings that this names."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from reconcile.errors import UsageError

__all__ = ["settings_of_project"]


def settings_of_project() -> str | None:
    """The settings module that the manage.py in this folder, or in the nearest one above, names; None if there is none.

    Its folder can be imported from then, and DJANGO_SETTINGS_MODULE is set. The file is read, and not run. Raises UsageError if it
    names several, since it chooses by what only it knows.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        names = list(dict.fromkeys(_names_in(folder / "manage.py")))
        if len(names) > 1:
            raise UsageError(
                f"{folder / 'manage.py'} names several settings modules: {', '.join(names)}. Say which: "
                f"reconcile --settings {names[0]} …"
            )
        for name in names:
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            os.environ["DJANGO_SETTINGS_MODULE"] = name
            return name
    return None


def _names_in(file: Path) -> Iterator[str]:
    """What the file sets DJANGO_SETTINGS_MODULE to: `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")`."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(given) == 2 and given[0] == "DJANGO_SETTINGS_MODULE" and isinstance(given[1], str):  # noqa: PLR2004
                yield given[1]
