"""`look`: some records, under the rules that concern them, through the guards, the chunks and the journal of a repair."""

import sys
import uuid
from collections import Counter

import pytest
from django.db import transaction
from django.db.models import Count, F, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

import reconcile
from reconcile import (
    EXTRA,
    BeUnique,
    Delete,
    HaveReceipt,
    HaveRow,
    HaveValues,
    Latest,
    Rule,
    RunningSum,
    Satisfy,
    Settle,
    look,
    runs,
)
from reconcile.core.scopes import Coverage
from reconcile.detect.leading import lead_of
from reconcile.errors import EvaluationError, GivenUpError, UnknownNameError, UsageError
from reconcile.models import Change, Finding, Outcome, Run, Suspension
from reconcile.repair.fault_injection import Step, listen
from reconcile.runs.results import past_runs
from sample_project.shop.models import Customer, Invoice, Item, Order
from tests.helpers import Session, an_hour_ago, found_by_the_night, repaired, statements
from tests.zoo.models import (
    Basket,
    Bill,
    Contact,
    Device,
    Ghost,
    Letter,
    Memo,
    Node,
    Player,
    Reply,
    Seat,
    Team,
    Thread,
)

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = Rule(name="count", every=Team, must=HaveValues(player_count=Count("players")), unattended=True)
INVOICE = Rule(
    name="invoice",
    every=Order,
    must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
    unattended=True,
)
TOTAL = Rule(
    name="total",
    every=Order,
    must=HaveValues(total=Sum(F("items__price") * F("items__quantity"), default=0)),
    unattended=True,
)


def teams(number, players=1):
    made = Team.objects.bulk_create([Team() for _ in range(number)])
    made = list(Team.objects.order_by("pk"))
    Player.objects.bulk_create([Player(team=team) for team in made for _ in range(players)])
    return made


def orders(number, **values):
    Order.objects.bulk_create([Order(created_at=an_hour_ago(), **values) for _ in range(number)])
    return list(Order.objects.order_by("pk"))


class TestTheseRecordsAlone:
    def test_what_drifts_among_them_is_repaired_and_nothing_else(self):
        one, two, three = teams(3)
        result = look([one, three], [COUNT])
        assert (result.clean, [each.written.update for each in result.repairs]) == (True, [2])
        assert dict(Team.objects.values_list("pk", "player_count")) == {one.pk: 1, two.pk: 0, three.pk: 1}

    def test_each_write_is_in_the_journal_and_can_be_undone(self):
        one, _ = teams(2)
        (run,) = look(one, [COUNT]).runs
        assert (run.kind, Run.objects.get().state) == (Run.Kind.LOOK, Run.State.FINISHED)
        assert [each.key for each in Change.objects.all()] == [str(one.pk)]
        runs.undo(run, using="default")
        assert Team.objects.get(pk=one.pk).player_count == 0

    def test_nothing_drifts_and_no_run_is_left(self):
        one, _ = teams(2)
        Team.objects.filter(pk=one.pk).update(player_count=1)
        result = look(one, [COUNT])
        assert (result.clean, result.repairs, list(result.runs)) == (True, [], [])
        assert not Run.objects.exists()

    def test_a_second_look_writes_nothing(self):
        look(teams(3), [COUNT])
        again = look(Team.objects.all(), [COUNT])
        assert (again.clean, list(again.runs)) == (True, [])

    def test_a_queryset_names_the_records_also_a_sliced_one(self):
        teams(4)
        assert look(Team.objects.order_by("-pk")[:2], [COUNT]).repairs[0].written.update == 2
        assert list(Team.objects.order_by("pk").values_list("player_count", flat=True)) == [0, 0, 1, 1]

    def test_no_records_at_all_are_clean(self):
        for nothing in ([], Team.objects.none()):
            result = look(nothing, [COUNT])
            assert (result.clean, list(result.checks)) == (True, [])

    def test_the_check_says_that_it_was_partial(self):
        (check,) = look(teams(1), [COUNT]).checks
        assert check.coverage is Coverage.KEYS

    def test_each_record_is_looked_at_once(self):
        (one,) = teams(1)
        assert look([one, one], [COUNT]).checks[0].tally.checked == 1

    @pytest.mark.parametrize("number", [1, 100])
    def test_the_statements_are_as_many_for_any_number_of_records(self, number):
        def sent(records):
            Team.objects.all().delete()
            made = teams(records)
            with statements() as captured:
                assert look(made, [COUNT]).repairs[0].written.update == records
            return len(captured)

        sent(1)
        assert sent(number) == sent(1)


class TestRulesOfOtherModels:
    def test_a_child_leads_to_its_parent(self):
        one, two = teams(2)
        result = look(Player.objects.filter(team=two), [COUNT])
        assert (result.clean, result.repairs[0].written.update) == (True, 1)
        assert dict(Team.objects.values_list("pk", "player_count")) == {one.pk: 0, two.pk: 1}

    def test_a_parent_leads_to_the_children_that_read_it(self):
        rule = Rule(name="age", every=Player, must=HaveValues(age=F("team__player_count")), unattended=True)
        one, two = teams(2, players=2)
        Team.objects.update(player_count=7)
        look(one, [rule])
        assert set(Player.objects.filter(team=one).values_list("age", flat=True)) == {7}
        assert set(Player.objects.filter(team=two).values_list("age", flat=True)) == {20}

    def test_the_row_that_is_owed_leads_to_the_record_that_owes_it(self):
        order, _ = orders(2, total=3)
        invoice = Invoice.objects.create(order=order, amount=5)
        look(invoice, [INVOICE])
        invoice.refresh_from_db()
        assert (invoice.amount, Invoice.objects.count()) == (3, 1)

    def test_several_models_are_looked_at_together(self):
        one, two = teams(2)
        result = look([one, Player.objects.get(team=two)], [COUNT])
        assert result.repairs[0].written.update == 2

    def test_what_one_rule_has_written_is_seen_by_the_next(self):
        order, other = orders(2)
        for each in (order, other):
            Item.objects.create(order=each, price=2, quantity=3)
        Order.objects.update(total=0)
        Invoice.objects.all().delete()
        result = look(Item.objects.filter(order=order), [INVOICE, TOTAL])
        written = Counter()
        for each in result.repairs:
            written[each.rule] += each.written.total
        assert (result.clean, written) == (True, {"total": 1, "invoice": 1})
        assert list(Invoice.objects.values_list("order", "amount")) == [(order.pk, 6)]
        assert Order.objects.get(pk=other.pk).total == 0

    def test_a_key_to_another_column_than_the_primary_key_leads_there(self):
        thread = Thread.objects.create()
        rule = Rule(
            name="last",
            every=Thread,
            must=HaveValues(last_reply=Latest("replies", by=["-pk"])),
            unattended=True,
        )
        reply = Reply.objects.create(thread=thread)
        Thread.objects.update(last_reply=None)
        look(reply, [rule])
        assert Thread.objects.get().last_reply_id == reply.pk

    def test_all_ways_are_taken(self):
        rule = Rule(name="marked", every=Contact, must=HaveValues(visits=Count("pk")))
        lead = lead_of(rule, Letter, using="default", now=timezone.now())
        assert lead.concerns is False
        contacts = [Contact.objects.create(email=f"{n}") for n in range(3)]
        letter = Letter.objects.create(contact=contacts[0], copy_to=contacts[1])
        must = Satisfy(
            ~Q(pk__in=Letter.objects.values("contact"))
            & ~Q(pk__in=Letter.objects.exclude(copy_to=None).values("copy_to"))
        )
        lead = lead_of(
            Rule(name="unread", every=Contact, must=must), Letter, using="default", now=timezone.now()
        )
        assert sorted(lead.keys([letter.pk], "default")) == [contacts[0].pk, contacts[1].pk]

    def test_a_way_through_two_keys_is_found(self):
        rule = Rule(name="far", every=Team, must=HaveValues(points=Count("contacts__seat")))
        team, other = Team.objects.create(), Team.objects.create()
        seat = Seat.objects.create(contact=Contact.objects.create(email="a", team=team))
        lead = lead_of(rule, Seat, using="default", now=timezone.now())
        assert list(lead.keys([seat.pk], "default")) == [team.pk]
        assert other.pk not in lead.keys([seat.pk], "default")

    def test_a_rule_that_reads_the_model_and_has_no_way_from_there_is_refused_by_name(self):
        rule = Rule(name="billed", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
        basket = Basket.objects.create()
        bill = Bill.objects.create(basket_number=basket.pk)
        result = look(bill, [rule])
        assert not result.clean
        assert "no foreign key that it reads leads from there to zoo.Basket" in result.refused["billed"]
        assert "Look at its own records instead." in result.refused["billed"]

    def test_a_rule_that_is_named_and_does_not_concern_the_records_is_refused(self):
        result = look(teams(1), [INVOICE])
        assert result.refused == {"invoice": "Rule 'invoice' doesn't read zoo.Team."}
        assert not result.clean

    def test_without_rules_all_of_the_project_that_read_the_model_are_asked(self):
        order, _ = orders(2, total=3, status="placed")
        result = look(order, repair=False)
        names = {each.rule.name for each in result.checks}
        assert {"orders.invoice", "orders.total"} <= names
        assert "categories.depth" not in names
        assert not result.clean


class TestWhatMayBeRepaired:
    def test_a_rule_that_is_not_unattended_is_checked_and_refused(self):
        rule = Rule(name="count", every=Team, must=COUNT.must)
        one, _ = teams(2)
        result = look(one, [rule])
        assert (result.clean, list(result.runs), result.checks[0].tally.total) == (False, [], 1)
        assert "it is not unattended" in result.refused["count"]
        assert look(one, [rule], repair=True).clean
        assert Run.objects.get().kind == Run.Kind.REPAIR

    def test_a_clean_record_of_such_a_rule_is_clean(self):
        rule = Rule(name="count", every=Team, must=COUNT.must)
        assert look(teams(1, players=0), [rule]).clean

    def test_no_repair_is_asked_for(self):
        result = look(teams(1), [COUNT], repair=False)
        assert (result.clean, result.refused, list(result.runs)) == (False, {}, [])

    def test_a_guarantee_that_is_too_weak_is_refused_with_the_reason(self):
        rule = Rule(
            name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}), unattended=True
        )
        result = look(Basket.objects.create(), [rule])
        assert "Its guarantee is" in result.refused["bill"]
        assert not Bill.objects.exists()

    def test_caps_hold(self):
        rule = Rule(name="count", every=Team, must=COUNT.must, unattended=True, max_repairs=1)
        result = look(teams(3), [rule])
        assert not result.clean
        assert "3 repairs are planned, and the cap is 1" in result.repairs[0].why_stopped

    def test_a_suspended_rule_is_left_alone(self):
        Suspension.objects.create(rule="count", run=uuid.uuid4(), why="broken handler")
        result = look(teams(1), [COUNT])
        assert not result.clean
        assert Team.objects.get().player_count == 0

    def test_records_that_are_looked_at_again_and_again_suspend_nothing(self):
        (team,) = teams(1)
        for _ in range(3):
            look(team, [COUNT])
            Team.objects.update(player_count=9)
        assert not Suspension.objects.exists()
        assert look(team, [COUNT]).clean

    def test_inside_a_transaction_it_says_how_to_go_about_it(self):
        (team,) = teams(1)
        with transaction.atomic():
            with pytest.raises(UsageError, match=r"transaction.on_commit\(lambda: look"):
                look(team, [COUNT])
            assert not look(team, [COUNT], repair=False).clean
            transaction.on_commit(lambda: look(team, [COUNT]))
        assert Team.objects.get().player_count == 1

    def test_an_extra_row_needs_a_whole_run_that_has_found_it(self):
        rule = Rule(
            name="once", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}, max_deletes=None
        )
        first, second = (Contact.objects.create(email="a") for _ in range(2))
        for _ in range(2):
            result = look(second, [rule], repair=True)
            assert not result.clean
            assert "no run of the whole rule has found them" in result.repairs[0].why_stopped
        assert (Contact.objects.count(), Finding.objects.count()) == (2, 0)
        found_by_the_night(rule)
        assert look(second, [rule], repair=True).clean
        assert list(Contact.objects.all()) == [first]

    def test_what_the_whole_run_had_found_elsewhere_stays_found(self):
        rule = Rule(
            name="once", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}, max_deletes=None
        )
        made = [Contact.objects.create(email="a") for _ in range(3)]
        found_by_the_night(rule)
        look(made[1], [rule], repair=True)
        assert {each.key for each in Finding.objects.all()} == {str(made[1].pk), str(made[2].pk)}
        assert repaired(rule).written.delete == 1


class TestBadInput:
    def test_what_is_no_record_is_refused(self):
        for wrong in ([3], ["a"], [Team]):
            with pytest.raises(UsageError, match="takes records or a queryset"):
                look(wrong, [COUNT])

    def test_a_record_that_is_not_saved_is_refused(self):
        with pytest.raises(UsageError, match="is not saved"):
            look(Team(), [COUNT])
        with pytest.raises(UsageError, match="is not saved"):
            look(Device(), [COUNT])

    def test_a_rule_that_does_not_exist_is_named(self):
        with pytest.raises(
            UnknownNameError, match=r"There is no rule 'orders.invoce'\. Did you mean 'orders.invoice'"
        ):
            look(teams(1), ["orders.invoce"])

    def test_a_rule_without_a_name_or_with_faults_is_refused(self):
        with pytest.raises(UsageError, match="needs a name"):
            look(teams(1), [Rule(every=Team, must=COUNT.must)])
        with pytest.raises(UsageError, match="no column 'playr_count'"):
            look(Team.objects.all(), [Rule(name="r", every=Team, must=HaveValues(playr_count=1))])

    def test_one_rule_needs_no_list(self):
        assert look(teams(1), COUNT).repairs[0].written.update == 1

    def test_a_record_that_is_gone_is_clean(self):
        (team,) = teams(1)
        Team.objects.all().delete()
        assert look(team, [COUNT]).clean

    @pytest.mark.parametrize("wrong", [Team, None, 3])
    def test_what_is_no_collection_is_refused(self, wrong):
        with pytest.raises(UsageError, match="takes records or a queryset"):
            look(wrong, [COUNT])

    def test_a_queryset_that_the_database_refuses_says_why(self):
        with pytest.raises(EvaluationError):
            look(Ghost.objects.all(), [COUNT])

    def test_it_is_a_public_name(self):
        assert reconcile.look is look
        assert "look" in reconcile.__all__


class TestTheTruth:
    """`clean` is what a check of these records would say in the end."""

    def test_drift_that_is_left_to_people_is_not_clean_beside_what_is_repaired(self):
        rule = Rule(name="sat", every=Team, must=Satisfy(~Q(name="bad")), unattended=True)
        (team,) = teams(1)
        Team.objects.update(name="bad")
        for repair in (None, True):
            Team.objects.update(player_count=9)
            result = look(team, [COUNT, rule], repair=repair)
            assert not result.clean
            assert result.refused == {"sat": "It drifts, and leaves that to people."}

    def test_what_a_later_repair_makes_drift_is_repaired_again(self):
        total = Rule(
            name="total", every=Order, unattended=True,
            must=HaveValues(total=Sum("items__price", default=0) + F("customer__order_count")),
        )  # fmt: skip
        count = Rule(
            name="count", every=Customer, must=HaveValues(order_count=Count("orders")), unattended=True
        )
        customer = Customer.objects.create(email="a@b.c")
        order = Order.objects.create(customer=customer)
        item = Item.objects.create(order=order, price=5)
        Customer.objects.update(order_count=0)
        Order.objects.update(total=0)
        assert look(item, [total, count]).clean
        assert Order.objects.get().total == 6

    def test_what_a_repair_makes_drift_for_a_rule_that_may_not_be_repaired_is_not_clean(self):
        points = Rule(name="points", every=Team, must=HaveValues(points=F("player_count")))
        result = look(teams(1), [COUNT, points])
        assert not result.clean
        assert [each.rule.name for each in result.checks if each.tally.total] == ["points"]

    def test_rows_that_a_rule_has_written_itself_need_no_way_back(self):
        rule = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
        result = look(Basket.objects.create(), [rule], repair=True)
        assert (result.clean, result.refused) == (True, {})

    def test_young_records_are_not_clean(self):
        rule = Rule(
            name="young",
            every=Order,
            must=INVOICE.must,
            settle=Settle("created_at", minutes=15),
            unattended=True,
        )
        result = look(Order.objects.create(total=3), [rule])
        assert (result.clean, result.young, list(result.runs)) == (False, {"young": 1}, [])

    def test_records_that_are_gone_lead_nowhere_and_that_is_said(self):
        (team,) = teams(1)
        player = Player.objects.get()
        look(team, [COUNT])
        Player.objects.all().delete()
        result = look(player, [COUNT])
        assert not result.clean
        assert "1 record of zoo.Player is gone" in result.refused["count"]

    def test_a_value_that_refers_is_no_way(self):
        must = HaveRow(Letter, link={"number": F("visits")}, values={"contact": F("pk")})
        rule = Rule(name="letter", every=Contact, must=must)
        contact = Contact.objects.create(email="a", visits=1, code="x")
        other = Contact.objects.create(email="b", visits=2, code="y")
        letter = Letter.objects.create(number=1, contact=other)
        result = look(letter, [rule], repair=False)
        assert "no foreign key that it reads leads" in result.refused["letter"]
        assert contact.pk

    def test_a_rule_of_another_database_is_refused(self):
        rule = Rule(name="count", every=Team, must=COUNT.must, databases=["archive"], unattended=True)
        result = look(teams(1), [rule])
        assert (result.clean, list(result.checks)) == (False, [])
        assert result.refused == {"count": "Rule 'count' is not about database 'default'."}

    def test_rules_that_cannot_be_used_are_refused_and_the_others_looked_at(
        self, tmp_path, monkeypatch, settings
    ):
        package = tmp_path / "looked_rules"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "bad.py").write_text("r = (")
        (package / "good.py").write_text(
            "from django.db.models import Count\nfrom reconcile import HaveValues, Rule\nfrom tests.zoo.models import Team\n"
            "count = Rule(every=Team, must=HaveValues(player_count=Count('players')), unattended=True)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        settings.RECONCILE = {**settings.RECONCILE, "RULES": ["looked_rules"]}
        result = look(teams(1))
        assert (result.clean, [*result.refused]) == (False, ["bad"])
        assert Team.objects.get().player_count == 1
        import looked_rules.good

        assert look(Team.objects.all(), [looked_rules.good.count]).clean
        for name in [name for name in sys.modules if name.startswith("looked_rules")]:
            del sys.modules[name]

    def test_records_that_a_router_reads_elsewhere_are_looked_at_where_they_are_written(self, settings):
        (team,) = teams(1)
        settings.DATABASE_ROUTERS = ["tests.routers.ReadElsewhere"]
        assert look(Team.objects.filter(pk=team.pk), [COUNT], using="default").clean
        team.refresh_from_db(using="default")
        assert team.player_count == 1


class TestBesideOthers:
    def test_a_run_that_was_interrupted_goes_on_with_these_records_alone(self):
        teams(9)
        some = list(Team.objects.order_by("pk")[:6])
        rule = Rule(name="count", every=Team, must=COUNT.must, unattended=True)

        def stop(step):
            if step is Step.COMMIT:
                raise GivenUpError("enough")

        with listen(stop):
            result = look(some, [rule])
        assert not result.clean
        (run,) = result.runs
        (done,) = runs.resume(Run.objects.get(pk=run.pk), {"count": rule}, using="default")
        assert (done.written.update, done.left, done.records) == (6, 0, 6)
        assert Team.objects.filter(player_count=1).count() == 6

    @pytest.mark.server
    def test_a_record_that_another_session_holds_is_left_and_said(self):
        from tests.repair.test_chunk import locked_by_another_session

        one, two = teams(2)
        with locked_by_another_session(Team.objects.filter(pk=one.pk)):
            result = look([one, two], [COUNT])
        assert (result.clean, result.repairs[0].skipped) == (False, 1)
        assert look([one, two], [COUNT]).clean

    @pytest.mark.server
    def test_two_looks_at_the_same_records_write_each_once(self):
        made = orders(40, total=3)
        sessions = [Session(lambda: look(made, [INVOICE])) for _ in range(2)]
        for session in sessions:
            session.start()
        for session in sessions:
            session.join()
        while not look(made, [INVOICE]).clean:
            pass
        assert (Invoice.objects.count(), Change.objects.count()) == (40, 40)

    def test_what_was_looked_at_is_no_part_of_the_trend(self):
        look(teams(1), [COUNT])
        assert Outcome.objects.get().only == [Team.objects.get().pk]
        assert past_runs(["count"], using="default") == {}
        repaired(COUNT)
        assert len(past_runs(["count"], using="default")["count"]) == 1

    def test_a_record_leads_to_those_that_are_computed_from_it(self):
        rule = Rule(
            name="depth",
            every=Node,
            must=HaveValues(depth=Coalesce(F("parent__depth") + 1, 0)),
            unattended=True,
        )
        root, other = Node.objects.create(), Node.objects.create()
        child = Node.objects.create(parent=root, depth=1)
        grandchild = Node.objects.create(parent=child, depth=2)
        Node.objects.filter(pk=root.pk).update(parent=other)
        result = look(root, [rule])
        assert result.clean
        assert dict(Node.objects.values_list("pk", "depth")) == {
            other.pk: 0,
            root.pk: 1,
            child.pk: 2,
            grandchild.pk: 3,
        }

    def test_a_new_child_leads_to_its_parent_of_the_same_model(self):
        rule = Rule(name="size", every=Node, must=HaveValues(size=Count("children")), unattended=True)
        root = Node.objects.create()
        assert look(Node.objects.create(parent=root), [rule]).clean
        assert Node.objects.get(pk=root.pk).size == 1

    def test_receipts_are_looked_for_by_record(self):
        rule = Rule(name="mail", every=Basket, must=HaveReceipt("mail"))
        one, _ = Basket.objects.create(), Basket.objects.create()
        assert look(one, [rule], repair=False).checks[0].tally.total == 1


def test_a_rule_that_reads_only_what_another_writes_is_not_refused_where_nothing_is_written():
    (order,) = orders(1)
    item = Item.objects.create(order=order, price=2, quantity=3)
    for _ in range(2):
        result = look(item, [INVOICE, TOTAL])
        assert (result.clean, dict(result.refused)) == (True, {})


class TestWhatARepairLeavesBehind:
    """A row that was deleted, or refers to another one now, had an owner."""

    def contacts(self, number):
        made = teams(number, players=0)
        Team.objects.update(points=1)
        return made, [Contact.objects.create(team=team, email="a") for team in made]

    CONTACTS = Rule(name="contacts", every=Team, must=HaveValues(points=Count("contacts")), unattended=True)

    def test_the_owner_of_a_deleted_row_is_looked_at(self):
        made, contacts = self.contacts(3)
        once = Rule(
            name="once", every=Contact, must=BeUnique("email", keep=["pk"]), remedies={EXTRA: Delete()}
        )
        found_by_the_night(once)
        result = look(contacts[1:], [once, self.CONTACTS], repair=True)
        assert Contact.objects.count() == 1
        assert result.clean
        assert sorted(Team.objects.values_list("points", flat=True)) == [0, 0, 1]
        assert made

    def test_the_former_owner_of_a_moved_row_is_looked_at(self):
        (one, two), (moved, parent) = self.contacts(2)
        Contact.objects.filter(pk=moved.pk).update(parent=parent)
        move = Rule(
            name="move",
            every=Contact.objects.filter(parent__isnull=False),
            must=HaveValues(team=F("parent__team")),
            unattended=True,
        )
        result = look(parent, [move, self.CONTACTS])
        assert result.clean
        assert dict(Team.objects.values_list("pk", "points")) == {one.pk: 0, two.pk: 2}


class TestWaysAsTheRuleReads:
    """Each place in which a rule reads a model is tied to its records, or it is said that one isn't."""

    def test_a_record_leads_to_its_siblings_if_they_are_counted(self):
        rule = Rule(
            name="among", every=Contact, must=HaveValues(visits=Count("team__contacts")), unattended=True
        )
        (team,) = teams(1)
        old, new = (Contact.objects.create(team=team, email=each) for each in "ab")
        assert look(new, [rule]).clean
        assert {*Contact.objects.values_list("visits", flat=True)} == {2}
        assert old.pk

    def test_and_not_to_those_that_only_share_a_parent(self):
        rule = Rule(name="age", every=Player, must=HaveValues(age=F("team__points")), unattended=True)
        (team,) = teams(1, players=3)
        result = look(team.players.first(), [rule])
        assert result.checks[0].tally.checked == 1

    def test_rows_that_are_read_once_for_all_records_lead_as_others_do(self):
        rule = Rule(
            name="sum",
            every=Bill,
            must=HaveValues(amount=RunningSum("score", over="kind", by=["pk"])),
            unattended=True,
        )
        bill = Bill.objects.create(score=3)
        result = look(bill, [rule])
        assert (result.clean, Bill.objects.get().amount) == (True, 3)
        last = Rule(
            name="last",
            every=Thread,
            must=HaveValues(last_text=Latest("replies", value="text", by=["at"])),
            unattended=True,
        )
        thread = Thread.objects.create()
        reply = Reply.objects.create(thread=thread, at=timezone.now(), text="x")
        assert look(reply, [last]).clean
        assert Thread.objects.get().last_text == "x"

    def test_a_second_link_without_a_foreign_key_is_refused_by_name_beside_the_first(self):
        older = Subquery(Player.objects.filter(age=OuterRef("player_count")).order_by().values("age")[:1])
        rule = Rule(
            name="both",
            every=Team,
            must=HaveValues(points=Count("players") + Coalesce(older, 0)),
            unattended=True,
        )
        one, _ = teams(2)
        result = look(one.players.all(), [rule])
        assert "no foreign key that it reads leads from all of it to zoo.Team" in result.refused["both"]
        assert not result.clean
        assert [check.tally.checked for check in result.checks] == [1]


class TestWaysThroughOneModelTwice:
    def test_through_a_key_from_a_model_to_itself_and_on(self):
        rule = Rule(
            name="age",
            every=Player,
            must=HaveValues(age=Coalesce(F("team__alternate__points"), 20)),
            unattended=True,
        )
        one, other = teams(2, players=1)
        Team.objects.filter(pk=one.pk).update(alternate=other)
        Team.objects.filter(pk=other.pk).update(points=7)
        look(other, [rule])
        assert dict(Player.objects.values_list("team", "age")) == {one.pk: 7, other.pk: 20}

    def test_through_the_same_key_twice(self):
        rule = Rule(
            name="depth",
            every=Node,
            must=HaveValues(depth=Coalesce(F("parent__parent__size"), 0)),
            unattended=True,
        )
        top = Node.objects.create(size=5)
        low = Node.objects.create(parent=Node.objects.create(parent=top))
        look(top, [rule])
        assert Node.objects.get(pk=low.pk).depth == 5

    def test_through_rows_that_refer_to_two_of_it(self):
        rule = Rule(
            name="friends",
            every=Contact,
            must=HaveValues(visits=Sum("friends__spent", default=0)),
            unattended=True,
        )
        one, other = (Contact.objects.create(email=each) for each in "ab")
        one.friends.add(other)
        Contact.objects.filter(pk=one.pk).update(spent=4)
        look(one, [rule])
        assert Contact.objects.get(pk=other.pk).visits == 4


def test_a_row_whose_record_is_gone_is_no_clean_row():
    rule = Rule(name="memo", every=Basket, must=HaveRow(Memo, link={"basket": F("pk")}), unattended=True)
    basket = Basket.objects.create()
    memo = Memo.objects.create(basket=basket)
    Basket.objects.filter(pk=basket.pk).delete()
    assert not look(memo, [rule]).clean


def test_how_a_model_leads_to_a_rule_is_found_out_once_in_a_look(monkeypatch):
    asked = Counter()

    def lead(rule, model, **given):
        asked[rule.name, model] += 1
        return lead_of(rule, model, **given)

    monkeypatch.setattr("reconcile.runs.looking.lead_of", lead)
    rule = Rule(
        name="depth", every=Node, must=HaveValues(depth=Coalesce(F("parent__depth") + 1, 0)), unattended=True
    )
    root = Node.objects.create()
    child = Node.objects.create(parent=root)
    Node.objects.create(parent=Node.objects.create(parent=child))
    assert len(look(child, [rule]).runs) > 1
    assert dict(asked) == {("depth", Node): 1}
