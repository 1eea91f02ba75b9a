"""What an expression stands for, written as plain values and read again by another run: the same, or nothing where it has no name."""

import json
from dataclasses import replace

import pytest

from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.kept import from_plain, to_plain
from reconcile.audit.resolver.project import Project
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.resolver.scopes import Frame
from reconcile.audit.resolver.types import texts_of
from reconcile.audit.sources import Sources

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]

MODULE = """
from collections import OrderedDict
from django.apps import apps
from django.contrib.auth import get_user_model
from django.shortcuts import get_object_or_404
from tests.shelf import models as shelf
from tests.shelf.models import Author, Book, Club, State, Tracked

def function(x):
    return x

class Base:
    def __init__(self, rows):
        self.rows = rows

class Job(Base):
    def method(self):
        return super()

made = type("Made", (), {})
"""

EXPRESSIONS = [
    "Book",
    "Book()",
    "Book(n=1)",
    "Book.objects",
    "Book.objects.filter(n=1)",
    "Book.objects.values('n')",
    "Author().books",
    "Club().members",
    "Tracked.objects",
    "shelf",
    "'text'",
    "1",
    "[Book()]",
    "(Book(), State.objects)",
    "{'a': Book()}",
    "function",
    "Base",
    "Job(1)",
    "Job(1).method",
    "Job(1).method()",
    "Book.objects.filter",
    "get_object_or_404",
    "OrderedDict",
    "get_user_model()",
    "apps.get_model('shelf', 'Book')",
    "Book() if x else State",
]


@pytest.fixture
def run(tmp_path):
    """A new run over the module: gives what an expression stands for, and its evaluator."""
    path = str(tmp_path / "jobs.py")

    def start(expression, text=MODULE):
        (tmp_path / "jobs.py").write_text(f"{text}\nasked = {expression}\n")
        sources = Sources()
        evaluator = Evaluator(Project(sources, [path]), Registry())
        scope = evaluator.project.scope(sources.parsed(path))
        return evaluator, evaluator.name("asked", Frame(scope))

    return start


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_another_run_reads_what_was_meant(run, expression):
    first, types = run(expression)
    assert types, "what is unknown says nothing of this"
    plain = json.loads(json.dumps(to_plain(first, types)))
    second, again = run(expression)
    assert texts_of(from_plain(second, plain)) == texts_of(types)
    assert from_plain(second, plain) == again, "it is the run's own function or class, not one like it"


def test_what_is_gone_is_nothing(run):
    first, types = run("(function, Job)")
    plain = to_plain(first, types)
    other, _ = run("1", "")
    assert from_plain(other, plain) is None


@pytest.mark.parametrize(
    "plain",
    [
        ["model", "shelf.nothing"],
        ["class", "nowhere", "Nothing"],
        ["class", "json", "dumps"],
        ["scope", "/nowhere.py", "function"],
        ["Instance", ["model", "shelf.book"]],
        ["Nothing"],
        ["kind", "no kind"],
        [],
    ],
)
def test_what_cannot_be_read_is_nothing(run, plain):
    evaluator, _ = run("1")
    assert from_plain(evaluator, ["set", plain]) is None


def test_of_two_functions_of_one_name_the_first_has_none(run):
    text = "class A:\n    @property\n    def x(self):\n        return 1\n    @x.setter\n    def x(self, value):\n        pass\n"
    evaluator, _ = run("1", text)
    scope = evaluator.project.scope(evaluator.project.sources.parsed(evaluator.project.files[0]))
    first, second = scope.children[0].children
    assert to_plain(evaluator, evaluator.function(first)) is None
    assert to_plain(evaluator, evaluator.function(second)) is not None


def test_rows_of_a_manager_that_was_made_at_run_time_have_none(run):
    evaluator, types = run("Book.objects")
    (rows,) = types
    made = type("Made", (rows.manager,), {})
    assert to_plain(evaluator, frozenset({replace(rows, manager=made)})) is None
