"""Assertions that read as sentences, and ways into the test database from other sessions and processes."""

import os
import re
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock
from urllib.parse import quote

import time_machine
from django.apps import apps
from django.db import connection, connections
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from reconcile import EXTRA, MISSING, STALE, runs, tasks
from reconcile.core.drift import Drift, Status
from reconcile.core.verbs import Written
from reconcile.db import clock
from reconcile.detect.checking import check
from reconcile.errors import NightIncomplete
from reconcile.models import Change, Run
from reconcile.repair.caps import Caps

ROOT = Path(__file__).resolve().parent.parent


def unaddressed(value):
    """The text of a test's parameter as its id, without addresses: every process of a parallel run must find the same ids."""
    return re.sub(r" at 0x[0-9a-f]+", "", value if isinstance(value, str) else repr(value))


def examples(number):
    """How many examples a property draws: all on SQLite, and a third on a server, where each takes several times as long.

    There are all of them wherever new ones are looked for.
    """
    return number if connection.vendor == "sqlite" or os.environ.get("EXPLORE") else max(number // 3, 1)


def an_hour_ago():
    return timezone.now() - timedelta(hours=1)


def checked(rule, **options):
    result = check(rule, using="default", now=timezone.now(), **{"samples": 1_000, **options})
    assert result.error is None, result.error
    return result


def found(rule, drift):
    return {sample.key for sample in checked(rule).samples if sample.drift is drift}


def assert_finds(rule, *, missing=(), stale=(), extra=()):
    """The check finds just these rows, and counts as many."""
    result = checked(rule)
    for drift, rows in ((MISSING, missing), (STALE, stale), (EXTRA, extra)):
        keys = sorted(str(row.pk) if isinstance(row, Model) else str(row) for row in rows)
        assert sorted(each.key for each in result.samples if each.drift is drift) == keys, drift
        assert result.tally[drift] == len(keys), drift


def assert_clean(rule):
    assert_finds(rule)


def found_by_the_night(*rules, using="default"):
    """Let a run that repairs nothing find the drift, so that the next one agrees with it on what to delete."""
    rules = {rule.name: rule for rule in rules}
    run = runs.running._begin(Run.Kind.NIGHTLY, rules, using=using, may_repair=set())
    runs.running._advance(run, rules, using=using)


def repaired(rule, **caps):
    """Repair the rule, of which a run before has seen what is to be deleted; what became of it."""
    if any(rule.remedy(drift).deletes for drift in Drift):
        found_by_the_night(rule)
    _, results = runs.repair({rule.name: rule}, using="default", caps=Caps(**caps))
    return results[0]


def nightly(*arguments):
    """What became of a night, also of one that raises an alarm."""
    try:
        return tasks.nightly(*arguments)
    except NightIncomplete as error:
        return error.result


def mendable(result):
    """Drifted rows that are left and that a remedy would mend."""
    return result.left - sum(result.reported.values())


def assert_repairs(rule, **written):
    """The repair writes just so many rows by verb, journals each, leaves nothing, and a second one writes nothing."""
    noted = Change.objects.count()
    result = repaired(rule)
    assert result.error is None, result.error
    assert (result.written, mendable(result), result.why_stopped) == (Written(**written), 0, ""), result
    assert result.status is not Status.ERROR
    assert Change.objects.count() - noted == sum(written.values())
    again = repaired(rule)
    assert (again.written.total, mendable(again)) == (0, 0), again
    return result


def everything():
    """Every row of every table that isn't the package's own, as a comparable value."""
    return {
        model._meta.label: sorted(map(repr, model._base_manager.values_list()))
        for model in apps.get_models()
        if model._meta.app_label in {"shop", "zoo", "auth"} and model._meta.can_migrate(connection)
    }


@contextmanager
def at(moment):
    """It is that moment, for this process and for the database."""
    with (
        time_machine.travel(moment),
        mock.patch.object(clock, "_READINGS", {}),
        mock.patch.object(clock, "_read", return_value=None),
    ):
        yield


def raw_rows(model):
    """Every row of the model's own table as the driver gives it; a float's sign and a decimal's zeros count."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(model._meta.db_table)}")
        return sorted(map(repr, cursor.fetchall()))


def raw_tables():
    """Every table that isn't the package's own, row by row as the driver gives it."""
    return {
        model._meta.label: raw_rows(model)
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label in {"shop", "zoo", "auth"} and model._meta.can_migrate(connection)
    }


class Statements(CaptureQueriesContext):
    """What a block sends, without what is done once: to guard a test's transaction, to see all rows, to read the clock, to limit reads and waits for locks, to cache nothing."""

    @property
    def captured_queries(self):
        own = (
            "SAVEPOINT", "RELEASE SAVEPOINT", "SELECT current_setting('row_security')",
            "SELECT EXTRACT(EPOCH FROM clock_timestamp", "SELECT TIMESTAMPDIFF(MICROSECOND, '1970",
            "SELECT setting, set_config('statement_timeout'", "SELECT setting::float / 1000", "SELECT set_config('lock_timeout'",
            "SELECT @@SESSION.lock_wait_timeout", "SET SESSION lock_wait_timeout", "SELECT set_config('statement_timeout'", "ANALYZE",
            "SELECT @@session.optimizer_switch", "SET SESSION optimizer_switch",
        )  # fmt: skip
        return [each for each in super().captured_queries if not each["sql"].startswith(own)]


def statements():
    return Statements(connection)


def database_url():
    """The URL of the test database, for another process."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    scheme = {"postgresql": "postgresql", "mysql": "mysql"}[connection.vendor]
    password = f":{quote(settings['PASSWORD'])}" if settings["PASSWORD"] else ""
    port = f":{settings['PORT']}" if settings["PORT"] else ""
    return f"{scheme}://{settings['USER']}{password}@{settings['HOST']}{port}/{settings['NAME']}"


def environment(**more):
    settings = {
        "DATABASE_URL": database_url(),
        "ARCHIVE_DATABASE": str(connections["archive"].settings_dict["NAME"]),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
    }
    return {**os.environ, **settings, **more}


def reconcile_command(*arguments):
    return [sys.executable, "-c", "from reconcile.cli import main; main()", *arguments]


class Session(threading.Thread):
    """A thread with connections of its own; `join()` raises what it raised."""

    def __init__(self, act):
        super().__init__(daemon=True)
        self.act = act
        self.error = None
        self.result = None

    def run(self):
        try:
            self.result = self.act()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()

    def join(self, timeout=60):
        super().join(timeout)
        assert not self.is_alive(), "the session hangs"
        if self.error:
            raise self.error
        return self.result
