"""`check --keys` and `repair --keys`: some records of one rule, and what is said of the others."""

import pytest

from reconcile.models import Outcome, Run
from sample_project.shop.models import Invoice, Order
from tests.cli.test_cli import lacking, rules, run, run_json  # noqa: F401
from tests.helpers import everything
from tests.zoo.models import Device, Page

pytestmark = pytest.mark.django_db

DEVICES = "named = Rule(every=Device, must=HaveValues(name='x'))\n"
IMPORTS = "from tests.zoo.models import Device, Page\n"


def test_a_check_of_some_records_counts_their_drift_alone(lacking):  # noqa: F811
    code, report = run_json("check", "orders.invoice", "--keys", f"{lacking[0]},{lacking[1]}")
    (rule,) = report["rules"]
    assert (code, rule["checked"], rule["missing"], rule["coverage"]) == (1, 2, 2, "keys")
    assert [each["key"] for each in rule["samples"]] == lacking[:2]
    code, out, _ = run("check", "orders.invoice", "--keys", lacking[0])
    said = " ".join(out.split())
    assert code == 1
    assert "Only 1 record was looked at, by keys; nothing is known of the others." in said
    assert f"reconcile repair orders.invoice --keys {lacking[0]}" in said


def test_a_check_of_all_records_has_no_coverage(lacking):  # noqa: F811
    assert "coverage" not in run_json("check", "orders.invoice")[1]["rules"][0]


@pytest.mark.once
def test_the_last_line_of_a_clean_check_says_that_only_some_were_looked_at(lacking):  # noqa: F811
    Invoice.objects.create(order_id=lacking[0], amount=0)
    code, out, _ = run("check", "orders.invoice", "--keys", lacking[0])
    assert code == 0
    assert out.rstrip().split("\n")[-1].startswith("No drift in the 1 record looked at, of 1 rule, ")
    assert "All clean" not in out


def test_a_plan_and_a_repair_of_some_records_leave_the_others_alone(lacking):  # noqa: F811
    before = everything()
    code, out, _ = run("repair", "orders.invoice", "--keys", ",".join(lacking[:3]))
    assert (code, "3 rows would be written" in out) == (0, True)
    assert everything() == before
    code, report = run_json("repair", "orders.invoice", "--keys", ",".join(lacking[:3]), "--apply")
    (rule,) = report["rules"]
    assert (code, rule["written"]["insert"], rule["records"]) == (0, 3, 3)
    assert sorted(str(key) for key in Invoice.objects.values_list("order", flat=True)) == sorted(lacking[:3])
    assert [str(key) for key in Outcome.objects.get().only] == lacking[:3]
    code, out, _ = run("repair", "orders.invoice", "--keys", lacking[5], "--apply")
    assert out.rstrip().endswith("Verified for 1 record alone.")
    code, out, _ = run("repair", "orders.invoice", "--keys", lacking[5], "--apply")
    assert code == 0
    assert (
        run("repair", "orders.invoice", "--keys", lacking[5])[1]
        .rstrip()
        .endswith("Nothing to repair for 1 record alone.")
    )


def test_a_stored_run_says_that_it_was_about_some_records(lacking):  # noqa: F811
    run("repair", "orders.invoice", "--keys", lacking[0], "--apply")
    code, report = run_json("runs", str(Run.objects.get().pk))
    assert (code, report["rules"][0]["records"]) == (0, 1)


@pytest.mark.once
@pytest.mark.parametrize("command", ["check", "repair"])
def test_a_key_that_no_record_has_is_named(lacking, command):  # noqa: F811
    code, out, err = run(command, "orders.invoice", "--keys", f"{lacking[0]},99999999")
    assert (code, out) == (2, "")
    assert "There is no shop.Order with the key '99999999'." in " ".join(err.split())


@pytest.mark.once
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("x", "'x' can't be a key of shop.Order"),
        ("", "'' can't be a key"),
        ("1,,2", "'' can't be a key"),
        ("1_0", "'1_0' can't be a key"),
    ],
)
def test_what_can_be_no_key_is_named(lacking, keys, said):  # noqa: F811
    code, _, err = run("check", "orders.invoice", "--keys", keys)
    assert (code, said in " ".join(err.split())) == (2, True)


@pytest.mark.once
@pytest.mark.parametrize("names", [(), ("orders.invoice", "orders.total")])
def test_keys_are_those_of_one_rule(lacking, names):  # noqa: F811
    code, _, err = run("check", *names, "--keys", lacking[0])
    assert (code, "--keys names records of one rule" in " ".join(err.split())) == (2, True)


@pytest.mark.once
def test_keys_and_a_plan_do_not_go_together(lacking, tmp_path):  # noqa: F811
    plan = tmp_path / "plan.json"
    run("repair", "orders.invoice", "--format", "json", "--output", str(plan))
    code, _, err = run("repair", "orders.invoice", "--plan", str(plan), "--keys", lacking[0])
    assert (code, "Leave --keys out" in err) == (2, True)


def test_a_plan_of_some_records_is_no_plan_of_the_rule(lacking, tmp_path):  # noqa: F811
    plan = tmp_path / "plan.json"
    run("repair", "orders.invoice", "--keys", lacking[0], "--format", "json", "--output", str(plan))
    code, _, err = run("repair", "orders.invoice", "--plan", str(plan), "--apply")
    assert (code, "it was made for some records alone, by --keys" in " ".join(err.split())) == (2, True)
    assert not Invoice.objects.exists()


def test_keys_may_be_uuids_and_texts_with_commas(rules):  # noqa: F811
    device = Device.objects.create(name="a")
    Device.objects.create(name="b")
    for code in ("a,b", "c"):
        Page.objects.create(code=code)
    rules(IMPORTS + DEVICES + "titled = Rule(every=Page, must=HaveValues(visits=7))\n")
    for written in (str(device.pk), device.pk.hex, str(device.pk).upper()):
        assert run_json("check", "own.named", "--keys", written)[1]["rules"][0]["checked"] == 1
    assert run("check", "own.titled", "--keys", "a,b")[0] == 2
    code, report = run_json("check", "own.titled", "--keys", "a,b", "--keys", "c")
    assert (code, report["rules"][0]["checked"]) == (1, 2)


def test_records_that_every_leaves_out_are_not_said_to_be_verified(lacking):  # noqa: F811
    Order.objects.filter(pk=lacking[0]).update(status="draft")
    code, out, _ = run("check", "orders.invoice", "--keys", lacking[0])
    assert (code, "0 records checked, so nothing is known, by 1 rule" in out, "No drift" in out) == (
        1,
        True,
        False,
    )
    code, out, _ = run("repair", "orders.invoice", "--keys", lacking[0], "--apply")
    assert (code, "Nothing is verified: none of the records was judged." in out, "Verified" in out) == (
        0,
        True,
        False,
    )


@pytest.mark.once
def test_a_hint_does_not_repeat_very_many_keys(lacking):  # noqa: F811
    keys = ",".join([lacking[0]] * 400)
    code, out, _ = run("check", "orders.invoice", "--keys", keys)
    assert code == 1
    assert out.rstrip().endswith("reconcile repair orders.invoice --keys '…'")
    assert len(out) < 2_000


def test_spaces_belong_to_keys_that_are_texts_and_not_to_numbers(lacking, rules):  # noqa: F811
    assert run("check", "orders.invoice", "--keys", f" {lacking[0]} , {lacking[1]}")[0] == 1
    rules(IMPORTS + "page = Rule(every=Page, must=HaveValues(visits=3), unattended=True)\n")
    for code in ("a", " a"):
        Page.objects.create(code=code)
    assert run("repair", "own.page", "--keys", " a", "--apply")[0] == 0
    assert {page.code: page.visits for page in Page.objects.all()} == {"a": 0, " a": 3}
