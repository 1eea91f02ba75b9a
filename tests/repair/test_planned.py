"""A plan counts rows, as caps and results do: exactly where that can be known, else at least so many."""

from decimal import Decimal

import pytest
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from reconcile import (
    EXTRA,
    STALE,
    AtLeast,
    BeUnique,
    Delete,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    Merge,
    Rule,
    Split,
    Update,
    runs,
)
from reconcile.core.drift import Bound
from reconcile.core.verbs import Written
from reconcile.reports.text import left_by_plan
from tests.cli.test_cli import rules, run, run_json
from tests.helpers import found_by_the_night, repaired, statements
from tests.zoo.models import Basket, Bill, Contact, Letter, Memo, Mention, Node, Note, Page, Word

__all__ = ["rules"]

pytestmark = pytest.mark.django_db

DEPTH = Rule(name="depth", every=Node, must=HaveValues(depth=Coalesce(F("parent__depth") + 1, Value(0))))


def planned(rule):
    (result,) = runs.preview({rule.name: rule}, using="default", now=timezone.now())
    return result


def tree(children, *, root, depth):
    made = Node.objects.create(name="root", depth=root)
    Node.objects.bulk_create([Node(parent=made, depth=depth) for _ in range(children)])
    return made


def test_children_that_are_right_once_the_root_is_are_not_planned_nor_stopped_by_a_cap():
    tree(8, root=5, depth=1)
    plan = planned(DEPTH)
    assert (plan.planned, plan.bound, plan.planned_records.update) == (Written(update=1), Bound.AT_LEAST, 9)
    result = repaired(DEPTH, max_repairs=3)
    assert (result.written.update, result.left, result.why_stopped) == (1, 0, "")


def test_children_that_agree_with_a_wrong_root_are_at_least_not_counted_out():
    tree(8, root=5, depth=6)
    plan = planned(DEPTH)
    assert (plan.planned, plan.bound) == (Written(update=1), Bound.AT_LEAST)
    assert repaired(DEPTH).written.update == 9


def test_a_cap_holds_while_a_tree_is_written():
    tree(8, root=5, depth=6)
    result = repaired(DEPTH, max_repairs=3)
    assert result.written.update <= 3
    assert "The cap on repairs is reached" in result.why_stopped


def test_a_record_that_lacks_several_rows_is_one_of_them_at_least():
    note = Note.objects.create(text="@ada @bob @cy")
    owed = HaveRows(
        Mention,
        link={"note": F("pk")},
        rows=lambda text: [{"user_name": each[1:]} for each in text.split()],
        reads=["text"],
        key=["user_name"],
    )
    rule = Rule(name="mentions", every=Note, must=owed)
    plan = planned(rule)
    assert (plan.planned, plan.bound) == (Written(insert=1), Bound.AT_LEAST)
    assert repaired(rule).written.insert == Mention.objects.filter(note=note).count() == 3


def test_records_that_owe_one_row_together_are_one_row():
    Basket.objects.bulk_create([Basket(label="a"), Basket(label="a"), Basket(label="b")])
    rule = Rule(name="words", every=Basket, must=HaveRow(Word, link={"word": F("label")}))
    plan = planned(rule)
    assert (plan.planned, plan.bound, plan.planned_records.insert) == (Written(insert=2), Bound.EXACT, 3)
    assert repaired(rule, max_repairs=2).written.insert == 2


@pytest.mark.parametrize(("count", "there", "lacks"), [(3, 0, 3), (3, 2, 1), (AtLeast(2), 0, 2)])
def test_a_record_may_lack_more_than_one_row(count, there, lacks):
    basket = Basket.objects.create()
    Bill.objects.bulk_create([Bill(basket_number=basket.pk) for _ in range(there)])
    rule = Rule(name="bills", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, count=count))
    plan = planned(rule)
    assert (plan.planned.insert, plan.bound) == (1, Bound.AT_LEAST)
    assert repaired(rule).written.insert == lacks


def test_a_record_may_have_more_than_one_stale_row():
    basket = Basket.objects.create(price=2)
    Bill.objects.bulk_create([Bill(basket_number=basket.pk, amount=1) for _ in range(3)])
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("price")}, count=AtLeast(1))
    rule = Rule(name="bills", every=Basket, must=must)
    plan = planned(rule)
    assert (plan.planned, plan.bound) == (Written(update=1), Bound.AT_LEAST)
    assert repaired(rule).written.update == 3


def test_stale_rows_of_records_that_share_them_are_counted_themselves():
    Basket.objects.bulk_create([Basket(label="a", price=2), Basket(label="a", price=2)])
    Word.objects.create(word="a", weight=1)
    must = HaveRow(Word, link={"word": F("label")}, values={"weight": F("price")})
    rule = Rule(name="words", every=Basket, must=must)
    plan = planned(rule)
    assert (plan.planned, plan.planned_records.update) == (Written(update=1), 2)
    assert repaired(rule).written.update == 1


def test_what_a_merge_moves_is_known_as_it_is_moved():
    Contact.objects.bulk_create([Contact(email="a", visits=1), Contact(email="a", visits=2)])
    rule = Rule(name="merged", every=Contact, must=BeUnique("email", merge={"visits": "sum"}))
    plan = planned(rule)
    assert (plan.planned, plan.bound, plan.unconfirmed) == (Written(delete=1), Bound.AT_LEAST, 1)


def test_the_number_of_statements_of_a_plan_does_not_depend_on_the_number_of_records():
    def sent(number):
        tree(number, root=5, depth=1)
        with statements() as captured:
            planned(DEPTH)
        return len(captured)

    assert sent(1) == sent(200)


def test_the_condition_of_a_split_is_counted_once():
    Basket.objects.bulk_create([Basket(note="x", quantity=1) for _ in range(3)])
    parts = {"plain": Update(), "split": Split(when=Q(quantity=1), each=Update(), rest=Update())}
    sent = {}
    for name, remedy in parts.items():
        rule = Rule(name=name, every=Basket, must=HaveValues(note="y"), remedies={STALE: remedy})
        with statements() as captured:
            planned(rule)
        sent[name] = len(captured)
    assert sent["split"] == sent["plain"] + 1


# What people and programs are told.


def orphans(number):
    Memo.objects.bulk_create([Memo(page_code=f"gone{n}") for n in range(number)])


ORPHANS = Rule(
    name="orphans",
    every=Memo,
    must=HaveSource("page_code", model=Page, to="code"),
    remedies={EXTRA: Delete()},
    max_deletes=2,
)


def test_the_last_line_of_a_plan_says_at_least_and_a_sign_stands_before_the_number(rules):
    rules("import tests.repair.test_planned as here\ndepth = here.DEPTH")
    tree(8, root=5, depth=1)
    _, out, _ = run("repair")
    assert "At least 1 row would be written. Nothing has been: add --apply to write." in out
    assert "≥ 1" in out
    _, report = run_json("repair")
    assert (report["rules"][0]["bound"], report["rules"][0]["planned_records"]["update"]) == ("at least", 9)


def test_an_exact_plan_says_just_so_many(rules):
    rules("r = Rule(every=Basket, must=HaveValues(label='x'))")
    Basket.objects.create()
    _, out, _ = run("repair")
    assert "\n1 row would be written. Nothing has been" in out
    assert "≥" not in out


def test_deletes_that_the_next_run_only_notes_are_not_said_to_be_written(rules):
    rules("import tests.repair.test_planned as here\norphans = here.ORPHANS")
    orphans(2)
    _, out, _ = run("repair")
    assert "2 deletes would be noted, for a second run to confirm. Nothing has been" in out
    assert "row would be written" not in out
    assert run("repair", "--apply")[0] == 4
    _, out, _ = run("repair")
    assert "2 rows would be written." in out


def test_a_run_that_the_delete_cap_stops_is_not_silently_the_first_of_two(rules):
    rules("import tests.repair.test_planned as here\norphans = here.ORPHANS")
    orphans(3)
    code, out, _ = run("repair", "--apply")
    said = " ".join(out.split())
    assert (code, Memo.objects.count()) == (4, 3)
    assert "3 deletes are planned, and the cap is 2." in said
    assert "The rows that would be deleted are noted all the same" in said


def test_a_cap_in_percent_says_its_floor():
    Basket.objects.bulk_create([Basket() for _ in range(15)])
    rule = Rule(name="r", every=Basket, must=HaveValues(label="x"), max_repairs="10%")
    assert (
        "15 repairs are planned, and the cap is 10% of 15 records, and 10 rows in any case."
        in repaired(rule).why_stopped
    )


def test_a_cap_on_what_is_planned_at_least_says_so():
    for _ in range(4):
        tree(1, root=5, depth=1)
    assert "at least 4 repairs are planned, and the cap is 3." in repaired(DEPTH, max_repairs=3).why_stopped


def test_the_plan_of_a_part_counts_that_part():
    roots = [tree(2, root=5, depth=1) for _ in range(3)]
    (plan,) = runs.preview(
        {"depth": DEPTH}, using="default", now=timezone.now(), only={"depth": [roots[0].pk]}
    )
    assert plan.planned == Written(update=1)
    assert Node.objects.filter(Q(depth=5)).count() == 3


def test_the_plan_of_a_part_counts_that_part_of_both_parts_of_a_split():
    baskets = [Basket.objects.create(note="x", quantity=1) for _ in range(5)]
    split = Rule(
        name="split",
        every=Basket,
        must=HaveValues(note="y"),
        remedies={STALE: Split(when=Q(quantity=1), each=Update(), rest=Update())},
        max_repairs=3,
    )
    only = {"split": [baskets[0].pk]}
    (plan,) = runs.preview({"split": split}, using="default", now=timezone.now(), only=only)
    assert (plan.planned, plan.why_stopped) == (Written(update=1), "")
    _, (result,) = runs.repair({"split": split}, using="default", only=only)
    assert (result.written, result.left) == (Written(update=1), 0)


# Rows of a plan, as they are and as they must be.

SHOWN = """
from django.db.models import Q
import reconcile as rc
from tests.zoo.models import Memo, Mention, Note, Page
import tests.kinds.test_have_rows as rows
stale = Rule(every=Basket, must=HaveValues(note=F("label"), price=7))
bills = Rule(every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("quantity")}))
computed = Rule(every=Note, must=HaveValues(slug=rc.FromPython(str.upper, reads=["text"])))
mentions = Rule(every=Note, must=rc.HaveRows(Mention, link={"note": F("pk")}, rows=rows.mentions_of, reads=["text"], key=["user_name"]))
gone = Rule(every=Memo, must=rc.HaveSource("page_code", model=Page, to="code"), remedies={rc.EXTRA: rc.Delete()})
reported = Rule(every=Basket, must=rc.Satisfy(Q(quantity__gte=9)))
"""


@pytest.fixture
def drifting(rules):
    rules(SHOWN)
    baskets = [Basket.objects.create(label=f"it's {n}", note="n", price=1, quantity=3) for n in range(4)]
    Bill.objects.create(basket_number=baskets[0].pk, amount=2)
    Note.objects.create(text="@ada")
    orphans(1)
    return baskets


def shown(*arguments):
    return " ".join(run("repair", *arguments)[1].split())


def test_a_plan_shows_its_first_rows_as_they_are_and_as_they_must_be(drifting):
    said = shown("--show", "2")
    first, second, third, _ = (each.pk for each in drifting)
    assert f"stale zoo.Basket {first} note: 'n' → \"it's 0\", price: 1.00 → 7.00" in said
    assert f"stale zoo.Basket {second} note: 'n' → \"it's 1\"" in said
    assert f"zoo.Basket {third} note" not in said
    assert f"missing a new zoo.Bill basket_number: {second}, amount: 3" in said
    assert f"stale zoo.Bill {Bill.objects.get().pk} amount: 2.00 → 3.00" in said
    assert "stale zoo.Note" in said
    assert "slug: '' → '@ADA'" in said
    assert "missing a new zoo.Mention" in said
    assert "user_name: 'ada'" in said
    assert f"extra zoo.Memo {Memo.objects.get().pk} page_code: 'gone0'" in said


def test_what_is_only_reported_is_no_row_of_a_plan(drifting):
    assert "zoo.Basket" not in shown("own.reported", "--show", "2")


def test_a_pipe_a_file_and_a_program_get_no_values_unless_they_ask(drifting, tmp_path):
    assert "→" not in shown()
    assert "→" not in shown("--show", "0")
    _, report = run_json("repair", "--show", "2")
    assert not any("rows" in each for each in report["rules"])
    plan = tmp_path / "plan.json"
    run("repair", "--format", "json", "--output", str(plan))
    assert "it's" not in plan.read_text()
    _, report = run_json("repair", "--values", "--show", "1")
    rows = {each["rule"]: each["rows"] for each in report["rules"] if "rows" in each}
    assert rows["own.stale"] == [
        {"drift": "stale", "model": "zoo.Basket", "key": str(drifting[0].pk),
         "columns": [{"column": "note", "there": "n", "owed": "it's 0"}, {"column": "price", "there": "1.00", "owed": "7.00"}]}
    ]  # fmt: skip
    assert rows["own.bills"][0]["key"] is None


def test_a_plan_with_values_is_a_plan_file_all_the_same(drifting, tmp_path):
    plan = str(tmp_path / "plan.json")
    assert run("repair", "own.stale", "--format", "json", "--values", "--output", plan)[0] == 0
    code, report = run_json("repair", "own.stale", "--plan", plan, "--apply")
    assert (code, report["rules"][0]["written"]["update"]) == (0, 4)


def test_a_control_character_of_a_value_reaches_no_terminal(rules):
    rules('r = Rule(every=Basket, must=HaveValues(note=F("label")))')
    Basket.objects.create(label="\x1b[31mred")
    said = run("repair", "--show", "1")[1]
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


def test_a_row_that_others_refer_to_is_not_planned():
    """A repair leaves it alone, and that is known beforehand."""
    contacts = [Contact.objects.create(email="a") for _ in range(4)]
    Letter.objects.create(contact=contacts[1])
    rule = Rule(name="r", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}, max_deletes=10)
    plan = planned(rule)
    assert (plan.planned.delete, plan.skipped, plan.found[EXTRA]) == (2, 1, 3)
    assert (
        f"1 record would be left as it is. {contacts[1].pk}: zoo.Letter by contact refers to it"
        in plan.warning
    )
    found_by_the_night(rule)
    _, (result,) = runs.repair({"r": rule}, using="default")
    assert (result.written.delete, result.skipped) == (2, 1)


def test_a_circle_in_which_one_record_looks_right_is_not_planned():
    one, two = Node.objects.create(name="a", depth=1), Node.objects.create(name="b", depth=5)
    Node.objects.filter(pk=one.pk).update(parent=two, depth=6)
    Node.objects.filter(pk=two.pk).update(parent=one)
    rule = Rule(name="r", every=Node, must=HaveValues(depth=F("parent__depth") + 1))
    plan = planned(rule)
    assert (plan.planned.total, plan.skipped) == (0, 1)
    assert "it is in a circle" in plan.warning
    _, (result,) = runs.repair({"r": rule}, using="default")
    assert result.written.total == 0


def test_what_can_not_be_written_is_left_once():
    """A merge that is refused, and rows whose values don't fit, are counted as skipped, and in the last line."""
    for _ in range(2):
        Contact.objects.create(email="a", spent=Decimal("999999.99"))
    must = BeUnique("email", merge={"spent": "sum"})
    merge = planned(Rule(name="merge", every=Contact, must=must, remedies={EXTRA: Merge()}))
    assert (merge.planned.total, merge.skipped, left_by_plan(merge)) == (0, 1, 1)
    one, two, below = (Node.objects.create(name=name, depth=5) for name in "abc")
    Node.objects.filter(pk=one.pk).update(parent=two)
    Node.objects.filter(pk=two.pk).update(parent=one)
    Node.objects.filter(pk=below.pk).update(parent=one)
    tree = planned(Rule(name="tree", every=Node, must=HaveValues(depth=F("parent__depth") + 1)))
    assert (tree.planned.total, left_by_plan(tree)) == (0, 3)
    assert "None of the 3 can be repaired" in tree.warning
