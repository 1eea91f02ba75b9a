"""The project's source as it was at another revision, so that what a branch adds can be told."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconcile.errors import UsageError

__all__ = ["texts_at"]


def texts_at(revision: str) -> Mapping[str, bytes | None]:
    """What the changed Python files held where the branch left `revision`, by path; None for files that were not there.

    What isn't committed yet counts as changed. Raises UsageError outside a repository, and for a revision that isn't there.
    """
    root = Path(_git("rev-parse", "--show-toplevel").decode().strip())
    base = _git("merge-base", revision, "HEAD").decode().strip()
    changed = _names(_git("-C", str(root), "diff", "--name-only", "--no-renames", "-z", base, "--", "*.py"))
    untracked = _names(
        _git("-C", str(root), "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py")
    )
    before = {*_names(_git("-C", str(root), "ls-tree", "-r", "--name-only", "-z", base))}
    return {
        str((root / name).resolve()): _git("-C", str(root), "show", f"{base}:{name}")
        if name in before
        else None
        for name in dict.fromkeys([*changed, *untracked])
    }


def _names(listed: bytes) -> Sequence[str]:
    return [each for each in listed.decode(errors="surrogateescape").split("\0") if each]


def _git(*words: str) -> bytes:
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False)  # noqa: S603, S607 - git, from the PATH, and no shell
    except FileNotFoundError as error:
        raise UsageError("--diff needs git, and there is none on the PATH.") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"--diff can't compare: git {words[0]} says: {said[-1] if said else 'nothing'}")
    return done.stdout
