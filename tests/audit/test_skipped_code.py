"""What the code does that a call skips: each way of doing something is seen, and what does nothing is not reported."""

from importlib import import_module
from pathlib import Path
from textwrap import dedent, indent

import pytest

from reconcile.audit.searching import Search, search_bypasses

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]

HEARD = "    Log.objects.create(text=str(instance.one))"
DELETES = """    def delete(self, *args, **kwargs):
        Bough.objects.filter(height__gt=1, trunk=self.pk).update(trunk=None)
        return super().delete(*args, **kwargs)
"""
ONE, OTHER = "Halves.objects.update(one=1)", "Halves.objects.update(other=1)"
MADE = "Halves.objects.bulk_create([Halves()])"


@pytest.fixture
def level(tmp_path):
    """How a call stands, by the effect, where a piece of the models' source is another one."""

    def find(piece, does, call, extra=""):
        file = tmp_path / "paths.py"
        file.write_text(
            f"from django.db import connection\nfrom tests.shelf.models import *\nfrom tests.shelf.models import Halves\n\n{call}\n"
        )
        models = Path(import_module("tests.shelf.models").__file__)
        text = models.read_text()
        assert piece in text
        texts = {str(models): f"{text.replace(piece, does)}\n\n{dedent(extra)}\n".encode()}
        found = search_bypasses({}, {}, Search(paths=[file]), texts).bypasses
        return {str(skip.state) for each in found for skip in each.skips} or {
            str(each.state) for each in found
        }

    return find


@pytest.fixture
def heard(level):
    """How the receiver of halves stands if it is another one."""
    return lambda does, call=ONE, extra="": level(HEARD, indent(dedent(does), "    "), call, extra)


@pytest.mark.parametrize(
    ("does", "call"),
    [
        ('Log.objects.create(text=f"saved {instance}")', OTHER),
        ('Log.objects.create(text="saved %s" % instance)', OTHER),
        ("index([instance])", OTHER),
        ("index(instance.__dict__)", OTHER),
        ("if instance.pk:\n    Log.objects.create()", MADE),
        ("if not instance._state.adding:\n    Log.objects.create()", MADE),
        ('result = index(instance)\nif result["created"]:\n    Log.objects.create()', ONE),
        ("tell(instance, instance.one > 2)", ONE),
        ("node = instance\nwhile node.one:\n    node = node.other\n    node.save()", ONE),
        ("sent = send_mail(instance.one)", ONE),
        ("answer = client.post(instance.one)", ONE),
        ("if subprocess.call([instance.one]) == 0:\n    pass", ONE),
        ("models.Model.save(Log(text=str(instance.one)))", ONE),
        ("with suppress(KeyError):\n    index(1)\n    return\nLog.objects.create(text=str(instance.one))", ONE),
        ("if instance.one != instance.LEAST:\n    Log.objects.create(text=str(instance.other))", OTHER),
        ("if instance.one == instance.LEAST:\n    return\nLog.objects.create(text=str(instance.other))", OTHER),
        ("if instance.one is not None:\n    return\nLog.objects.create(text=str(instance.other))", OTHER),
        ("if instance.one is not None:\n    pass\nelse:\n    Log.objects.create(text=str(instance.other))", OTHER),
        ("one(instance)", ONE),
    ],
)  # fmt: skip
def test_what_would_have_done_something_is_told(heard, does, call):
    extra = """
    from contextlib import suppress
    import subprocess
    from django.core.mail import send_mail

    def tell(row, created):
        if created:
            Log.objects.create()

    def one(row): two(row)
    def two(row): three(row)
    def three(row): four(row)
    def four(row): five(row)
    def five(row): six(row)
    def six(row): seven(row)
    def seven(row): Log.objects.create()
    """
    assert heard(does, call, extra) == {"uncovered"}


@pytest.mark.parametrize(
    ("does", "call"),
    [
        ("if not instance.pk:\n    Log.objects.create()", MADE),
        ("if instance._state.adding:\n    Log.objects.create()", MADE),
        ("tell(instance, created)", ONE),
        ('if kwargs["created"]:\n    Log.objects.create()', ONE),
        ("value = index(instance.one)", ONE),
    ],
)
def test_what_would_have_done_nothing_is_not_told(heard, does, call):
    extra = """
    def tell(row, created):
        if created:
            Log.objects.create()

    def index(value):
        return value
    """
    does = does if "created)" not in does else does.replace("created)", 'kwargs["created"])')
    assert heard(does, call, extra) == set()


@pytest.mark.parametrize(
    ("does", "is_skipped"),
    [
        ("super().delete(*args, **kwargs)", False),
        ("if self.name:\n    raise ValueError\nsuper().delete()", False),
        ("with transaction.atomic():\n    return super().delete()", False),
        ("try:\n    super().delete()\nexcept KeyError:\n    return", False),
        ("if self.name:\n    super().delete()\nelse:\n    super().delete(keep_parents=True)", False),
        ("self.name = ''\nself.save()", True),
        ("if self.name:\n    return\nsuper().delete()", True),
        ("if self.name:\n    super().delete()", True),
        ("while self.name:\n    return\nsuper().delete()", True),
    ],
)
def test_a_delete_of_rows_skips_one_that_may_leave_the_record(level, does, is_skipped):
    changed = f"    def delete(self, *args, **kwargs):\n{indent(does, ' ' * 8)}\n"
    found = level(DELETES, changed, "Trunk.objects.all().delete()")
    assert ("uncovered" in found) == is_skipped


@pytest.mark.parametrize(
    "sql",
    [
        '"UPDATE shelf_halves SET one = 1"',
        '"update shelf_halves set ONE = 1"',
        'f"UPDATE shelf_halves SET {column} = 1"',
        '"UPDATE shelf_halves SET %s = 1" % column',
        '"UPDATE shelf_halves SET {} = 1".format(column)',
        '" ".join(["UPDATE shelf_halves", "SET one = 1"])',
        '"UPDATE shelf_halves SET one = 1".strip()',
        '"UPDATE shelf_halves SET one = 1" if column else "SELECT 1"',
        "sql",
    ],
)
def test_sql_is_read_in_all_its_ways(level, sql):
    run = """
def run(cursor, column):
    sql = "UPDATE shelf_halves SET other = 1"
    if column:
        sql = "UPDATE shelf_halves SET one = 1"
    sql += " WHERE other > 1"
    cursor.execute(%s)
"""
    assert level(HEARD, HEARD, run % sql) == {"uncovered"}


def test_sql_that_nobody_can_read_is_unknown(level):
    assert level(HEARD, HEARD, "def run(cursor, sql):\n    cursor.execute(sql)") == {"unknown"}
    assert level(HEARD, HEARD, "def run(cursor, sql):\n    cursor.execute('SELECT 1')") == set()
    assert level(HEARD, HEARD, "def run(command, sql):\n    command.execute(sql)") == set()


def test_sql_whose_columns_are_whole_is_told_by_them(level):
    run = 'connection.cursor().execute("UPDATE shelf_halves SET other = 1")'
    assert level(HEARD, HEARD, run) == {"low"}
