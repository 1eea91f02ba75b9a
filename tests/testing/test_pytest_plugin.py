"""The pytest plugin, in a project of its own that each test makes in a temporary folder."""

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib

import pytest

from tests.helpers import ROOT
from tests.processes import run_module

pytestmark = pytest.mark.process

SETTINGS = """
import os

import dj_database_url

SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["reconcile", "store"]
DATABASES = {"default": dj_database_url.parse(os.environ["PROJECT_DATABASE"])}
DATABASES["default"]["TEST"] = {"NAME": os.environ.get("PROJECT_TEST_DATABASE")}
RECONCILE = {"RULES": ["rules"]}
"""

MODELS = """
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone


class Order(models.Model):
    total = models.IntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)


class Invoice(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    amount = models.IntegerField()


class Basket(models.Model):
    label = models.CharField(max_length=20)


@receiver(post_save, sender=Order)
def handle_order_created(sender, instance, created, raw, **kwargs):
    if created and not raw:
        Invoice.objects.create(order=instance, amount=instance.total)
"""

RULES = """
from django.db.models import F
from reconcile import HaveRow, HaveValues, Rule, Settle
from store.models import Basket, Invoice, Order

invoice = Rule(
    every=Order,
    must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
    settle=Settle("created_at", minutes=15),
)
label = Rule(every=Basket, must=HaveValues(label="x"), warn_if=0)
"""

CONFTEST = """
import pytest
from store.models import Order


@pytest.fixture
def unpaid(db):
    Order.objects.bulk_create([Order(total=5)])
"""


@pytest.fixture
def project(tmp_path):
    """Writes files into a project that has models, rules and settings, and where the plugin is installed."""
    folder = tmp_path / "project"

    def write(**files):
        for path, text in files.items():
            target = folder / path.replace("__", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text))
        return folder

    write(**{
        "settings.py": SETTINGS, "conftest.py": CONFTEST, "store__models.py": MODELS, "store/_init_.py": "",
        "rules__orders.py": RULES, "pytest.ini": "[pytest]\nDJANGO_SETTINGS_MODULE = settings\naddopts = --strict-markers\n",
    })  # fmt: skip
    (folder / "store" / "_init_.py").rename(folder / "store" / "__init__.py")
    (folder / "rules" / "__init__.py").touch()
    installed(tmp_path / "site")
    write.folder = folder
    return write


def installed(site):
    """What pip writes for the plugin, from this checkout's own pyproject.toml."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    info = site / "django_reconcile_here-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: django-reconcile-here\nVersion: 0\n")
    lines = [f"{name} = {target}" for name, target in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))


def server():
    """The settings of the project's database where it is to be the one that these tests are run on."""
    url = os.environ.get("DATABASE_URL", "")
    if not url or url.startswith("sqlite"):
        return {}
    return {"PROJECT_DATABASE": url, "PROJECT_TEST_DATABASE": f"test_plugin_{os.getpid()}"}


def run(project, *arguments, fresh=False, **more):
    """pytest in the project: its exit code, and all that it said. A fresh Python has imported nothing yet."""
    site = project.folder.parent / "site"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "PYTEST_", "COV_"))
    }
    given = ["pytest", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
    own = {
        "PYTHONPATH": f"{ROOT}:{site}:{project.folder}",
        "COLUMNS": "140",
        "PROJECT_DATABASE": "sqlite://:memory:",
    }
    place = {"cwd": project.folder, "env": {**kept, **own, **more}}
    if fresh:
        done = subprocess.run(
            [sys.executable, "-m", *given], capture_output=True, text=True, timeout=120, **place
        )
    else:
        done = run_module(*given, measured=".coverage.plugin", **place)
    return done.returncode, done.stdout + done.stderr


def outcomes(said):
    """How many tests passed, failed and so on, by pytest's last line."""
    return {
        what: int(number)
        for number, what in re.findall(r"(\d+) (passed|failed|errors?|skipped)", said.splitlines()[-1])
    }


def fixture(*objects):
    return json.dumps(
        [{"model": f"store.{model}", "pk": pk, "fields": fields} for model, pk, fields in objects]
    )


BROKEN = fixture(("order", 7, {"total": 3, "created_at": "2024-01-01T00:00:00Z"}))
MENDED = fixture(
    ("order", 7, {"total": 3, "created_at": "2024-01-01T00:00:00Z"}),
    ("invoice", 1, {"order": 7, "amount": 3}),
)

WATCHED = """
import pytest
from django.test import TestCase, TransactionTestCase
from store.models import Invoice, Order

watched = pytest.mark.reconcile(rules=["orders.invoice"])


@watched
def test_a_save(db):
    Order.objects.create(total=5)


@watched
def test_a_bulk_path():
    Order.objects.bulk_create([Order(total=5)])


@watched
def test_a_fixture_of_the_test(unpaid):
    pass


@watched
def test_an_update_of_the_row(db):
    Order.objects.create(total=5)
    Invoice.objects.update(amount=6)


@watched
def test_a_surplus_row(db):
    order = Order.objects.create(total=5)
    Invoice.objects.create(order=order, amount=5)


@watched
def test_a_bulk_path_that_commits(transactional_db):
    Order.objects.bulk_create([Order(total=5)])


@watched
def test_that_fails_by_itself(db):
    Order.objects.bulk_create([Order(total=5)])
    raise RuntimeError("its own")


@pytest.mark.reconcile(settled=False)
def test_a_young_record(db):
    Order.objects.bulk_create([Order(total=5)])


def test_unwatched(unpaid):
    pass


@watched
class DjangoTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        Order.objects.bulk_create([Order(total=5)])

    def test_what_the_class_wrote(self):
        pass

    def test_a_bulk_path(self):
        Order.objects.bulk_create([Order(total=5)])


@watched
class Committing(TransactionTestCase):
    def test_a_bulk_path(self):
        Order.objects.bulk_create([Order(total=5)])
"""

FAIL_WATCHED = [
    "test_a_bulk_path",
    "test_a_fixture_of_the_test",
    "test_an_update_of_the_row",
    "test_a_surplus_row",
    "test_a_bulk_path_that_commits",
    "test_that_fails_by_itself",
    "DjangoTests::test_a_bulk_path",
    "Committing::test_a_bulk_path",
]


def failed(said):
    return set(re.findall(r"^(?:FAILED|ERROR) \S+?\.(?:py|json)::(\S+)", said, re.MULTILINE))


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_the_marker_fails_the_tests_that_wrote_drift_and_no_others(project, workers):
    project(**{"test_watched.py": WATCHED})
    code, said = run(project, *workers, **server())
    assert code == 1
    assert failed(said) == set(FAIL_WATCHED), said
    assert outcomes(said) == {"failed": len(FAIL_WATCHED), "passed": 4}


@pytest.mark.once
def test_what_the_marker_says_names_rule_keys_values_and_remedy(project):
    project(**{"test_one.py": """
        import pytest
        from store.models import Invoice, Order

        @pytest.mark.reconcile
        def test_it(db):
            order = Order.objects.create(total=5)
            Invoice.objects.update(amount=6)
            Order.objects.bulk_create([Order(total=5)])
    """})  # fmt: skip
    _, said = run(project)
    for line in (
        "What the test wrote drifts: 2 new drifted rows in 1 of 2 rules.",
        "orders.invoice  Every order must have exactly 1 Invoice with order = pk, whose amount = total.",
        "missing 2",
        "stale   1",
        "amount    6      5",
        "Insert: a repair would insert 1 row",
        "Update: a repair would update 1 row",
    ):
        assert line in said, said
    for noise in ("watching.py", "rule_checked", "traceback", "a row, owed or extra"):
        assert noise not in said, said


@pytest.mark.once
def test_assert_consistent_judges_the_records_it_is_given(project):
    project(**{"test_some.py": """
        import pytest
        from django.db.models import F
        from reconcile import HaveRow, HaveValues, Rule
        from reconcile.errors import InvalidRulesError, UsageError
        from reconcile.pytest_plugin import assert_consistent
        from store.models import Basket, Invoice, Order

        pytestmark = pytest.mark.django_db

        def make():
            good, bad = Order.objects.create(total=1), Order.objects.create(total=2)
            Invoice.objects.filter(order=bad).delete()
            return good, bad

        def test_the_good_one():
            good, bad = make()
            assert_consistent(good)
            assert_consistent(Order.objects.filter(pk=good.pk), rules=["orders.invoice"])
            assert_consistent(Order.objects.order_by("pk")[:1])
            assert_consistent(Order.objects.none())

        def test_all():
            make()
            assert_consistent(Order)

        def test_the_bad_one():
            good, bad = make()
            assert_consistent(Order.objects.exclude(pk=good.pk))

        def test_the_young_are_left_alone_on_demand():
            make()
            assert_consistent(Order, settled=False)

        def test_a_second_invoice():
            good, bad = make()
            Invoice.objects.create(order=good, amount=1)
            assert_consistent(bad, rules=[Rule(every=Order, must=HaveValues(total=2))][0])
            assert_consistent(good)

        def test_a_rule_of_its_own():
            make()
            assert_consistent(Order, rules=[Rule(every=Order, must=HaveValues(total=1))])

        def test_what_cannot_be_asked():
            with pytest.raises(UsageError, match="Did you mean 'orders.invoice'"):
                assert_consistent(Order, rules=["orders.invioce"])
            with pytest.raises(UsageError, match="No rule is about store.Invoice"):
                assert_consistent(Invoice)
            with pytest.raises(UsageError, match="the records are store.Basket"):
                assert_consistent(Basket, rules=["orders.invoice"])
            with pytest.raises(UsageError, match="neither a model"):
                assert_consistent("orders")
            with pytest.raises(InvalidRulesError, match="no column 'totl'"):
                assert_consistent(Order, rules=[Rule(every=Order, must=HaveValues(totl=1))])

        def test_a_warning_fails_too():
            Basket.objects.create(label="y")
            assert_consistent(Basket)
    """})  # fmt: skip
    _, said = run(project)
    assert failed(said) == {
        "test_all", "test_the_bad_one", "test_a_second_invoice", "test_a_rule_of_its_own", "test_a_warning_fails_too",
    }, said  # fmt: skip
    assert outcomes(said)["passed"] == 3
    assert "assert_consistent(Order.objects.exclude(pk=good.pk))" in said
    assert "_asserting.py" not in said


@pytest.mark.parametrize(
    "body",
    [
        "@pytest.mark.reconcile\ndef test_it(): pass",
        "def test_it(reconcile_check): reconcile_check()",
        "@pytest.mark.reconcile\nclass TestIt:\n    def test_it(self): pass",
    ],
)
@pytest.mark.once
def test_what_is_checked_is_the_test_database(project, body):
    project(**{"test_it.py": f"import pytest\n\n{body}\n"})
    configured = project.folder / "configured.sqlite3"
    code, said = run(project, PROJECT_DATABASE=f"sqlite:///{configured}")
    assert (code, outcomes(said)) == (0, {"passed": 1}), said
    assert not configured.exists()


@pytest.mark.once
def test_reconcile_check_is_a_fixture_that_checks_every_record(project):
    project(**{"test_check.py": """
        def test_clean(reconcile_check):
            reconcile_check()

        def test_drift(reconcile_check, unpaid):
            reconcile_check("orders.label")
            reconcile_check("orders.label", "orders.invoice")

        def test_young(reconcile_check, unpaid):
            reconcile_check(settled=False)
    """})  # fmt: skip
    _, said = run(project)
    assert failed(said) == {"test_drift"}
    assert "1 drifted row in 1 of 2 rules." in said


@pytest.mark.once
def test_a_rule_that_cannot_be_evaluated_is_never_a_pass(project):
    project(**{"test_error.py": """
        from django.db import connection

        def test_it(reconcile_check, transactional_db):
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE store_basket RENAME TO gone")
            try:
                reconcile_check()
            finally:
                with connection.cursor() as cursor:
                    cursor.execute("ALTER TABLE gone RENAME TO store_basket")

        def test_in_a_transaction(reconcile_check, monkeypatch):
            from reconcile import HaveValues, Rule
            from store.models import Basket

            Basket.objects.create(label="x")
            monkeypatch.setattr(Basket._meta, "db_table", "gone")
            try:
                reconcile_check(Rule(name="gone", every=Basket, must=HaveValues(label="x")))
            finally:
                monkeypatch.undo()
                assert Basket.objects.count() == 1
    """})  # fmt: skip
    code, said = run(project, **server())
    assert code == 1
    assert failed(said) == {"test_it", "test_in_a_transaction"}
    assert len(re.findall(r"^E +AssertionError: 1 rule could not be evaluated", said, re.MULTILINE)) == 2, (
        said
    )
    assert "lacks a table or column" in said


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_each_rule_is_tested_on_each_fixture_file(project, workers):
    project(**{
        "store__fixtures__broken.json": BROKEN, "store__fixtures__mended.json": MENDED,
        "test_own.py": "def test_own(): pass\n",
    })  # fmt: skip
    code, said = run(
        project, "--reconcile", "--reconcile-fixtures", "store/fixtures/*.json", "-v", *workers, **server()
    )
    assert code == 1
    assert outcomes(said) == {"failed": 1, "passed": 4}, said
    assert failed(said) == {"orders.invoice"}
    assert "FAILED store/fixtures/broken.json::orders.invoice" in said
    assert "missing 7" in said
    assert "_telling" not in said
    assert "orders.invoice on broken.json" in said


@pytest.mark.once
def test_files_come_from_the_settings_and_one_test_can_be_picked(project):
    project(**{
        "store__fixtures__broken.json": BROKEN,
        "pytest.ini": "[pytest]\nDJANGO_SETTINGS_MODULE = settings\nreconcile_fixtures = store/fixtures/broken.json\n",
        "test_own.py": "def test_own(): pass\n",
    })  # fmt: skip
    assert outcomes(run(project)[1]) == {"passed": 1}
    assert outcomes(run(project, "--reconcile")[1]) == {"failed": 1, "passed": 2}
    assert outcomes(run(project, "--reconcile", "-k", "label")[1]) == {"passed": 1}
    picked = run(project, "--reconcile", "store/fixtures/broken.json::orders.label")
    assert outcomes(picked[1]) == {"passed": 1}, picked


@pytest.mark.once
def test_a_fixture_that_refers_to_another_is_loaded_after_it(project):
    project(**{
        "orders.json": BROKEN, "invoices.json": fixture(("invoice", 1, {"order": 7, "amount": 3})),
    })  # fmt: skip
    code, said = run(project, "--reconcile", "--reconcile-fixtures", "orders.json invoices.json")
    assert (code, outcomes(said)) == (0, {"passed": 2}), said
    code, said = run(project, "--reconcile", "--reconcile-fixtures", "invoices.json")
    assert code == 1
    assert "During handling" not in said
    assert "invoices.json" in said
    assert "can't be loaded" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reconcile"], "--reconcile finds no fixture files."),
        (["--reconcile", "--reconcile-fixtures", "gone.json"], "There is no fixture file 'gone.json'"),
    ],
)
@pytest.mark.once
def test_files_that_are_not_there_are_an_error_of_use(project, arguments, said):
    code, output = run(project, *arguments)
    assert code == 4
    assert said in output


@pytest.mark.once
def test_faulty_rules_fail_with_their_faults(project):
    project(**{"rules__bad.py": "from reconcile import *\nfrom store.models import Order\nbad = Rule(every=Order)\n",
               "broken.json": BROKEN})  # fmt: skip
    code, said = run(project, "--reconcile", "--reconcile-fixtures", "broken.json")
    assert code == 1
    assert "Rule lacks 'must' (rules/bad.py:3). Rule takes every, must, " in " ".join(said.split())


@pytest.mark.once
def test_a_project_without_django_settings_notices_nothing(project):
    project(**{"pytest.ini": "[pytest]\n", "conftest.py": "", "test_plain.py": """
        import sys

        def test_it():
            assert not [name for name in sys.modules if name.startswith("reconcile.") and name != "reconcile.pytest_plugin"]
            assert "django.db" not in sys.modules
    """})  # fmt: skip
    code, said = run(project, "--setup-show", fresh=True)
    assert (code, outcomes(said)) == (0, {"passed": 1}), said
    assert "_reconcile_watch" not in said


@pytest.mark.parametrize(
    "body", ["@pytest.mark.reconcile\ndef test_it(): pass", "def test_it(reconcile_check): pass"]
)
@pytest.mark.once
def test_without_settings_what_asks_for_a_check_fails(project, body):
    project(**{"pytest.ini": "[pytest]\n", "conftest.py": "", "test_it.py": f"import pytest\n\n{body}\n"})
    code, said = run(project)
    assert code == 1
    assert "needs pytest-django and Django's settings" in said


@pytest.mark.once
def test_the_option_needs_settings_too(project):
    project(**{"pytest.ini": "[pytest]\n", "conftest.py": "", "broken.json": BROKEN})
    code, said = run(project, "--reconcile", "--reconcile-fixtures", "broken.json")
    assert code == 4
    assert "--reconcile needs pytest-django" in said


BULK = """
import pytest
from store.models import Order


def load(number):
    Order.objects.bulk_create([Order(total=number)])


@pytest.mark.django_db
@pytest.mark.parametrize("number", [1, 2, 3])
def test_load(number):
    load(number)
"""


@pytest.mark.once
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["here", "workers"])
def test_what_tests_write_past_signals_is_recorded(project, workers):
    folder = project(**{"test_bulk.py": BULK})
    code, out = run(project, "--reconcile-bypasses", "seen.json", *workers)
    assert code == 0, out
    assert "1 call site that writes past signals recorded in" in out
    (call,) = json.loads((folder / "seen.json").read_text())["calls"]
    assert (call["operation"], call["model"], call["function"], call["times"]) == (
        "bulk_create",
        "store.Order",
        "load",
        3,
    )
    assert call["path"] == str(folder / "test_bulk.py")


@pytest.mark.once
def test_what_ran_before_the_first_failure_is_recorded_too(project):
    folder = project(**{"test_bulk.py": BULK + "\n\ndef test_z_fails():\n    assert False\n"})
    code, out = run(project, "--reconcile-bypasses", "seen.json", "-x", "-p", "no:randomly")
    assert code == 1, out
    (call,) = json.loads((folder / "seen.json").read_text())["calls"]
    assert call["times"] == 3


@pytest.mark.once
def test_a_recording_needs_a_folder_that_exists(project):
    project(**{"test_bulk.py": BULK})
    code, out = run(project, "--reconcile-bypasses", "nowhere/seen.json")
    assert code == 4
    assert "is not in a folder that exists" in out
