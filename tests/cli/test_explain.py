import json

import django
import pytest
from django.db import connection

from sample_project.shop.models import Invoice, Order
from tests.cli.test_cli import lacking, rules, run, run_json
from tests.helpers import ROOT, an_hour_ago, environment, everything
from tests.processes import run_reconcile
from tests.zoo.models import Basket, Device

__all__ = ["lacking", "rules"]

LOOSE = "r = Rule(every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')}))"


def words(text):
    return " ".join(text.split())


def test_a_link_without_an_index_is_warned_of_once_with_the_statement(db, rules):
    rules(LOOSE)
    code, out, err = run("explain", "own.r")
    assert (code, err) == (0, "")
    assert out.count("warning") == 1
    assert "zoo_bill is looked up by basket_number, and no index begins with that." in words(out)
    assert "CREATE INDEX" in out
    assert 'models.Index(fields=["basket_number"])' in out


@pytest.mark.django_db
def test_a_link_with_an_index_is_not():
    assert "warning" not in run("explain", "orders.invoice")[1]


@pytest.mark.once
def test_the_json_of_an_explanation_is_exactly_the_documented_object(db, rules):
    rules(LOOSE)
    code, report = run_json("explain", "own.r")
    assert code == 0
    assert list(report) == [
        "version", "rule", "database", "sentence", "reason", "guarantee", "remarks", "in_vain", "lift", "settle", "drifts",
    ]  # fmt: skip
    missing, extra = report["drifts"]
    assert (missing["drift"], extra["drift"]) == ("missing", "extra")
    assert list(missing) == ["drift", "remedy", "windows", "python", "sql", "plan", "unindexed", "advice"]
    assert (missing["advice"], "where=" in extra["advice"]) == (None, True)
    (unindexed,) = missing["unindexed"]
    assert list(unindexed) == ["table", "columns", "create", "django"]
    assert (unindexed["table"], unindexed["columns"]) == ("zoo_bill", ["basket_number"])


def test_the_constraint_that_would_lift_a_rule_is_named(db, rules):
    rules(LOOSE)
    declared = 'models.UniqueConstraint(fields=["basket_number"], name="zoo_bill_basket_number_once")'
    _, out, _ = run("explain", "own.r")
    assert (
        f"In Meta.constraints of zoo.Bill this would lift the guarantee to constraint:\n  {declared}" in out
    )
    assert run_json("explain", "own.r")[1]["lift"] == {
        "model": "zoo.Bill", "fields": ["basket_number"], "django": declared, "why_not": None, "foreign": False,
    }  # fmt: skip


def test_a_constraint_that_this_database_does_not_know_is_named_with_that(db, rules):
    rules(
        "from django.db.models import Q\n"
        "r = Rule(every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')}, where=Q(kind='x')))"
    )
    _, out, _ = run("explain", "own.r")
    why = run_json("explain", "own.r")[1]["lift"]["why_not"]
    assert 'condition=models.Q(kind="x")' in out
    if connection.features.supports_partial_indexes:
        assert (why, "this would lift the guarantee to constraint:" in out) == (None, True)
    else:
        assert why == "This database has no unique constraints with a condition."
        assert f"this would not lift the guarantee here. {why}" in words(out)


def test_where_no_constraint_would_lift_a_rule_that_is_said(db, rules):
    rules("r = Rule(every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')}, count=2))")
    _, out, _ = run("explain", "own.r")
    lift = run_json("explain", "own.r")[1]["lift"]
    assert (lift["model"], lift["fields"], lift["django"]) == (None, [], None)
    assert f"No unique constraint would lift the guarantee. {lift['why_not']}" in words(out)


@pytest.mark.django_db
def test_a_rule_that_a_constraint_covers_has_nothing_to_lift():
    assert run_json("explain", "orders.invoice")[1]["lift"] is None
    assert "lift" not in run("explain", "orders.invoice")[1]


@pytest.mark.once
@pytest.mark.django_db
def test_what_settles_is_said_in_json():
    settle = run_json("explain", "orders.invoice")[1]["settle"]
    assert settle == {"column": "created_at", "seconds": 900.0}


@pytest.mark.once
def test_output_goes_to_a_file(db, rules, tmp_path):
    rules(LOOSE)
    Basket.objects.create(pk=1)
    for arguments in (["own.r"], ["own.r", "--key", "1"]):
        for form in ("text", "json"):
            path = tmp_path / form
            code, out, _ = run("explain", *arguments, "--format", form, "--output", str(path))
            assert (code, out) == (0, "")
            assert "own.r" in path.read_text()
        json.loads((tmp_path / "json").read_text())


@pytest.mark.once
def test_sql_is_never_broken_or_cut_however_narrow_the_terminal(db, rules):
    names = ", ".join(f"'{'x' * 30}{number}'" for number in range(20))
    rules(f"r = Rule(every=Basket.objects.filter(label__in=[{names}]), must=HaveValues(note='y'))")
    _, out, _ = run("explain", "own.r")
    _, report = run_json("explain", "own.r")
    for line in report["drifts"][0]["sql"].split("\n"):
        assert line.rstrip() in out


@pytest.mark.once
def test_words_in_brackets_are_not_taken_for_styles(db, rules):
    rules("r = Rule(every=Basket.objects.filter(label='[bold]x[/bold]'), must=HaveValues(note='[red]'))")
    Basket.objects.create(pk=1, label="[bold]x[/bold]")
    for arguments in (["own.r"], ["own.r", "--key", "1"]):
        out = run("explain", *arguments)[1]
        assert "[bold]x[/bold]" in out
        assert "[red]" in out


@pytest.mark.once
def test_a_rule_that_never_finds_anything_is_explained(db, rules):
    rules("r = Rule(every=Basket.objects.none(), must=HaveValues(label='x'))")
    code, out, _ = run("explain", "own.r")
    assert (code, "never any rows" in out) == (0, True)


@pytest.mark.once
def test_where_python_tells_what_drifts_a_sentence_says_so(db, rules):
    rules(
        "from tests.detect.test_explaining import Sifting, Silent\n"
        "a = Rule(every=Basket, must=Sifting(label='x'))\nb = Rule(every=Basket, must=Silent(label='x'))"
    )
    code, out, _ = run("explain", "own.a")
    assert (code, "SELECT" in out, "Python tells which of them drift" in out) == (0, True, True)
    code, out, _ = run("explain", "own.b")
    assert (code, "SELECT" in out, "Python tells which of them drift" in out) == (0, False, True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("more", [[], ["--key", "1"], ["--format", "json"]])
def test_a_table_that_is_missing_exits_with_3(rules, more):
    rules("r = Rule(every=Ghost, must=HaveValues(value=1))")
    code, out, err = run("explain", "own.r", *more)
    assert (code, out) == (3, "")
    assert "manage.py migrate" in err
    assert "Traceback" not in err


def test_a_key_s_record_is_shown_with_what_it_owes(lacking):
    before = everything()
    code, out, err = run("explain", "orders.invoice", "--key", lacking[0])
    assert (code, err) == (0, "")
    said = words(out)
    assert f"shop.Order {lacking[0]} a record of every=, old enough to be judged" in said
    assert "missing yes Insert: a repair would insert 1 row" in said
    assert "stale no" in said
    assert "a new shop.Invoice is owed" in said
    assert f"order_id {lacking[0]}" in said
    assert "Guarantee constraint" in said
    assert everything() == before


def test_a_key_s_record_is_shown_with_what_is_there(lacking):
    Invoice.objects.bulk_create([Invoice(pk=70_001, order_id=lacking[0], amount=5)])
    said = words(run("explain", "orders.invoice", "--key", lacking[0])[1])
    assert "shop.Invoice 70001 is there" in said
    assert "amount 5.00 0.00" in said
    assert "stale yes Update: a repair would update 1 row" in said
    Order.objects.filter(pk=lacking[0]).update(status="draft")
    said = words(run("explain", "orders.invoice", "--key", lacking[0])[1])
    assert "no record of every=, so it owes nothing Condition not met: not (status = 'draft')" in said
    assert "shop.Invoice 70001 is there, and nothing owes it: extra" in said
    said = words(run("explain", "orders.invoice", "--key", "70001")[1])
    assert "extra yes Report: a repair writes nothing, a person decides" in said


def test_a_young_record_is_said_to_be_young(db):
    Order.objects.bulk_create([Order(pk=70_002)])
    said = words(run("explain", "orders.invoice", "--key", "70002")[1])
    assert "left alone until" in said
    assert "missing not yet Insert: a repair would then insert 1 row" in said


@pytest.mark.once
def test_what_python_makes_is_said_to_be(db, rules):
    rules(
        "from tests.zoo.models import Badge, Device\n"
        "r = Rule(every=Device, must=HaveRow(Badge, link={'device': F('pk')}, values={'name': F('name')}))"
    )
    device = Device.objects.create(name="d")
    code, out, _ = run("explain", "own.r", "--key", str(device.pk))
    assert (code, words(out).count("made in Python, once a row")) == (0, 2)


@pytest.mark.once
def test_the_json_of_a_key_is_exactly_the_documented_object(lacking):
    code, report = run_json("explain", "orders.invoice", "--key", lacking[0])
    assert code == 0
    assert list(report) == ["version", "rule", "database", "key", "sentence", "guarantee", "found"]
    (found,) = report["found"]
    assert list(found) == [
        "model", "key", "columns", "named_by_every", "unmet", "young_until", "linked", "linked_left_out", "drifts",
    ]  # fmt: skip
    assert (found["model"], found["key"], found["named_by_every"]) == ("shop.Order", lacking[0], True)
    missing = found["drifts"][0]
    assert (missing["drift"], missing["state"], missing["remedy"]) == ("missing", "drifted", "Insert")
    assert missing["would"]["insert"] == 1
    assert {"column": "amount", "owed": "0.00"} in missing["owed"][0]["columns"]


@pytest.mark.once
def test_values_that_a_terminal_would_obey_are_shown_and_not_sent(db, rules):
    rules("r = Rule(every=Basket, must=HaveValues(note='x'))")
    Basket.objects.create(pk=1, note="\x1b[31mred\x07 " + "long" * 100)
    _, out, _ = run("explain", "own.r", "--key", "1")
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out
    assert "characters)" in out


@pytest.mark.once
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("abc", "can't be a key of shop.Order, which is a whole number"),
        ("", "can't be a key of shop.Order"),
        ("99999999", "There is no shop.Order and no shop.Invoice with the key '99999999'."),
    ],
)
def test_a_key_of_nothing_exits_with_2(lacking, key, said):
    code, out, err = run("explain", "orders.invoice", "--key", key)
    assert (code, out) == (2, "")
    assert said in words(err)


@pytest.mark.once
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_it_all_runs_as_a_process():
    Order.objects.bulk_create([Order(pk=3, created_at=an_hour_ago())])
    for more in (["--format", "json"], ["--key", "3", "--format", "json"]):
        done = run_reconcile("explain", "orders.invoice", *more, env=environment())
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["rule"] == "orders.invoice"


@pytest.mark.once
@pytest.mark.process
def test_an_unreachable_database_exits_with_3(tmp_path):
    nowhere = environment(DATABASE_URL=f"sqlite:///{tmp_path}/no/such/folder/db.sqlite3")
    done = run_reconcile("explain", "orders.invoice", "--key", "1", env=nowhere)
    assert (done.returncode, done.stdout) == (3, "")
    assert "can't be reached" in done.stderr


def page(path, *more):
    return run("rules", "--format", "markdown", "--output", str(path), *more)


@pytest.mark.once
def test_a_page_is_written_and_then_up_to_date(tmp_path):
    file = tmp_path / "rules.md"
    assert page(file)[:2] == (0, "")
    assert file.read_text().startswith("# Rules\n")
    code, out, err = page(file, "--check")
    assert (code, out) == (0, "")
    assert "is up to date." in err


@pytest.mark.once
def test_a_page_goes_to_standard_output_as_well(tmp_path):
    file = tmp_path / "rules.md"
    page(file)
    assert run("rules", "--format", "markdown")[:2] == (0, file.read_text())


@pytest.mark.once
def test_a_stale_page_exits_with_1_and_says_what_changed_and_how_to_write_it(tmp_path):
    file = tmp_path / "rules.md"
    page(file, "--select", "owner:sales")
    before = file.read_text()
    file.write_text(before.replace("order_count = Count", "order_count is Count"))
    code, out, err = page(file, "--check")
    assert (code, out) == (1, "")
    assert "changed: customers.order_count; new: articles.slug, articles.keywords, categories.path," in words(
        err
    )
    assert f"Write it anew: reconcile rules --format markdown --output {file}" in err
    assert file.read_text() == before.replace("order_count = Count", "order_count is Count")
    _, _, err = page(file, "--check", "--select", "owner:sales")
    assert "changed: customers.order_count. Write" in words(err)
    assert f"reconcile rules --select owner:sales --format markdown --output {file}" in err


@pytest.mark.once
def test_a_page_that_is_not_there_or_no_text_exits_with_1(tmp_path):
    code, _, err = page(tmp_path / "rules.md", "--check")
    assert (code, "isn't there." in err) == (1, True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "rules.md").write_bytes(b"\xff\xfe\x00")
    code, _, err = page(tmp_path / "rules.md", "--check")
    assert (code, "can't be read" in err) == (1, True)


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [["--check", "--format", "markdown"], ["--check", "--output", "x"],
     ["--check", "--format", "json", "--output", "x"]],
)  # fmt: skip
def test_checking_what_is_no_page_exits_with_2(arguments):
    code, out, err = run("rules", *arguments)
    assert (code, out) == (2, "")
    assert "--format markdown --output FILE" in err


@pytest.mark.once
def test_line_ends_of_another_system_do_not_make_a_page_stale(tmp_path):
    file = tmp_path / "rules.md"
    page(file)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert page(file, "--check")[0] == 0


@pytest.mark.skipif(django.VERSION[:2] != (5, 2), reason="the page is made with Django 5.2")
def test_the_project_s_own_page_is_up_to_date():
    if connection.vendor == "sqlite":
        assert page(ROOT / "docs" / "catalogue.md", "--check")[0] == 0
    else:
        assert page(ROOT / "docs" / "catalogue.md", "--check")[0] == 1


@pytest.mark.django_db
def test_a_rule_that_is_not_about_the_database_is_not_explained_there(rules):
    rules("r = Rule(every=Basket, must=HaveValues(label='x'), databases=['archive'])")
    code, out, err = run("explain", "own.r")
    assert (code, out) == (2, "")
    assert "'own.r' is not about database 'default'. Give another --database." in words(err)
