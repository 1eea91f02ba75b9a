"""Which guarantee a rule has, what it follows from, and which constraint would lift it."""

import pytest
from django.core import checks
from django.db import IntegrityError, connection, models
from django.db.models import Deferrable, Exists, F, Max, OuterRef, Q, UniqueConstraint, Value
from django.db.models.functions import Lower, Now
from django.test.utils import isolate_apps

from reconcile import (
    EXTRA,
    MISSING,
    AtLeast,
    AtMost,
    BeUnique,
    Call,
    Delete,
    Enqueue,
    HaveReceipt,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    Report,
    Rule,
)
from reconcile.core.drift import Guarantee
from reconcile.rules.unattended import unattended_refusal
from sample_project.shop.models import Invoice, Order
from tests.cli.test_cli import rules
from tests.helpers import statements
from tests.tables import model_of, table_of
from tests.zoo.models import (
    Basket,
    Bill,
    Contact,
    Loose,
    Memo,
    Mention,
    NamedTeam,
    Node,
    Note,
    Page,
    Player,
    Team,
    Vehicle,
    Word,
)
from tests.zoo.tasks import keep

__all__ = ["rules"]

LINK = {"basket_number": F("pk")}


def careless(*, instance, **_):
    Bill.objects.create(basket_number=instance.pk)


def bill(*covers, **options):
    must = options.pop("must", None) or HaveRow(Bill, link=LINK)
    return Rule(**{"name": "bill", "every": Basket, "must": must, "covers": covers, **options})


def level(rule):
    assert [str(fault) for fault in rule.faults()] == []
    return rule.guarantee("default")


def without_lock():
    """What a rule has whose link no constraint and no foreign key covers."""
    return Guarantee.NONE if connection.vendor == "mysql" else Guarantee.LOCK


def tables_to_lock(rule):
    from django.utils import timezone

    compiled = rule.compile(using="default", now=timezone.now())
    return {each.drift: each.lock.tables for each in compiled.finders if each.lock.tables}


# What covers a link.


@isolate_apps("tests.zoo")
def linked_model(*constraints, **meta):
    """A model of rows that a basket may owe, with these constraints."""

    class Row(models.Model):
        number = models.BigIntegerField(null=True)
        other = models.BigIntegerField(null=True)
        kind = models.CharField(max_length=10)
        active = models.BooleanField()
        text = models.TextField(default="")

        class Meta:
            app_label = "zoo"

    Row._meta.constraints = list(constraints)
    for name, value in meta.items():
        setattr(Row._meta, name, value)
    return Row


def linked(model, link=None, **options):
    return Rule(name="r", every=Basket, must=HaveRow(model, link=link or {"number": F("pk")}, **options))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("condition", "where", "covered"),
    [
        (Q(active=True), Q(active=True), True),
        (Q(active=True), Q(active=True, kind="x"), True),
        (Q(active=True), Q(kind="x") & Q(active=True), True),
        (Q(kind="x", active=True), Q(active=True) & Q(kind="x"), True),
        (Q(active=True), Q(), False),
        (Q(active=True), Q(active=False), False),
        (Q(kind="x", active=True), Q(active=True), False),
        (Q(active=True), Q(active=True) | Q(kind="x"), False),
        (Q(active=True), ~Q(active=True, kind="x"), False),
    ],
)
def test_a_conditional_constraint_counts_where_all_rows_that_count_meet_its_condition(
    condition, where, covered
):
    row = linked_model(UniqueConstraint(fields=["number"], condition=condition, name="once"))
    partial = connection.features.supports_partial_indexes
    assert (linked(row, where=where).guarantee("default") == Guarantee.CONSTRAINT) is (covered and partial)


@pytest.mark.django_db
def test_a_constant_of_the_link_is_a_condition_too():
    row = linked_model(UniqueConstraint(fields=["number"], condition=Q(kind="x"), name="once"))
    partial = connection.features.supports_partial_indexes
    assert (
        linked(row, {"number": F("pk"), "kind": "x"}).guarantee("default") == Guarantee.CONSTRAINT
    ) is partial
    assert linked(row, {"number": F("pk"), "kind": "y"}).guarantee("default") != Guarantee.CONSTRAINT


@pytest.mark.django_db
def test_a_constraint_on_more_than_the_link_covers_nothing():
    row = linked_model(UniqueConstraint(fields=["number", "kind"], name="once"))
    assert linked(row).guarantee("default") != Guarantee.CONSTRAINT
    assert linked(row, {"number": F("pk"), "kind": "x"}).guarantee("default") == Guarantee.CONSTRAINT


@isolate_apps("tests.zoo")
def test_a_constraint_of_an_inherited_table_covers_the_rows_that_continue_it():
    class Numbered(models.Model):
        number = models.IntegerField()

        class Meta:
            app_label = "zoo"
            constraints = (UniqueConstraint(fields=["number"], name="zoo_numbered_once"),)

    class Special(Numbered):
        size = models.IntegerField()

        class Meta:
            app_label = "zoo"

    class Alias(Special):
        class Meta:
            app_label = "zoo"
            proxy = True

    assert level(Rule(name="r", every=Special, must=BeUnique("number"))) == Guarantee.CONSTRAINT
    assert level(Rule(name="r", every=Alias, must=BeUnique("number"))) == Guarantee.CONSTRAINT
    assert level(Rule(name="r", every=Special, must=BeUnique("size"))) != Guarantee.CONSTRAINT


IMMEDIATE, DEFERRED = Deferrable.IMMEDIATE, Deferrable.DEFERRED


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"deferrable": IMMEDIATE},
        {"include": ["text"]},
        {"nulls_distinct": False},
        {"nulls_distinct": True},
        {"condition": Q(text="")},
        {"include": ["text"], "condition": Q(text="")},
        {"expressions": F("number")},
    ],
)
def test_a_constraint_covers_the_link_only_where_django_makes_it_on_this_database(options):
    """Elsewhere Django passes over it, and the table takes duplicates."""
    given = {"expressions": options["expressions"]} if "expressions" in options else {}
    options = {name: value for name, value in options.items() if name not in given}
    named = {"fields": ["number"]} if not given else {}
    constraint = UniqueConstraint(*given.values(), name="zoo_ledger_once", **named, **options)
    columns = {"number": models.BigIntegerField(), "text": models.CharField(max_length=9, default="")}
    with table_of("Ledger", columns, constraints=[constraint]) as ledger:
        ledger._base_manager.create(number=1)
        try:
            ledger._base_manager.create(number=1)
        except IntegrityError:
            refused = True
        else:
            refused = False
        assert (linked(ledger, where=Q(text="")).guarantee("default") == Guarantee.CONSTRAINT) is refused
        # Without duplicates an expression on a column alone covers that column's groups.
        assert (
            level(Rule(name="r", every=ledger.objects.filter(text=""), must=BeUnique("number")))
            == Guarantee.CONSTRAINT
        ) is refused


@pytest.mark.postgresql
def test_a_constraint_that_is_looked_at_at_commit_lets_no_duplicates_be_and_still_does_not_make_it_a():
    """A handler that looks and inserts would get its error at COMMIT, where it can't look again: the table is locked."""
    once = UniqueConstraint(fields=["number"], deferrable=DEFERRED, name="once")
    row = model_of("Own", {"number": models.BigIntegerField()}, constraints=[once])
    assert linked(row).guarantee("default") == Guarantee.LOCK
    assert tables_to_lock(linked(row)) == {MISSING: (row,)}
    assert "deferrable" not in linked(row).lift("default").django
    assert Rule(name="r", every=row, must=BeUnique("number")).guarantee("default") == Guarantee.CONSTRAINT


def test_the_constraints_of_a_table_that_django_does_not_make_are_not_known(settings):
    def unique(**meta):
        return model_of("Own", {"number": models.BigIntegerField(unique=True)}, **meta)

    once = UniqueConstraint(fields=["number"], name="once")
    assert linked(unique()).guarantee("default") == Guarantee.CONSTRAINT
    assert linked(unique(managed=False)).guarantee("default") == without_lock()
    assert linked(linked_model(once, managed=False)).guarantee("default") == without_lock()
    assert (
        Rule(name="r", every=unique(managed=False), must=BeUnique("number")).guarantee("default")
        == Guarantee.NONE
    )
    settings.DATABASE_ROUTERS = ["tests.kinds.test_guarantees.Nowhere"]
    assert linked(unique()).guarantee("default") == without_lock()


@pytest.mark.mariadb
def test_nor_are_its_foreign_keys():
    def referring(**meta):
        refers = {"team": models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")}
        row = model_of("Own", refers, **meta)
        return Rule(name="r", every=Team, must=HaveRow(row, link={"team": F("pk")}))

    assert (level(referring()), level(referring(managed=False))) == (Guarantee.LOCK, Guarantee.NONE)


@pytest.mark.parametrize(
    ("every", "must", "expected"),
    [
        (Node, BeUnique("name", others={"name": F("path")}), Guarantee.CONSTRAINT),
        (
            Node,
            BeUnique("name", "parent__pk", keep=["-depth"], others={"name": F("path")}),
            Guarantee.CONSTRAINT,
        ),
        (Node, BeUnique("name", keep=["-parent__depth"], others={"name": F("path")}), Guarantee.LOCK),
        (Node, BeUnique("name", "parent__name", others={"name": F("path")}), Guarantee.LOCK),
        (Node.objects.filter(parent__depth=1), BeUnique("name", others={"name": F("path")}), Guarantee.LOCK),
        (
            Node.objects.filter(parent__isnull=True),
            BeUnique("name", others={"name": F("path")}),
            Guarantee.CONSTRAINT,
        ),
        (
            Node.objects.filter(Exists(Node.objects.filter(parent=OuterRef("pk")))),
            BeUnique("name", others={"name": Value("x")}),
            Guarantee.LOCK,
        ),
    ],
)
def test_another_record_of_the_same_table_that_decides_which_one_goes_is_not_locked(every, must, expected):
    assert level(Rule(name="r", every=every, must=must)) == expected


# A lock on the table.


@pytest.mark.parametrize(
    ("rule", "table"),
    [
        (bill(), Bill),
        (bill(careless), Bill),
        (bill(must=HaveRow(Bill, link=LINK, count=3)), Bill),
        (bill(must=HaveRow(Bill, link=LINK, count=AtLeast(1))), Bill),
        (bill(every=Team, must=HaveRow(Player, link={"team": F("pk")})), Player),
    ],
)
def test_on_postgresql_the_table_is_locked_where_no_constraint_covers_the_link(rule, table):
    locked = connection.vendor == "postgresql"
    assert tables_to_lock(rule) == ({MISSING: (table,)} if locked else {})
    if locked:
        assert level(rule) == Guarantee.LOCK


@pytest.mark.parametrize(
    "rule",
    [
        bill(every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})),
        bill(remedies={MISSING: Enqueue(keep)}),
        bill(must=HaveRow(Bill, link=LINK, count=AtMost(1))),
        bill(remedies={MISSING: Call(careless)}),
        bill(remedies={MISSING: Report()}),
        bill(every=Vehicle, must=HaveValues(wheels=4)),
    ],
)
def test_no_table_is_locked_where_that_is_needless_or_a_function_would_hold_it(rule):
    assert tables_to_lock(rule) == {}


def test_a_rule_that_calls_a_function_has_no_table_lock_and_so_no_guarantee_of_it():
    expected = {"postgresql": Guarantee.NONE, "mysql": Guarantee.NONE, "sqlite": Guarantee.LOCK}[
        connection.vendor
    ]
    assert bill(remedies={MISSING: Call(careless)}).guarantee("default") == expected


@pytest.mark.parametrize(
    ("every", "must", "checked"),
    [
        (Team, HaveRow(Player, link={"team": F("pk")}), True),
        (NamedTeam, HaveRow(Player, link={"team": F("pk")}), True),
        (Basket, HaveRow(Player, link={"team": F("pk")}), False),
        (Team, HaveRow(Loose, link={"contact": F("pk")}), False),
    ],
)
def test_on_mariadb_only_a_foreign_key_to_the_record_itself_is_checked_against_its_lock(every, must, checked):
    expected = {"mysql": Guarantee.LOCK if checked else Guarantee.NONE}.get(connection.vendor, Guarantee.LOCK)
    assert level(Rule(name="r", every=every, must=must)) == expected


# The constraint that is missing.


def pasted(django, **names):
    return eval(django, {"models": models, "Lower": Lower, **names})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "must",
    [
        lambda row: HaveRow(row, link={"number": F("pk")}),
        lambda row: HaveRow(row, link={"number": F("pk"), "kind": "x"}),
        lambda row: HaveRow(row, link={"number": F("pk")}, where=Q(kind='say "x"', active=True)),
        lambda row: HaveRow(row, link={"number": F("pk")}, where=Q(kind="x") | ~Q(active=True)),
        lambda row: HaveRow(row, link={"number": F("pk")}, where=Q(other__isnull=True)),
        lambda row: HaveRow(row, link={"number": F("pk")}, count=AtMost(1)),
        lambda row: HaveRows(row, link={"number": F("pk")}, rows=list, reads=["note"], key=["kind"]),
        lambda row: HaveRows(row, link={"number": F("pk")}, rows=list, reads=["note"], key=["other"]),
    ],
)
def test_the_constraint_that_is_named_lifts_the_rule(must):
    row = linked_model()
    rule = Rule(name="r", every=Basket, must=must(row))
    assert rule.guarantee("default") != Guarantee.CONSTRAINT
    lift = rule.lift("default")
    assert lift.model == "zoo.Row"
    row._meta.constraints = [pasted(lift.django)]
    lifted = rule.guarantee("default") == Guarantee.CONSTRAINT
    assert lifted is lift.helps is not bool(lift.refusal)
    assert (rule.lift("default") is None) is lifted


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("columns", "every"),
    [
        (["number"], lambda rows: rows),
        (["number", "kind"], lambda rows: rows),
        ([Lower("kind")], lambda rows: rows),
        ([Lower("kind"), "number"], lambda rows: rows),
        (["number"], lambda rows: rows.filter(active=True)),
        (["number"], lambda rows: rows.filter(active=True, kind__in=["x", "y"])),
        (["number"], lambda rows: rows.filter(Q(active=True) | Q(kind="x"))),
        (["number"], lambda rows: rows.exclude(kind="x")),
    ],
)
@pytest.mark.parametrize("nulls_distinct", [True, False])
def test_the_constraint_that_is_named_rules_the_duplicates_out(columns, every, nulls_distinct):
    row = linked_model()
    must = BeUnique(*columns, nulls_distinct=nulls_distinct)
    rule = Rule(name="r", every=every(row._base_manager.all()), must=must)
    assert rule.guarantee("default") == Guarantee.NONE
    lift = rule.lift("default")
    row._meta.constraints = [pasted(lift.django)]
    assert (rule.guarantee("default") == Guarantee.CONSTRAINT) is lift.helps is not bool(lift.refusal)


def derived_for_a_link_that_may_be_null(model):
    return Rule(
        name="r",
        every=Basket,
        must=HaveRows(model, link={"number": F("pk")}, rows=list, reads=["label"], key=["other"]),
    )


def test_the_constraint_leaves_rows_alone_that_are_linked_with_nothing():
    lift = derived_for_a_link_that_may_be_null(linked_model()).lift("default")
    assert "nulls_distinct=False" in lift.django
    assert "condition=models.Q(number__isnull=False)" in lift.django


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_under_it_any_number_of_them_are_alike_and_those_of_one_record_are_not():
    if not connection.features.supports_nulls_distinct_unique_constraints:
        pytest.skip("needs PostgreSQL 15")
    columns = {"number": models.BigIntegerField(null=True), "other": models.BigIntegerField(null=True)}
    lift = derived_for_a_link_that_may_be_null(model_of("Ledger", columns)).lift("default")
    columns = {name: column.clone() for name, column in columns.items()}
    with table_of("Ledger", columns, constraints=[pasted(lift.django)]) as ledger:
        assert derived_for_a_link_that_may_be_null(ledger).guarantee("default") == Guarantee.CONSTRAINT
        for _ in range(2):
            ledger.objects.create(number=None, other=None)
        ledger.objects.create(number=1, other=None)
        with pytest.raises(IntegrityError):
            ledger.objects.create(number=1, other=None)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (bill(must=HaveRow(Bill, link=LINK, count=2)), "several rows"),
        (bill(must=HaveRow(Bill, link=LINK, count=AtLeast(1))), "several rows"),
        (bill(must=HaveRow(Bill, link=LINK, where=Q(made_at__lt=Now()))), "the clock"),
        (bill(every=Contact, must=BeUnique("team__name")), "several tables"),
        (bill(every=Contact, must=BeUnique(Lower("team__name"))), "several tables"),
        (bill(every=Contact.objects.filter(team__name="x"), must=BeUnique("email")), "every="),
        (bill(every=Contact.objects.filter(visits=F("spent")), must=BeUnique("email")), "every="),
        (bill(every=Mention, must=HaveSource("note")), "owner"),
        (bill(every=Note, must=HaveReceipt("mail")), "outside the database"),
        (bill(every=Team, must=HaveRow(Player, link={"team": F("pk")}, where=Q(team__name="x"))), "Other tables"),
    ],
)  # fmt: skip
def test_where_no_constraint_would_lift_a_rule_a_sentence_says_why(rule, said):
    assert [str(fault) for fault in rule.faults()] == []
    lift = rule.lift("default")
    assert (lift.django, lift.helps) == ("", False)
    assert said in str(lift.refusal)


def test_a_rule_that_a_constraint_covers_and_an_effect_that_can_not_tell_have_nothing_to_lift():
    assert bill(every=Vehicle, must=HaveValues(wheels=4)).lift("default") is None
    assert bill(every=Team, must=HaveValues(points=Max("players__age"))).lift("default") is None


@pytest.mark.django_db
def test_a_table_that_django_does_not_manage_gets_no_constraint_of_it():
    lift = linked(linked_model(managed=False)).lift("default")
    assert (bool(lift.django), lift.helps, "manage" in str(lift.refusal)) == (True, False, True)


@pytest.mark.django_db
def test_a_text_of_any_length_is_not_unique_everywhere():
    lift = linked(linked_model(), {"text": F("label")}).lift("default")
    assert lift.helps is (connection.vendor != "mysql")


@pytest.mark.django_db
def test_a_long_name_is_cut_and_still_tells_constraints_apart():
    row = linked_model(model_name="x" * 50)
    names = {
        pasted(linked(row, link).lift("default").django).name
        for link in ({"number": F("pk"), "kind": "x"}, {"number": F("pk"), "active": True})
    }
    assert len(names) == 2
    assert all(len(name) <= 60 and name.endswith("_once") for name in names)


# The system check. Without a mark, these fail where the database is asked.


def warnings():
    return checks.run_checks(tags=["reconcile"])


OWED = "r = Rule(every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')}%s)%s)"


def test_a_rule_that_a_constraint_would_lift_is_warned_of_with_the_constraint(rules):
    rules(OWED % ("", ""))
    (warning,) = warnings()
    assert (warning.id, warning.level) == ("reconcile.W001", checks.WARNING)
    assert "Rule 'own.r': its guarantee is " in warning.msg
    assert "zoo.Bill" in warning.msg
    assert (
        'models.UniqueConstraint(fields=["basket_number"], name="zoo_bill_basket_number_once")'
        in warning.hint
    )


def test_a_rule_that_a_constraint_covers_is_not(rules):
    rules("r = Rule(every=Order, must=HaveRow(Invoice, link={'order': F('pk')}, values={'amount': 1}))")
    assert warnings() == []


def test_a_warning_that_a_rule_silences_is_not_given(rules):
    rules(OWED % ("", ", silence=['reconcile.W001']"))
    assert warnings() == []


def test_what_is_silenced_is_a_list(rules):
    rules(OWED % ("", ", silence='reconcile.W001'"))
    assert "silence= is 'reconcile.W001'." in warnings()[0].msg


READS_ITS_ROWS = "import reconcile\nr = Rule(every=Order.objects.filter(invoice=None), must=HaveRow(Invoice, link={'order': F('pk')}, values={'amount': 1})%s)"


def test_a_rule_whose_every_reads_the_rows_that_it_makes_is_warned_of(rules):
    rules(READS_ITS_ROWS % "")
    (warning,) = warnings()
    assert (warning.id, warning.hint) == ("reconcile.W002", "Leave that out: every=Order.")
    assert "every= reads shop.Invoice, whose rows the rule makes" in warning.msg


def test_a_rule_whose_every_reads_its_rows_may_silence_that(rules):
    rules(READS_ITS_ROWS % ", silence=['reconcile.W002']")
    assert warnings() == []


def test_a_rule_that_would_delete_the_rows_that_it_has_made_is_a_fault(rules):
    rules(READS_ITS_ROWS % ", remedies={reconcile.EXTRA: reconcile.Delete()}")
    (fault,) = warnings()
    assert (fault.id, fault.level) == ("reconcile.E012", checks.WARNING)
    assert "a repair would delete them, and make them anew" in fault.msg


def test_nor_is_one_that_no_constraint_would_lift(rules):
    rules(OWED % (", count=2", ""))
    assert warnings() == []


def test_a_constraint_with_a_condition_is_named_where_a_database_of_the_rule_has_such(rules):
    rules("from django.db.models import Q\n" + OWED % (", where=Q(kind='x')", ", databases=['default']"))
    found = warnings()
    assert len(found) == (0 if connection.vendor == "mysql" else 1)
    assert all('condition=models.Q(kind="x")' in each.hint for each in found)


def test_the_server_is_not_asked_whether_null_can_be_unique(rules):
    rules(
        "from reconcile import HaveRows\nfrom tests.zoo.models import Contact, Letter\n"
        "r = Rule(every=Contact, databases=['default'], must=HaveRows(\n"
        "    Letter, link={'contact': F('pk')}, rows=list, reads=['email'], key=['number']))"
    )
    found = warnings()
    assert len(found) == (1 if connection.vendor == "postgresql" else 0)
    assert all("nulls_distinct=False" in each.hint for each in found)
    assert all(each.hint.endswith("(needs PostgreSQL 15)") for each in found)


def test_a_constraint_that_every_server_of_its_kind_knows_needs_none(rules):
    rules(OWED % ("", ""))
    assert "needs" not in warnings()[0].hint


def test_a_rule_that_is_about_no_database_at_hand_is_not_warned_of(rules, settings):
    settings.DATABASE_ROUTERS = ["tests.kinds.test_guarantees.Nowhere"]
    rules(OWED % ("", ""))
    assert warnings() == []


class Nowhere:
    def allow_migrate(self, db, app_label, **hints):
        return False


def test_rules_with_faults_are_told_of_beside_the_warnings_of_others(rules):
    rules(OWED % ("", "") + "\nbad = Rule(every=Basket, must=HaveValues(totl=1))")
    assert sorted(each.id for each in warnings()) == ["reconcile.E013", "reconcile.W001"]


def test_the_sample_shop_is_warned_of_its_subscribers_alone():
    """The newsletter's import makes duplicates, so that its table can't have the constraint yet."""
    (warning,) = warnings()
    assert "Rule 'subscribers.email': its guarantee is none," in warning.msg


@pytest.mark.django_db
def test_a_guarantee_and_its_lift_cost_no_statement():
    with statements() as sent:
        for rule in (bill(), bill(careless), bill(every=Note, must=HaveReceipt("mail"))):
            rule.guarantee("default")
            rule.lift("default")
    assert len(sent) == 0


def test_where_words_are_derived_a_key_that_may_be_null_needs_more_than_a_plain_constraint():
    must = HaveRows(Word, link={"page_code": F("label")}, rows=list, reads=["label"], key=["number"])
    assert "nulls_distinct=False" in must.constraint_advice(Basket.objects.all(), "archive").django
    assert "past unique constraints" in must.constraint_advice(Basket.objects.all(), "archive").refusal.reason


# What may be repeated, what a constraint leaves out, what another package owns.


def test_a_call_that_may_be_repeated_needs_no_constraint():
    def function(records): ...

    for must, drift in (
        (HaveRow(Bill, link=LINK), MISSING),
        (HaveSource("page_code", model=Page, to="code"), EXTRA),
    ):
        every = Basket if drift is MISSING else Memo
        once = Rule(name="r", every=every, must=must, unattended=True, remedies={drift: Call(function)})
        twice = Rule(
            name="r",
            every=every,
            must=must,
            unattended=True,
            remedies={drift: Call(function, idempotent=True)},
        )
        assert once.guarantee("default") is not Guarantee.REPEATABLE
        assert (twice.guarantee("default"), twice.lift("default")) == (Guarantee.REPEATABLE, None)
        assert unattended_refusal(twice, "default") is None


def test_a_call_that_may_be_repeated_does_not_speak_for_the_other_remedies():
    remedies = {MISSING: Call(careless, idempotent=True), EXTRA: Delete()}
    assert bill(remedies=remedies).guarantee("default") is not Guarantee.REPEATABLE


def test_a_covered_call_stays_at_constraint():
    rule = Rule(
        name="r",
        every=Order,
        must=HaveRow(Invoice, link={"order": F("pk")}, create_only={"amount": 1}),
        remedies={MISSING: Call(careless, idempotent=True)},
    )
    assert rule.guarantee("default") is Guarantee.CONSTRAINT


def test_whether_a_call_may_be_repeated_is_a_bool():
    (fault,) = bill(remedies={MISSING: Call(len, idempotent="yes")}).faults()
    assert (fault.id, "idempotent=" in fault.message) == ("reconcile.E012", True)


def test_a_rule_that_calls_is_told_of_that_way_out():
    rule = bill(remedies={MISSING: Call(len)}, unattended=True)
    if rule.guarantee("default") is Guarantee.NONE:
        assert "idempotent=True" in unattended_refusal(rule, "default").reason


@pytest.mark.parametrize(
    ("condition", "covered"),
    [(Q(phone__isnull=False), True), (Q(phone__isnull=False, is_default=True), False)],
)
def test_a_constraint_that_leaves_null_out_covers_what_takes_null_for_no_duplicate(
    condition, covered, monkeypatch
):
    constraint = UniqueConstraint(fields=["phone"], condition=condition, name="contact_phone_once")
    monkeypatch.setattr(Contact._meta, "constraints", [constraint])
    rule = Rule(name="r", every=Contact, must=BeUnique("phone"))
    if not connection.features.supports_partial_indexes:
        covered = False
    assert (rule.guarantee("default") is Guarantee.CONSTRAINT) is covered
    folded = Rule(name="r", every=Contact, must=BeUnique("phone", nulls_distinct=False))
    assert folded.guarantee("default") is not Guarantee.CONSTRAINT


def test_a_constraint_that_is_declared_already_is_not_named_again(monkeypatch):
    late = UniqueConstraint(fields=["basket_number"], name="bill_once", deferrable=Deferrable.DEFERRED)
    monkeypatch.setattr(Bill._meta, "constraints", [late])
    lift = bill().lift("default")
    assert not lift.django
    assert "zoo.Bill declares one already, 'bill_once'" in lift.refusal.reason


def test_what_is_declared_under_another_condition_is(monkeypatch):
    other = UniqueConstraint(fields=["basket_number"], name="bill_once", condition=Q(score=1))
    monkeypatch.setattr(Bill._meta, "constraints", [other])
    assert "UniqueConstraint" in bill().lift("default").django


def test_the_model_of_another_package_is_not_to_be_edited(rules):
    assert not bill().lift("default").foreign
    rules(
        "import reconcile as rc\nfrom django.contrib.auth.models import Permission\nr = Rule(every=Permission, must=rc.BeUnique('name'))"
    )
    (warning,) = warnings()
    assert "auth.Permission is another package's" in warning.hint
    assert 'silence=["reconcile.W001"]' in warning.hint


@pytest.mark.django_db
def test_a_rule_that_is_unattended_in_vain_says_so():
    from django.utils import timezone

    from reconcile.detect.explaining import explain

    def in_vain(rule):
        return explain(rule, using="default", now=timezone.now()).in_vain

    assert "deletes rows" in in_vain(bill(unattended=True, remedies={EXTRA: Delete()}))
    assert in_vain(bill(remedies={EXTRA: Delete()})) == ""
    assert in_vain(Rule(name="r", every=Team, must=HaveValues(points=1), unattended=True)) == ""
