"""Files that are written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

__all__ = ["write_file"]


def write_file(output: Path, write: Callable[[Any], None]) -> None:
    """Write a file as a whole or not at all: into a temporary file in the same folder, which then takes its name.

    A device or a pipe is written through. Raises OSError if the file can't be written.
    """
    if output.exists() and not output.is_file():
        # There is nothing to replace.
        with output.open("w", encoding="utf-8") as target:
            write(target)
        return
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=output.parent, prefix=f".{output.name}.", delete=False
    ) as temporary:
        try:
            write(temporary)
        except BaseException:
            Path(temporary.name).unlink()
            raise
    Path(temporary.name).chmod(0o644)
    Path(temporary.name).replace(output)
