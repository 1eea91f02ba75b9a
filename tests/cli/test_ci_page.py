"""The pipelines that `docs/ci.md` gives: YAML that is YAML, with commands that the command line takes."""

import re
import shlex

import pytest
import yaml

from reconcile.cli import reconcile
from tests.helpers import ROOT

pytestmark = pytest.mark.once

PAGE = (ROOT / "docs" / "ci.md").read_text()


def pipelines():
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def commands():
    """Every `reconcile …` of the page, in a line or folded over several."""
    folded = re.sub(r"\n +(?=--)", " ", PAGE)
    return re.findall(r"^ +(?:\$ )?reconcile (.+)$", folded, re.MULTILINE)


def test_each_pipeline_is_yaml_and_checks_fixtures():
    github, upload, gitlab = pipelines()
    ran = " ".join(step.get("run", "") for step in github["jobs"]["fixtures"]["steps"])
    assert "reconcile check --fixtures" in ran
    assert "reconcile check --fixtures" in " ".join(gitlab["reconcile"]["script"])
    assert upload[0]["with"]["sarif_file"] == "reconcile.sarif"


def test_what_a_pipeline_keeps_is_what_its_command_writes():
    _, _, gitlab = pipelines()
    artefacts = gitlab["reconcile"]["artifacts"]
    for name in [*artefacts["paths"], artefacts["reports"]["junit"]]:
        assert f"={name}" in " ".join(gitlab["reconcile"]["script"])


@pytest.mark.parametrize("command", commands())
def test_each_command_is_one_that_the_command_line_takes(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    verb, *arguments = shlex.split(command)
    for argument in arguments:
        if argument.endswith(".json"):
            (tmp_path / argument).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / argument).touch()
    with reconcile.commands[verb].make_context(verb, arguments) as context:
        assert [path.suffix for path in context.params["fixtures"]] == [".json"]


def test_the_page_has_the_commands_that_it_is_meant_to_have():
    assert len(commands()) == 4
