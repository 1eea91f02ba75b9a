"""What is kept from run to run: used where all that it was made from is as it was, and nowhere else."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
from django.db.models.signals import post_save
from django.test.utils import override_settings

from reconcile.audit import cache, findings, reading
from reconcile.audit.resolver import evaluator
from reconcile.audit.searching import Search, search_bypasses
from reconcile.audit.world import held_by
from sample_project.shop.models import Article, Order
from tests.audit.test_effects import connected
from tests.cli.test_cli import run

pytestmark = [pytest.mark.usefixtures("shelf", "folder"), pytest.mark.once]

FOLDER = ".reconcile_cache"
SHOP = override_settings(RECONCILE={"RULES": ["rules"]})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(cache, "FOLDER", FOLDER)
    return tmp_path


@pytest.fixture
def write(folder, monkeypatch):
    """Writes modules of a project that is on the path; of none of them anything is imported."""
    monkeypatch.syspath_prepend(str(folder / "src"))
    (folder / "src").mkdir()

    def do(**texts):
        for name, text in texts.items():
            (folder / "src" / f"{name}.py").write_text(
                "from tests.shelf.models import Author, Book, State\n" + dedent(text)
            )

    return do


@pytest.fixture
def read(monkeypatch):
    """The files whose calls were looked for, and the effects whose functions were read, since it was last asked."""
    read = []
    find, read_acts = findings.find_sites, reading.EffectReader._read
    monkeypatch.setattr(
        findings, "find_sites", lambda evaluator, module: read.append(module.name) or find(evaluator, module)
    )
    monkeypatch.setattr(
        reading.EffectReader,
        "_read",
        lambda self, effect: read.append(effect.name) or read_acts(self, effect),
    )

    def take():
        found, read[:] = sorted({*read}), []
        return found

    return take


def search(folder):
    found = search_bypasses({}, {}, Search(paths=[folder / "src"], use_cache=True))
    anew = search_bypasses({}, {}, Search(paths=[folder / "src"]))
    assert told(found) == told(anew), "what is kept says what a reading anew says"
    return told(found)


def told(audit):
    return (
        [
            (each.site, each.model, [(skip.effect.key, skip.state, skip.reason) for skip in each.skips])
            for each in audit.bypasses
        ],
        [(each.path, each.why) for each in audit.unreadable],
        audit.faults,
    )


def once(folder):
    return search_bypasses({}, {}, Search(paths=[folder / "src"], use_cache=True))


def test_a_second_run_reads_nothing_and_says_the_same(folder, write, read):
    write(one="Book.objects.update(n=1)", two="State.objects.update(user='a')")
    first = told(once(folder))
    assert {"one", "two"} <= {*read()}
    assert told(once(folder)) == first
    assert read() == []
    assert len(first[0]) == 2


def test_of_one_file_that_changed_only_that_is_read(folder, write, read):
    write(one="Book.objects.update(n=1)", two="State.objects.update(user='a')")
    once(folder)
    read()
    write(two="State.objects.bulk_create([State()])")
    found = once(folder)
    assert read() == ["two"]
    assert [each.site.operation for each in found.bypasses] == ["update", "bulk_create"]


CHANGES = {
    "a function that gives the rows": (
        "def rows():\n    return Book.objects.all()",
        "def rows():\n    return State.objects.all()",
    ),
    "a name": ("rows = lambda: None\nMODEL = Book", "MODEL = State"),
    "a class": ("class Base:\n    model = Book", "class Base:\n    model = State"),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_what_another_file_says_is_what_it_says_now(folder, write, before, after):
    write(
        other=before,
        one="import other\nfrom other import *\nclass Sub(getattr(other, 'Base', object)):\n    pass\n",
        two="import other\ndef f():\n    other.rows().update(n=1)\n    other.MODEL.objects.update(n=1)\n    other.Base.model.objects.update(n=1)\n",
    )
    search(folder)
    write(other=after)
    search(folder)


USES = """
import other
from other import *
class Sub(getattr(other, 'Base', object)):
    def rows(self):
        return self.model.objects
    def change(self):
        self.rows().update(n=1)
        self.kept.update(n=1)
        self.plain.update(n=1)
def f(given):
    other.rows().update(n=1)
    other.outer()().update(n=1)
    other.Base().change()
    given.update(n=1)
def g():
    f(other.rows())
"""

VARIANTS = [
    "",
    "def rows():\n    return Book.objects.all()",
    "\n# Further down.\n\ndef rows():\n    return Book.objects.all()",
    "def rows() -> State:\n    return None",
    "def rows():\n    def inner():\n        return State.objects\n    return inner()",
    "def outer():\n    model = Book\n    def inner():\n        return model.objects\n    return inner",
    "def outer():\n    model = State\n    def inner():\n        return model.objects\n    return inner",
    "class Base:\n    model = Book\n    def __init__(self):\n        self.kept = Book.objects.all()",
    "class Base:\n    model = Book\n    def __init__(self):\n        self.kept = State.objects.all()",
    "class Base:\n    model = Book\n    @property\n    def plain(self):\n        return Book.objects.all()\n    @plain.setter\n    def plain(self, value):\n        pass",
    "class Base:\n    model = Book\n    @property\n    def plain(self):\n        return State.objects.all()\n    @plain.setter\n    def plain(self, value):\n        pass",
    "class Root:\n    model = State\nclass Base(Root):\n    pass",
    "class Root:\n    model = Book\nclass Base(Root):\n    pass",
    "from further import Base, rows",
    "from further import *",
    "import further\nrows = further.rows",
    "def rows(:",
]
"""What stands in a file at one time and another: functions, what stands in functions, members, what is inherited, imported, moved, and nothing that can be read."""


@pytest.mark.parametrize("step", [1, 3, 5, -1, -4])
def test_whatever_a_file_turns_into_is_what_it_is_taken_for(folder, write, step):
    further = "def rows():\n    return State.objects.all()\nclass Base:\n    model = State\n"
    write(one=USES, further=further)
    for place in range(len(VARIANTS) + 1):
        write(other=VARIANTS[place * step % len(VARIANTS)])
        search(folder)


def test_where_something_else_changed_in_a_file_that_is_used_nothing_but_it_is_read(folder, write, read):
    used = "def rows():\n    return Book.objects.all()\n"
    other = "def other():\n    State.objects.update(n=1)\n"
    write(one="from used import rows\nrows().update(n=1)\n", used=used + other)
    once(folder)
    read()
    write(used="# Moved.\n" + other.replace("n=1", "n=2") + used)
    assert {each.model for each in once(folder).bypasses} == {"shelf.Book", "shelf.State"}
    assert read() == ["used"]


HELD = {
    "a function of the same name": (lambda: one_rows, lambda: other_rows),
    "what a partial calls": (lambda: partial(one_rows), lambda: partial(other_rows)),
    "a text": (lambda: "shelf.Article", lambda: "shelf.Order"),
    "a list": (lambda: [Article], lambda: [Order]),
    "a manager": (lambda: Article.objects, lambda: Order.objects),
}


def one_rows():
    return Article.objects.all()


def other_rows():
    return Order.objects.all()


other_rows.__qualname__ = other_rows.__name__ = "one_rows"
other_rows.__module__ = "tests.audit.another"


@pytest.mark.parametrize(("before", "after"), HELD.values(), ids=HELD)
def test_what_a_name_of_an_imported_module_holds_is_what_it_holds_now(write, before, after):
    write(kept="NOTHING = 1\n")
    module = importlib.import_module("kept")
    module.NAME = before()
    one = held_by("kept:NAME")
    assert held_by("kept:NAME") == one
    module.NAME = after()
    assert held_by("kept:NAME") not in {one, ""}
    del sys.modules["kept"]
    assert held_by("kept:NAME") == ""


def test_a_new_caller_says_what_a_parameter_is(folder, write):
    write(one="def change(rows):\n    rows.update(n=1)\n")
    search(folder)
    write(two="from one import change\nchange(Book.objects.all())\n")
    (found,), _, _ = search(folder)
    assert found[1] == "shelf.Book"
    write(two="from one import change\nchange(State.objects.all())\n")
    (found,), _, _ = search(folder)
    assert found[1] == "shelf.State"
    (folder / "src" / "two.py").unlink()
    (found,), _, _ = search(folder)
    assert found[1] is None


def test_a_caller_that_changed_otherwise_has_nothing_else_read(folder, write, read):
    job = "class Job:\n    def __init__(self, rows):\n        self.rows = rows\n    def go(self):\n        self.rows.update(n=1)\n"
    write(one=job, two="from one import Job\nJob(Book.objects.all())\n")
    assert [each.model for each in once(folder).bypasses] == ["shelf.Book"]
    read()
    write(two="from one import Job\nJob(Book.objects.all())\nBook.objects.update(n=2)\n")
    once(folder)
    assert read() == ["two"]


@pytest.fixture
def inferred(monkeypatch):
    """The parameters that were inferred since it was last asked."""
    names = []
    infer = evaluator.infer_parameter
    monkeypatch.setattr(
        evaluator,
        "infer_parameter",
        lambda own, scope, name: names.append(f"{scope.name}.{name}") or infer(own, scope, name),
    )

    def take():
        found, names[:] = sorted({*names}), []
        return found

    return take


LIBRARY = "def change(rows):\n    rows.update(n=1)\ndef pass_on(given):\n    change(given)\n"
CALLER = "from one import pass_on\ndef f(x):\n    pass_on(Book.objects.all())\n"


def test_what_parameters_are_is_not_asked_again_where_nothing_behind_them_changed(folder, write, inferred):
    write(one=LIBRARY, two=CALLER, three="def g(own):\n    own.update(n=2)\n")
    search(folder)
    assert {"change.rows", "pass_on.given", "g.own"} <= {*inferred()}
    write(three="def g(own):\n    own.update(n=3)\n")
    once(folder)
    assert inferred() == []


def test_a_caller_that_says_the_same_in_other_words_asks_nothing_of_the_others(folder, write, inferred):
    write(one=LIBRARY, two=CALLER)
    search(folder)
    inferred()
    write(two=CALLER.replace("    pass_on(", "    extra = 1\n    pass_on("))
    once(folder)
    assert inferred() == ["pass_on.given"], "it is asked again, and is what it was: `change.rows` stays"


def test_what_changes_three_calls_away_is_told(folder, write):
    write(one=LIBRARY, two=CALLER)
    assert [each[1] for each in search(folder)[0]] == ["shelf.Book"]
    write(two=CALLER.replace("Book", "State"))
    assert [each[1] for each in search(folder)[0]] == ["shelf.State"]
    write(two=CALLER.replace("Book.objects.all()", "x"))
    assert [each[1] for each in search(folder)[0]] == [None]
    write(two=CALLER)
    assert [each[1] for each in search(folder)[0]] == ["shelf.Book"]


def test_functions_that_hand_to_each_other_are_asked_again_together(folder, write):
    circle = (
        "def one(rows, n):\n    rows.update(n=1)\n    two(rows, n)\ndef two(rows, n):\n    one(rows, n - 1)\n"
    )
    write(one=circle, two="from one import one\none(Book.objects.all(), 3)\n")
    search(folder)
    write(two="from one import one\none(State.objects.all(), 3)\n")
    search(folder)
    write(one=circle.replace("n - 1", "n - 2"))
    search(folder)


def test_a_module_that_was_missing_and_is_there_now_is_read(folder, write):
    write(one="from later import rows\nrows().update(n=1)\n")
    search(folder)
    write(later="def rows():\n    return Book.objects.all()\n")
    assert [each[1] for each in search(folder)[0]] == ["shelf.Book"]


def test_a_receiver_that_came_makes_all_be_read_anew(folder, write, read):
    write(one="Book.objects.update(n=1)")
    once(folder)
    read()

    def heard(instance, **kwargs):
        instance.refresh_from_db()

    with connected(post_save, heard, Order):
        once(folder)
    assert "one" in read()


def test_a_file_that_cannot_be_read_is_told_again(folder, write):
    write(one="Book.objects.update(n=1", two="State.objects.update(user='a')")
    assert len(search(folder)[1]) == 1
    assert len(search(folder)[1]) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}', "\x00"])
def test_what_somebody_has_cut_short_is_as_good_as_none(folder, write, text):
    write(one="Book.objects.update(n=1)")
    search(folder)
    (file,) = [each for each in Path(FOLDER).iterdir() if each.suffix == ".json"]
    file.write_text(text)
    assert len(search(folder)[0]) == 1
    assert json.loads(file.read_text())["results"]


def test_who_may_not_write_goes_without(folder, write):
    write(one="Book.objects.update(n=1)")
    Path(FOLDER).write_text("a file, and no folder")
    assert len(search(folder)[0]) == 1


@SHOP
def test_the_folder_says_that_nothing_in_it_is_to_be_committed_and_can_be_left_out(folder):
    code, out, _ = run("signals", "bypasses", "--no-cache")
    assert not Path(FOLDER).exists()
    again = run("signals", "bypasses")
    assert (code, out) == again[:2]
    assert (Path(FOLDER) / ".gitignore").read_text() == "*\n"
    assert run("signals", "bypasses")[:2] == (code, out)


@SHOP
def test_signals_are_kept_too(folder, read):
    code, out, _ = run("signals", "--format", "json", "--no-cache")
    read()
    assert run("signals", "--format", "json")[:2] == (code, out)
    assert read()
    assert run("signals", "--format", "json")[:2] == (code, out)
    assert read() == []


@SHOP
def test_coverage_uses_what_is_kept_and_can_go_without(folder):
    said = run("signals", "coverage", "--format", "json", "--no-cache")
    assert not Path(FOLDER).exists()
    assert run("signals", "coverage", "--format", "json") == said
    assert (Path(FOLDER) / ".gitignore").exists()
    assert run("signals", "coverage", "--format", "json") == said


def test_a_change_that_is_told_from_another_revision_keeps_nothing(folder, write):
    write(one="Book.objects.update(n=1)")
    search_bypasses({}, {}, Search(paths=[folder / "src"], use_cache=True), texts={})
    assert not Path(FOLDER).exists()
