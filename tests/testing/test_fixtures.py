"""Fixtures in a database of their own: what is made, what is loaded, what is said, and what is left untouched."""

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from zipfile import ZipFile

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.db.models import F
from django.db.models.signals import m2m_changed, post_migrate, post_save
from django.utils import timezone

from reconcile import EXTRA, MISSING, Delete, HaveRow, HaveValues, Rule, Settle
from reconcile.detect.checking import check
from reconcile.errors import EvaluationError, FixtureError
from reconcile.testing.fixtures import Places, find_origins, load, throwaway_database
from sample_project.shop.models import Access, Article, Group, Invoice, Keyword, Order
from tests.helpers import ROOT, environment
from tests.zoo.models import Basket

pytestmark = pytest.mark.django_db(databases=["default", "archive"])

OLD = "2025-01-01T00:00:00Z"
invoice = Rule(
    every=Order,
    must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
    remedies={EXTRA: Delete()},
    name="invoice",
)


def an(model, key, **fields):
    return {"model": model, **({} if key is None else {"pk": key}), "fields": fields}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a fixture into the folder that one stands in; its path, as a person gives it."""
    monkeypatch.chdir(tmp_path)

    def write(objects, name="shop.json"):
        Path(name).write_text(objects if isinstance(objects, str) else json.dumps(objects))
        return Path(name)

    return write


@pytest.fixture
def unmigrated(monkeypatch):
    """Throw-away databases take a second and not four: tables are made from the models."""
    for settings in connections.settings.values():
        monkeypatch.setitem(settings["TEST"], "MIGRATE", False)


def names_of_databases():
    """What the server has; nothing where there is no server."""
    listed = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}
    if connection.vendor not in listed:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(listed[connection.vendor])
        return {name for (name,) in cursor.fetchall()}


def found(rule, places, now=None):
    """The rule's samples as pairs of key and origin."""
    now = now or timezone.now()
    result = check(rule, using="default", now=now, samples=100)
    assert result.error is None, result.error
    said = find_origins([result], places, using="default", now=now)
    return {sample.key: said[rule.name, sample.key] for sample in result.samples}


def refused(*files):
    with pytest.raises(FixtureError) as error:
        load(files, using="default")
    return str(error.value)


# The throw-away database.


def test_the_database_is_made_by_migrations_unless_the_settings_say_otherwise(monkeypatch):
    with throwaway_database("default"):
        assert "django_migrations" in connection.introspection.table_names()
    monkeypatch.setitem(connections.settings["default"]["TEST"], "MIGRATE", False)
    with throwaway_database("default"):
        tables = connection.introspection.table_names()
    assert Order._meta.db_table in tables
    assert "django_migrations" not in tables


def test_the_database_is_an_empty_one_of_the_configured_engine_and_is_gone_afterwards():
    Order.objects.create()
    configured, vendor = connection.settings_dict["NAME"], connection.vendor
    with throwaway_database("default") as name:
        assert (Order.objects.count(), connection.vendor) == (0, vendor)
        assert connection.settings_dict["NAME"] == name != configured
        assert vendor == "sqlite" or name in names_of_databases()
        Order.objects.bulk_create([Order(), Order()])
    assert (Order.objects.count(), connection.settings_dict["NAME"]) == (1, configured)
    assert name not in names_of_databases()


@pytest.mark.usefixtures("unmigrated")
def test_two_of_them_at_once_have_different_names():
    with throwaway_database("default") as one, throwaway_database("default") as other:
        assert one != other


@pytest.mark.usefixtures("unmigrated")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_database_is_gone_after_an_error_and_an_interruption(error):
    configured = connection.settings_dict["NAME"]
    with pytest.raises(error), throwaway_database("default") as name:
        throwaway = connections["default"]
        raise error
    assert throwaway.connection is None
    assert name not in names_of_databases()
    assert connection.settings_dict["NAME"] == configured


@pytest.mark.usefixtures("unmigrated")
def test_the_configured_connection_is_the_same_one_afterwards_in_the_same_transaction():
    before = connections["default"]
    with transaction.atomic():
        with throwaway_database("default"):
            assert connections["default"] is not before
        assert connections["default"] is before
        assert before.in_atomic_block


def test_no_statement_reaches_the_configured_database(written):
    path = written([an("shop.order", 1, created_at=OLD)])
    said = []

    def listen(execute, sql, params, many, context):
        said.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(listen):
        with throwaway_database("default"):
            assert found(invoice, load([path], using="default")) != {}
        assert said == []
        Order.objects.count()
    assert len(said) == 1


@pytest.mark.usefixtures("unmigrated")
def test_every_other_database_is_a_throw_away_one_too():
    Basket.objects.using("archive").create()
    archive = connections["archive"].settings_dict["NAME"]
    with throwaway_database("default") as name:
        assert connections["archive"].settings_dict["NAME"] not in {name, archive}
        assert Basket.objects.using("archive").count() == 0
        Basket.objects.using("archive").create()
        Basket.objects.using("archive").create()
    assert connections["archive"].settings_dict["NAME"] == archive
    assert Basket.objects.using("archive").count() == 1


@pytest.mark.usefixtures("unmigrated")
def test_another_database_than_the_default_can_be_asked_for():
    Order.objects.create()
    with throwaway_database("archive") as name:
        assert connections["archive"].settings_dict["NAME"] == name
        assert (Order.objects.using("archive").count(), Order.objects.count()) == (0, 0)
    assert Order.objects.count() == 1


@pytest.mark.usefixtures("unmigrated")
def test_a_mirror_of_the_database_is_the_same_database(monkeypatch):
    monkeypatch.setitem(connections.settings["archive"]["TEST"], "MIRROR", "default")
    with throwaway_database("default"):
        Order.objects.create()
        assert Order.objects.using("archive").count() == 1


@pytest.mark.usefixtures("unmigrated")
def test_options_that_lead_to_the_configured_database_are_left_out(monkeypatch):
    options = {
        **connections.settings["default"]["OPTIONS"],
        "pool": True,
        "database": "shop",
        "dbname": "shop",
    }
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    with throwaway_database("default") as name:
        assert {"pool", "database", "dbname"}.isdisjoint(connection.settings_dict["OPTIONS"])
        assert connection.settings_dict["NAME"] == name


@pytest.mark.usefixtures("unmigrated")
def test_content_types_are_those_of_the_database_that_one_is_in():
    before = ContentType.objects.get_for_model(Order).pk
    with throwaway_database("default"):
        ContentType.objects.get_for_model(Order).delete()
        ContentType.objects.clear_cache()
        assert ContentType.objects.get_for_model(Order).pk > before
    assert ContentType.objects.get_for_model(Order).pk == before


@pytest.mark.usefixtures("unmigrated")
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [(LookupError("no row"), EvaluationError, "LookupError: no row"), (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C")],
)  # fmt: skip
def test_a_database_that_is_only_half_made_is_gone_too(error, raised, said):
    configured, made = connection.settings_dict["NAME"], []

    def fail(using, **_):
        made.append(str(connections[using].settings_dict["NAME"]))
        raise error

    post_migrate.connect(fail)
    try:
        with pytest.raises(raised, match=said), throwaway_database("default"):
            pass
    finally:
        post_migrate.disconnect(fail)
    assert len(made) == 1
    assert names_of_databases().isdisjoint(made)
    assert connection.settings_dict["NAME"] == configured


@pytest.mark.server
def test_a_server_that_refuses_the_database_is_an_error_with_what_it_said(monkeypatch):
    wrong = {**connections.settings["default"]["TEST"], "CHARSET": "nonsense"}
    monkeypatch.setitem(connections.settings["default"], "TEST", wrong)
    with pytest.raises(EvaluationError, match=r"can't be made\..*nonsense"), throwaway_database("default"):
        pass
    assert connection.settings_dict["TEST"] is wrong


# Loading.


@pytest.mark.once
def test_each_format_is_loaded_and_its_objects_are_known_again(written):
    orders = [Order(pk=key, created_at=timezone.now() - timedelta(days=1)) for key in (7, 12)]
    for form in ("json", "jsonl", "yaml", "xml"):
        path = written(serializers.serialize(form, orders), f"shop.{form}")
        origin = f"shop.{form}: shop.order"
        assert found(invoice, load([path], using="default")) == {"7": f"{origin} 7", "12": f"{origin} 12"}


def zipped(content):
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("anything.json", content)
    return packed.getvalue()


@pytest.mark.once
def test_an_archive_of_several_files_is_refused(written):
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    path = written("", "shop.json.zip")
    path.write_bytes(packed.getvalue())
    assert refused(path).startswith("Fixture 'shop.json.zip' can't be loaded: an archive of one file is read")


@pytest.mark.once
def test_a_compressed_file_is_loaded(tmp_path):
    for suffix, packed in (
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zip", zipped),
    ):
        path = tmp_path / suffix / f"shop.json.{suffix}"
        path.parent.mkdir()
        path.write_bytes(packed(json.dumps([an("shop.order", 7, created_at=OLD)]).encode()))
        assert found(invoice, load([path], using="default")) == {"7": f"{path}: shop.order 7"}


@pytest.mark.once
def test_several_files_are_loaded_in_their_order_and_the_last_that_has_an_object_counts(written):
    first = written([an("shop.order", 1, status="draft"), an("shop.order", 2)], "first.json")
    last = written([an("shop.order", 1, status="paid")], "last.json")
    places = load([first, last], using="default")
    assert Order.objects.get(pk=1).status == "paid"
    assert found(invoice, places) == {"1": "last.json: shop.order 1", "2": "first.json: shop.order 2"}


def test_natural_keys_and_references_to_later_objects_are_loaded(written):
    path = written(
        [
            an("shop.note", 1, content_type=["shop", "order"], object_id="4"),
            an("shop.group", 1, name="circle", members=[["ada"]]),
            an("auth.user", None, username="ada", password="x"),
            an("shop.order", 4),
        ]
    )
    load([path], using="default")
    assert [user.username for user in Group.objects.get().members.all()] == ["ada"]


@pytest.mark.usefixtures("unmigrated")
def test_fixtures_are_loaded_into_another_database_by_its_alias(written):
    path = written([an("shop.order", 7, created_at=OLD)])
    with throwaway_database("archive"):
        places = load([path], using="archive")
        assert list(places.find({(Order, "7")})) == [(Order, "7")]
        assert Order.objects.using("archive").count() == 1


@pytest.mark.once
def test_a_fixture_that_cannot_be_loaded_is_named_with_its_object(written):
    members = [an("shop.group", 2, name="x", members=[["nobody"]])]
    for objects, said in (
        (
            [an("shop.order", 1), an("shop.odrer", 12)],
            "shop.odrer 12: there is no model 'shop.odrer'. Did you mean 'shop.order'?",
        ),
        (
            [an("shop.order", 1), an("shop.order", 12, totl=3)],
            "shop.order 12: Order has no field named 'totl'. Did you mean 'total'?",
        ),
        ([an("shop.order", 12, total="x")], "shop.order 12: '“x” value must be a decimal number.'; the value is x."),
        ('[{"model": "shop.order" "pk": 1}]', "it is no JSON: Expecting ',' delimiter, line 1, column 25."),
        ([], "it holds no objects."),
        ([{"model": "shop.order", "pk": 3}], "shop.order 3: KeyError: 'fields'."),
        (members, "shop.group 2: User matching query does not exist; the value is ['nobody']."),
    ):  # fmt: skip
        assert refused(written(objects)) == f"Fixture 'shop.json' can't be loaded: {said}"
        assert Order.objects.count() == 0


@pytest.mark.once
def test_a_file_that_cannot_be_read_is_named_in_each_format(written):
    for name, text, said in (
        ("a.jsonl", '{"model": "shop.order", "pk": 1, "fields": {"nix": 1}}', "shop.order 1: Order has no field named 'nix'."),
        ("b.xml", "<django-objects><object></django-objects>", "it is no XML: mismatched tag, line 1, column"),
        ("c.yaml", "- model: shop.order\n  pk: 1\n   fields: {}", "it is no YAML: mapping values are not allowed"),
        ("d.yaml", "- {model: shop.order, pk: 1, fields: {nix: 1}}", "object 1: Order has no field named 'nix'."),
        ("e.txt", "x", "txt is not a known serialization format."),
        ("f.json.gz", "x", "it can't be read: Not a gzipped file"),
    ):  # fmt: skip
        assert refused(written(text, name)).startswith(f"Fixture {name!r} can't be loaded: {said}")


@pytest.mark.once
def test_two_files_of_one_name_are_refused_as_loaddata_refuses_them(written):
    path = written([an("shop.order", 1)])
    Path("shop.json.gz").write_bytes(gzip.compress(b"[]"))
    assert "Multiple fixtures named 'shop'" in refused(path)


@pytest.mark.usefixtures("unmigrated")
def test_a_reference_to_nothing_is_named_with_its_object_on_the_configured_engine(written):
    path = written(
        [
            an("shop.order", 1),
            an("shop.item", 5, order=99),
            an("shop.group", 2, name="x", members=[77]),
        ]
    )
    with throwaway_database("default"):
        assert refused(path) == (
            "The fixtures can't be loaded: they refer to what is in none of them:\n"
            "  shop.json: shop.group 2: members: there is no auth.user 77.\n"
            "  shop.json: shop.item 5: order: there is no shop.order 99."
        )
        assert Order.objects.count() == 0
        again = written([an("shop.invoice", key, order=1, amount=1) for key in (1, 2)], "again.json")
        said = refused(written([an("shop.order", 1)]), again)
        assert said.startswith("Fixture 'again.json' can't be loaded: shop.invoice 2: ")
        assert "uplicate" in said or "UNIQUE" in said
        needed = written(
            [an("auth.permission", 5_000, name="q", codename="q", content_type=["shop", "nope"])]
        )
        assert "What it refers to isn't there, or comes later: content_type ['shop', 'nope']." in refused(
            needed
        )


@pytest.mark.once
def test_many_references_to_nothing_are_cut_short(written):
    said = refused(written([an("shop.item", key, order=99) for key in range(1, 9)]))
    assert said.count("there is no shop.order 99") == 5
    assert said.endswith("… and more")


@pytest.mark.usefixtures("unmigrated")
def test_a_file_of_which_nothing_is_kept_on_the_database_is_refused(written):
    path = written([an("zoo.visit", 1)])
    with (
        throwaway_database("archive"),
        pytest.raises(FixtureError, match="none of its objects is kept on database"),
    ):
        load([path], using="archive")


# Receivers.


@pytest.fixture
def heard():
    """What a receiver hears of groups and their members; it raises where it is told to."""
    said = []

    def saved(*, raw, **_):
        said.append(("saved", raw))

    def changed(*, action, **_):
        said.append((action, None))

    post_save.connect(saved, sender=Group)
    m2m_changed.connect(changed, sender=Group.members.through)
    yield said
    post_save.disconnect(saved, sender=Group)
    m2m_changed.disconnect(changed, sender=Group.members.through)


CIRCLE = [
    an("auth.user", 1, username="ada", password="x"),
    an("shop.group", 1, name="circle", members=[1], member_count=7),
]


@pytest.mark.once
def test_receivers_are_called_with_raw_and_may_mend_what_the_file_has_wrong(written, heard):
    load([written(CIRCLE)], using="default")
    assert heard == [("saved", True), ("pre_add", None), ("post_add", None)]
    assert (Group.objects.get().member_count, Access.objects.count()) == (1, 1)


@pytest.mark.once
def test_as_written_no_receiver_is_called_and_the_rows_are_what_the_file_says(written, heard):
    load([written(CIRCLE)], using="default", as_written=True)
    assert heard == []
    assert (Group.objects.get().member_count, Access.objects.count()) == (7, 0)
    Group.objects.create(name="later")
    assert heard == [("saved", False)]


@pytest.mark.once
def test_a_receiver_that_raises_is_named_with_its_line(written):
    def fail(**_):
        raise LookupError("no settings row")

    post_save.connect(fail, sender=Group)
    try:
        said = refused(written(CIRCLE))
    finally:
        post_save.disconnect(fail, sender=Group)
    assert said.startswith(
        "Fixture 'shop.json' can't be loaded: shop.group 1: LookupError: no settings row ("
    )
    assert f"{Path(__file__).name}:{fail.__code__.co_firstlineno + 1})" in said
    assert said.endswith(
        "A receiver raised it. If the rows are to be what the files say, call none: --as-written."
    )


@pytest.mark.usefixtures("unmigrated")
def test_what_receivers_put_off_until_the_commit_is_not_done(written):
    done = []

    def later(**_):
        transaction.on_commit(lambda: done.append(1))

    post_save.connect(later, sender=Group)
    try:
        with throwaway_database("default"):
            load([written(CIRCLE)], using="default")
            assert done == []
            Group.objects.create(name="by hand")
            assert done == [1]
    finally:
        post_save.disconnect(later, sender=Group)


# Origins.


@pytest.mark.once
def test_a_row_that_no_fixture_has_is_said_to_be_a_receivers(written):
    path = written([an("shop.article", 1, title="t", body="#tea")])
    places = load([path], using="default")
    rule = Rule(
        every=Article.objects.filter(title="none"),
        must=HaveRow(Keyword, link={"article": F("pk")}),
        name="none",
    )
    word = Keyword.objects.get()
    assert found(rule, places) == {
        str(word.pk): f"shop.keyword {word.pk}, in no fixture: a migration or a receiver wrote it"
    }


@pytest.mark.once
def test_a_surplus_row_is_traced_to_its_own_object_and_a_record_of_the_same_key_beside_it(written):
    path = written(
        [an("shop.order", key, created_at=OLD, status=status) for key, status in ((1, "draft"), (2, "paid"))]
    )
    invoices = written([an("shop.invoice", 2, order=1, amount=1)], "invoices.json")
    places = load([path, invoices], using="default", as_written=True)
    rule = Rule(
        every=Order.objects.exclude(status="draft"),
        must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
        name="paid",
    )
    assert found(rule, places) == {"2": "shop.json: shop.order 2; invoices.json: shop.invoice 2"}


@pytest.mark.once
def test_a_row_of_a_many_to_many_column_is_traced_to_the_object_with_the_column(written):
    places = load([written(CIRCLE)], using="default", as_written=True)
    access = Rule(
        every=Group.members.through,
        must=HaveRow(Access, link={"user": F("user"), "group": F("group")}),
        name="access",
    )
    assert list(found(access, places).values()) == ["shop.json: shop.group 1"]


@pytest.mark.once
def test_an_object_without_a_key_is_named_by_its_natural_key_or_its_number(written):
    path = written(
        [an("auth.user", None, username="ada", password="x"), an("shop.order", None, created_at=OLD)]
    )
    places = load([path], using="default")
    named = Rule(every=User, must=HaveValues(first_name="Ada"), name="named")
    assert list(found(named, places).values()) == ['shop.json: auth.user ["ada"]']
    assert list(found(invoice, places).values()) == ["shop.json: shop.order number 2"]


@pytest.mark.once
def test_a_hundred_thousand_places_take_nine_bytes_each_and_are_found_by_reading_them_once():
    places = Places()
    places.start_file("large.json")
    for key in range(100_000):
        places.add(Order, key, keyed=True)
    (file,) = places._files
    assert sys.getsizeof(file.objects) + sys.getsizeof(file.keyed) < 1_100_000
    found = places.find({(Order, str(key)) for key in range(99_990, 100_010)})
    assert {place.number for place in found.values()} == set(range(99_991, 100_001))


# Age.


@pytest.mark.once
def test_records_are_as_old_as_the_fixture_says(written):
    now = timezone.now()
    young = (now - timedelta(minutes=5)).isoformat()
    path = written(
        [an("shop.order", 1, created_at=OLD), an("shop.order", 2, created_at=young), an("shop.order", 3)]
    )
    places = load([path], using="default")
    rule = Rule(
        every=Order,
        must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
        settle=Settle("created_at", minutes=15),
        name="settled",
    )
    assert found(rule, places, now) == {"1": "shop.json: shop.order 1"}
    assert check(rule, using="default", now=now).tally.settling == 2
    assert check(rule, using="default", now=now + timedelta(hours=1)).tally[MISSING] == 3


# The shop's own.


@pytest.mark.once
@pytest.mark.process
def test_the_shops_fixtures_are_those_that_make_fixtures_writes(tmp_path):
    program = (
        f"from pathlib import Path; from sample_project.dumping import main; main(Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(), check=True)
    for name in ("broken.json", "mended.json"):
        assert (tmp_path / name).read_text() == (ROOT / "sample_project" / "fixtures" / name).read_text(), (
            name
        )


@pytest.mark.usefixtures("unmigrated")
def test_sigterm_drops_the_database_too():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), throwaway_database("default"):
        throwaway = connections["default"]
        os.kill(os.getpid(), signal.SIGTERM)
    assert throwaway.connection is None
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.server
@pytest.mark.usefixtures("unmigrated")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_the_database_is_dropped_waits_until_it_is_gone(number):
    interrupted = []

    def interrupt(**_):
        if not interrupted:
            interrupted.append(number)
            os.kill(os.getpid(), number)

    try:
        with pytest.raises(KeyboardInterrupt), throwaway_database("default") as name:
            # The next connection is the one that drops the database.
            connection_created.connect(interrupt)
    finally:
        connection_created.disconnect(interrupt)
    assert interrupted == [number]
    assert name not in names_of_databases()
