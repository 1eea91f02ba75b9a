"""The documentation says what the code says: nothing that a reader can type or meet is left out."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import unquote

import click
import pytest

import reconcile as package
from reconcile import Rule, Settle
from reconcile.cli import group as _group, reconcile
from reconcile.kinds import (
    BeUnique,
    FromPython,
    HaveKeys,
    HaveReceipt,
    HaveRow,
    HaveRows,
    HaveSource,
    Latest,
    LookedUp,
    Satisfy,
    Within,
)
from reconcile.remedies import Call, Enqueue, Resend, Split
from tests.helpers import checked

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
DECISIONS = ROOT / "docs" / "decisions"
GUIDES = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS, DECISIONS / "README.md"]
TAUGHT = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "first-rule",
            "content-types",
            "there-must-be-one",
            "trees-chains-balances",
            "which-constraint",
            "history-tables",
        )
    ),
]


def text(name):
    return (ROOT / "docs" / name).read_text()


def in_code(page):
    """All that the page sets as code, whether in a line or in a block of its own."""
    blocks = re.findall(r"```.*?```|^(?: {4}.*\n)+", page, re.DOTALL | re.MULTILINE)
    return " ".join([*blocks, *re.findall(r"`([^`\n]+)`", page)])


def section(page, title):
    """The part of the page below one `## title`."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE).group(1)


def modules():
    return [path.read_text() for path in (ROOT / "reconcile").rglob("*.py")]


def check_ids():
    return sorted({found for source in modules() for found in re.findall(r"reconcile\.[EW]\d+", source)})


def commands(command=reconcile, name="reconcile"):
    yield name, command
    if isinstance(command, click.Group):
        for each, inner in command.commands.items():
            yield from commands(inner, each)


def flags():
    context = click.Context(reconcile)
    return [
        pytest.param(name, flag, id=f"{name}{flag}")
        for name, command in commands()
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        for flag in [*parameter.opts, *parameter.secondary_opts]
    ]


def choices():
    return sorted(
        {
            choice
            for _, command in commands()
            for parameter in command.params
            if isinstance(parameter.type, click.Choice)
            for choice in parameter.type.choices
        }
    )


def exit_codes():
    return sorted(value for name, value in vars(_group).items() if name.startswith("EXIT_"))


def lessons():
    """The python blocks of the pages that teach, with where they stand."""
    for path in TAUGHT:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
            if "Rule(" in block:
                yield pytest.param(block, id=f"{path.name}-{number}")


def links():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(path, target, id=f"{path.name}-{target}")


def anchors(page):
    """The ids that headings get: lower case, spaces as dashes, punctuation gone."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("name", "flag"), flags())
def test_each_flag_is_documented(name, flag):
    assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", in_code(text("command-line.md"))), name


@pytest.mark.parametrize("choice", choices())
def test_each_choice_of_a_flag_is_documented(choice):
    assert re.search(rf"\b{choice}\b", in_code(text("command-line.md")))


@pytest.mark.parametrize("verb", list(reconcile.commands))
def test_each_verb_has_a_section(verb):
    page = text("command-line.md")
    assert section(page, verb)
    assert f"[`{verb}`](#{verb})" in page


def test_no_verb_is_documented_that_does_not_exist():
    table = text("command-line.md").partition("## Exit codes")[0]
    assert set(re.findall(r"^\|[\w ]*\| \[`(\w+)`\]", table, re.MULTILINE)) == set(reconcile.commands)


@pytest.mark.parametrize("code", [0, *exit_codes()])
def test_each_exit_code_is_documented(code):
    assert re.search(rf"^\| {code} \|", section(text("command-line.md"), "Exit codes"), re.MULTILINE)


def test_no_exit_code_is_documented_that_does_not_exist():
    listed = re.findall(r"^\| (\d+) \|", section(text("command-line.md"), "Exit codes"), re.MULTILINE)
    assert [int(code) for code in listed] == [0, *exit_codes()]


def test_each_check_id_is_documented_and_no_other():
    listed = re.findall(r"^\| `(reconcile\.[EW]\d+)` \|", text("rules.md"), re.MULTILINE)
    assert sorted(listed) == check_ids()


@pytest.mark.parametrize("name", package.__all__)
def test_each_public_name_is_documented(name):
    assert re.search(rf"\b{name}\b", " ".join(in_code(path.read_text()) for path in DOCS))


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        (Rule, "rules.md"),
        (Settle, "rules.md"),
        (HaveRow, "have-row.md"),
        (BeUnique, "be-unique.md"),
        (Satisfy, "satisfy.md"),
        (Call, "call.md"),
        (Resend, "resend.md"),
        (Split, "split.md"),
        (HaveRows, "have-rows.md"),
        (FromPython, "from-python.md"),
        (HaveKeys, "from-python.md"),
        (HaveSource, "have-source.md"),
        (HaveReceipt, "have-receipt.md"),
        (Enqueue, "enqueue.md"),
        (Latest, "have-values.md"),
        (LookedUp, "have-values.md"),
        (Within, "have-values.md"),
    ],
)
def test_each_option_is_documented(kind, page):
    rows = re.findall(r"^\| (.+?) \|", text(page), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {each.name for each in fields(kind)} <= listed


@pytest.mark.django_db
@pytest.mark.parametrize("block", list(lessons()))
def test_a_rule_that_is_taught_can_be_used(block):
    names = {}
    exec(compile(block, "documentation", "exec"), names)
    rules = {name: value for name, value in names.items() if isinstance(value, Rule)}
    assert rules
    for name, rule in rules.items():
        assert [str(fault) for fault in rule.faults()] == [], name
        assert rule.sentence.startswith("Every ")
        assert checked(replace(rule, name=name)).error is None


@pytest.mark.parametrize(("path", "target"), list(links()))
def test_each_link_leads_somewhere(path, target):
    file, _, anchor = unquote(target).partition("#")
    there = (path.parent / file).resolve() if file else path
    assert there.is_file()
    assert not anchor or anchor in anchors(there.read_text())


def mentioned(pattern):
    for path in GUIDES:
        for name in sorted(set(re.findall(pattern, path.read_text()))):
            yield pytest.param(name, id=f"{path.name}-{name}")


@pytest.mark.parametrize("path", list(mentioned(r"`((?:[\w.]+/)+[\w.-]*|[\w-]+\.(?:md|toml|py))`")))
def test_each_path_that_a_guide_names_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", list(mentioned(r"`(reconcile(?:\.\w+)+)`")))
def test_each_dotted_name_that_a_guide_names_is_there(name):
    assert resolve_name(name)


def test_the_picture_of_the_rooms_is_that_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    drawn = re.findall(r"^ {4}(\S.*?) {2,}\S", section(text("architecture.md"), "The rooms"), re.MULTILINE)
    assert drawn == contracts[0]["layers"]


def test_each_decision_is_in_the_table():
    table = (DECISIONS / "README.md").read_text()
    assert re.findall(r"\]\((\d+-.+?\.md)\)", table) == sorted(path.name for path in DECISIONS.glob("0*.md"))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_each_page_is_in_the_table_of_contents(path):
    assert path.name == "README.md" or f"({path.name})" in text("README.md")
