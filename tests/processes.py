"""Processes that need not import what each of them imports: they fork from one that has, without settings or a connection.

A start of the command line costs a second of processor time otherwise, nearly all of it imports. What is its own stays its
own: arguments, environment, folder, the settings with all that they bring, standard output and error, signals, exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parent.parent

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["reconcile.cli", "celery.app", "kombu.transport", "django.contrib.admin", "django.test", "yaml", "jsonschema", "pytest"]
)  # fmt: skip


def run_module(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    measured: str = "",
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """`python -m module` in a process of its own, from start to end. Raises TimeoutExpired after `timeout` seconds.

    Where the lines of this process count, those of the other do as well, into a data file of the name `measured`, if it has
    one. What it has imported by forking doesn't count there; it does here.
    """
    data = str(ROOT / measured) if measured and coverage.Coverage.current() else ""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch()
        err.touch()
        process = _FORKS.Process(
            target=_run, args=(module, arguments, dict(env), str(cwd), str(out), str(err), data)
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([module, *arguments], timeout, out.read_text(), err.read_text())
        code = process.exitcode
        process.close()
        return subprocess.CompletedProcess([module, *arguments], code or 0, out.read_text(), err.read_text())


def run_reconcile(
    *arguments: str, env: Mapping[str, str], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, from start to end."""
    return run_module("tests.command_line", *arguments, env=env, cwd=cwd)


def _run(
    module: str, arguments: tuple[str, ...], env: dict[str, str], cwd: str, out: str, err: str, data: str
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.argv = [module, *arguments]
    sys.path[:0] = [each for each in env.get("PYTHONPATH", "").split(os.pathsep) if each not in sys.path]
    warnings.resetwarnings()
    for action in filter(None, env.get("PYTHONWARNINGS", "ignore").split(",")):
        warnings.simplefilter(action)
    with _measure(data) if data else nullcontext():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def _measure(data: str) -> Iterator[None]:
    measuring = coverage.Coverage(data_file=data, data_suffix=True, config_file=str(ROOT / "pyproject.toml"))
    measuring.start()
    try:
        yield
    finally:
        measuring.stop()
        measuring.save()
