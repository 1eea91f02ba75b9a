import subprocess
import sys
from datetime import timedelta

import django
import pytest
from django.db import connection
from django.db.models import Count, F, Q
from django.db.models.functions import Now

from reconcile import HaveRow, HaveValues, Rule, Settle
from reconcile.reports.markdown import catalogue, stale_in
from reconcile.rules.registry import valid_rules
from sample_project.shop.models import Invoice, Order
from tests.detect.test_explaining import Sifting, Silent
from tests.helpers import ROOT, environment
from tests.processes import run_reconcile
from tests.test_docs import anchors
from tests.zoo.models import Badge, Basket, Bill, Device, Ghost, Page, Team, Visit


def page(*rules):
    return catalogue(rules, using="default")


def rule(must=None, every=Basket, **options):
    return Rule(**{"every": every, "must": must or HaveValues(label="x"), "name": "own.r", **options})


@pytest.mark.once
def test_the_sample_project_s_page_is_up_to_date():
    if connection.vendor != "sqlite" or django.VERSION[:2] != (5, 2):
        pytest.skip("the page is made on SQLite with Django 5.2; others word some conditions otherwise")
    made = catalogue(list(valid_rules().values()), using="default")
    assert stale_in((ROOT / "docs" / "catalogue.md").read_text(), made) == ()


@pytest.mark.once
def test_each_fact_is_on_the_page():
    def receiver():
        """A receiver."""

    made = page(
        rule(
            HaveRow(Invoice, link={"order": F("pk")}, create_only={"amount": 1}),
            every=Order,
            settle=Settle("created_at", hours=26, minutes=1),
            owner="billing",
            tags=["a", "b"],
            reason="Because.",
            unattended=True,
            covers=[receiver],
        )
    )
    for line in (
        "## own.r", "Every order must have exactly 1 Invoice with order = pk, made with amount = 1.", "Because.", "| Owner | billing |",
        "| Tags | a, b |", "| Nightly job | repairs |", "| Remedies | missing: Insert, extra: Report |",
        "| Judged | 1 day 2 hours 1 minute after created_at |", "| Records | shop.Order |",
        "<summary>missing, in windows</summary>", "- [own.r](#ownr)",
    ):  # fmt: skip
        assert f"\n{line}\n" in made, line
    assert "test_each_fact_is_on_the_page.&lt;locals&gt;.receiver |" in made
    assert "| Guarantee | constraint: " in made


@pytest.mark.once
def test_what_a_rule_does_not_say_is_left_out():
    made = page(rule())
    assert not any(f"| {fact} |" in made for fact in ("Owner", "Tags", "Judged", "Stands in for"))
    assert "| Nightly job | reports |" in made


@pytest.mark.once
@pytest.mark.parametrize(
    ("every", "must"),
    [
        (Basket, HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("total")})),
        (Device, HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")})),
        (Page, HaveRow(Visit, link={"page_code": F("pk")})),
        (Team, HaveValues(player_count=Count("players"))),
        (Team.objects.filter(players__age__gt=3), HaveValues(name="x")),
        (Ghost, HaveValues(value=1)),
        (Basket.objects.none(), HaveValues(label="x")),
        (Basket, Sifting(label="x")),
        (Basket, Silent(label="x")),
    ],
)
def test_every_kind_of_key_and_of_statement_has_its_sql(every, must):
    made = page(rule(must, every))
    assert made.count("<details>") == made.count("```sql") == made.count("</details>") >= 1


@pytest.mark.once
@pytest.mark.parametrize("key", ["basket_number", "device"])
def test_a_window_has_names_in_the_place_of_keys(key):
    must = HaveRow(Badge, link={"device": F("pk")}) if key == "device" else None
    made = page(rule(must, Device if must else Basket)).replace("`", '"')
    assert '."id" > :after' in made
    assert '."id" <= :upto' in made


@pytest.mark.once
def test_the_clock_is_a_name_too():
    every = Basket.objects.filter(seen_at__lt=Now() - timedelta(days=1))
    made = page(rule(every=every, settle=Settle("day", days=2)), rule(every=Order, settle=Settle("created_at", minutes=1), must=HaveValues(total=1)))  # fmt: skip
    assert ":now - 2 days" in made
    assert ":now - 1 minute" in made
    assert "2345" not in made


@pytest.mark.once
@pytest.mark.process
def test_lists_that_were_sets_are_in_order_in_every_process():
    code = """
import django; django.setup()
from django.db.models import Q
from reconcile import *
from django.db.models import F, Count
from reconcile.reports.markdown import catalogue
from tests.zoo.models import *
names = {"a", "b", "c", "d", "e", "f"}
rules = [
    Rule(every=Basket.objects.filter(label__in=names), must=HaveRow(Bill, link={"basket_number": F("pk")}, where=Q(kind__in=names)), name="r"),
    Rule(every=Team.objects.filter(name__in=names), must=HaveValues(player_count=Count("players")), name="s"),
]
print(catalogue(rules, using="default"))
"""
    pages = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment(PYTHONHASHSEED=seed), cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(pages) == 1
    assert "'a', 'b', 'c', 'd', 'e', 'f'" in pages.pop()


@pytest.mark.once
def test_names_and_constants_are_shown_as_they_are():
    made = page(
        rule(
            HaveValues(label="</details><script>*a* `b` [c](d) |e| &amp; $f$ _g_ ```\n## h"),
            reason="1. first\n- second <b>",
            owner="a|b",
            name="- odd*name <i>",
            tags=["#x"],
        )
    )
    prose = "\n".join(line for line in made.split("```sql")[0].split("\n"))
    assert "<script>" not in prose
    assert "<b>" not in prose
    assert (
        "&lt;/details&gt;&lt;script&gt;\\*a\\* \\`b\\` \\[c\\](d) \\|e\\| &amp;amp; \\$f\\$ \\_g\\_" in prose
    )
    assert "\n1\\. first - second &lt;b&gt;\n" in made
    assert "| Owner | a\\|b |" in made
    assert "\n## \\- odd\\*name &lt;i&gt;\n" in made
    assert "\n````sql\n" in made


@pytest.mark.once
def test_headings_that_read_alike_are_told_apart():
    made = page(rule(name="a.b"), rule(name="ab"), rule(name="A B"))
    assert "- [a.b](#ab)\n- [ab](#ab-1)\n- [A B](#a-b)\n" in made
    assert {"ab", "a-b"} <= anchors(made)


@pytest.mark.once
def test_an_address_in_memory_is_left_out():
    class Odd(HaveValues):
        def sentence(self, model):
            return f"please {object()!r}"

    assert "&lt;object object&gt;" in page(rule(Odd(label="x")))


@pytest.mark.once
def test_a_page_that_is_the_same_is_not_stale():
    assert stale_in(page(rule()) + "\n\n", page(rule())) == ()


@pytest.mark.once
def test_what_is_stale_is_named():
    a, b, c = (rule(name=name) for name in ("a", "b*", "c"))
    assert stale_in(page(a, b), page(a, replaced(b), c)) == ["changed: b*", "new: c"]
    assert stale_in(page(a, b), page(a)) == ["gone: b*"]
    assert stale_in(page(a, b), page(b, a)) == ["its head or its order changed"]
    assert stale_in("", page(a)) == ["new: a"]
    assert stale_in("x" + page(a), page(a)) == ["its head or its order changed"]


def replaced(old):
    return rule(HaveValues(label="y"), name=old.name)


@pytest.mark.once
@pytest.mark.process
@pytest.mark.parametrize(
    "url",
    ["sqlite:////no/such/folder/db", "postgresql://x@127.0.0.1:1/no", "mysql://x@127.0.0.1:1/no"],
)
def test_no_database_is_needed(url):
    driver = {"postgresql": "psycopg", "mysql": "MySQLdb"}.get(url.partition(":")[0])
    if driver:
        pytest.importorskip(driver)
    done = run_reconcile("rules", "--format", "markdown", env=environment(DATABASE_URL=url))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# Rules\n")


@pytest.mark.django_db
def test_compiling_for_a_page_leaves_the_connection_as_it_was():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    features = connection.features
    told = {key: value for key, value in vars(connection).items() if key.startswith(("mysql", "sql_mode"))}
    page(rule(HaveValues(player_count=Count("players", filter=Q(players__age__gt=3))), Team))
    assert connection.features is features
    now = {key: value for key, value in vars(connection).items() if key.startswith(("mysql", "sql_mode"))}
    assert now == told
