import json
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from reconcile.rules.registry import valid_rules
from sample_project.shop.models import Invoice, Order
from tests.cli.test_cli import HEAD, run, run_json
from tests.helpers import an_hour_ago
from tests.zoo.models import Basket

pytestmark = pytest.mark.once

FILE = "reconcile-baseline.toml"
RULE = "orders.invoice"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the baseline is written to by default."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def rules(folder, monkeypatch, settings):
    """Writes the project's own rules, in place of the shop's."""

    def write(text):
        package = folder.parent / "baseline_rules"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "own.py").write_text(HEAD + text)
        monkeypatch.syspath_prepend(folder.parent)
        settings.RECONCILE = {"RULES": ["baseline_rules"]}

    yield write
    for name in [name for name in sys.modules if name.startswith("baseline_rules")]:
        del sys.modules[name]


@pytest.fixture
def lacking(db):
    """The keys of twelve orders without an invoice."""
    return orders(12)


def files():
    return [path.name for path in Path.cwd().iterdir()]


def held(file=FILE, using="default"):
    return tomllib.loads(Path(file).read_text()).get("drift", {}).get(using, {})


def orders(number):
    Order.objects.bulk_create([Order(created_at=an_hour_ago()) for _ in range(number)])
    return [str(key) for key in Order.objects.order_by("-pk").values_list("pk", flat=True)[:number]][::-1]


def mend(*keys):
    for key in keys:
        Invoice.objects.create(order=Order.objects.get(pk=key), amount=0)


@pytest.mark.django_db
def test_a_clean_database_has_an_empty_baseline():
    code, out, err = run("baseline", "update")
    assert (code, err) == (0, "")
    assert f"{FILE} is written: it holds no drift of {len(valid_rules())} rules." in out
    assert held() == {}
    code, out, err = run("baseline", "verify")
    assert (code, err, "0 records checked, so nothing is known." in out) == (1, "", True)
    assert run_json("baseline", "verify")[1]["status"] == "empty"
    assert run("baseline", "verify", "--allow-empty")[0] == 0


@pytest.mark.django_db
def test_what_is_left_out_keeps_its_entry(rules):
    Basket.objects.create(note="x", quantity=1)
    rules(
        "from tests.zoo.models import Basket\n"
        "a = Rule(every=Basket, must=HaveValues(note='a'))\nb = Rule(every=Basket, must=HaveValues(quantity=7))\n"
    )
    assert run("baseline", "update")[0] == 0
    before = held()
    assert set(before) == {"own.a", "own.b"}
    Basket.objects.update(quantity=7)
    assert run("baseline", "update", "--exclude", "own.a")[0] == 0
    assert held() == {"own.a": before["own.a"]}


def test_known_drift_passes(lacking):
    assert run("check", RULE)[0] == 1
    assert run("baseline", "update", RULE)[0] == 0
    assert held() == {RULE: {"missing": lacking}}
    code, out, err = run("baseline", "verify", RULE)
    assert (code, err) == (0, "")
    assert "No new drift in 1 rule; 12 known drifted rows." in out


def test_new_drift_fails_and_is_named(lacking):
    run("baseline", "update", RULE)
    (new,) = orders(1)
    code, out, _ = run("baseline", "verify", RULE)
    assert code == 1
    assert f"missing new     {new}" in out
    assert "1 new drifted row in 1 of 1 rule." in out
    assert "Every order with not (status = 'draft')" in out
    assert "is mended" not in out
    assert "--only-mended" not in out


def test_mended_drift_must_be_taken_out_and_the_command_does_it(lacking):
    run("baseline", "update", RULE)
    mend(*lacking[:2])
    code, out, _ = run("baseline", "verify", RULE)
    assert code == 1
    assert f"missing mended  {lacking[0]}, {lacking[1]}" in out
    assert f"2 rows are mended, and still in {FILE}." in out
    command = out.partition("Take out what is mended: ")[2].split()
    assert command[:1] == ["reconcile"]
    assert run(*command[1:])[0] == 0
    assert held() == {RULE: {"missing": lacking[2:]}}
    assert run("baseline", "verify", RULE)[0] == 0


def test_taking_out_what_is_mended_lets_nothing_new_in(lacking):
    run("baseline", "update", RULE)
    mend(lacking[0])
    (new,) = orders(1)
    assert run("baseline", "update", RULE, "--only-mended")[0] == 0
    assert held() == {RULE: {"missing": lacking[1:]}}
    code, out, _ = run("baseline", "verify", RULE)
    assert code == 1
    assert f"missing new     {new}" in out


def test_one_mended_and_one_new_do_not_cancel_out(lacking):
    run("baseline", "update", RULE)
    mend(lacking[0])
    (new,) = orders(1)
    code, report = run_json("baseline", "verify", RULE)
    assert code == 1
    (rule,) = report["rules"]
    assert rule == {
        "rule": RULE, "status": "fail", "known": 12, "error": None,
        "new": [{"drift": "missing", "rows": 1, "keys": [new]}],
        "mended": [{"drift": "missing", "rows": 1, "keys": [lacking[0]]}],
    }  # fmt: skip


def test_the_json_of_both_verbs_is_the_documented_object(lacking):
    code, report = run_json("baseline", "update", RULE)
    assert (code, list(report)) == (
        0, ["version", "database", "file", "status", "written", "seconds", "rules"],
    )  # fmt: skip
    assert (report["version"], report["database"], report["file"]) == (2, "default", FILE)
    assert (report["status"], report["written"]) == ("clean", True)
    assert report["rules"] == [
        {"rule": RULE, "held": 12, "known": 0, "new": [{"drift": "missing", "rows": 12, "keys": lacking}],
         "mended": [], "error": None}
    ]  # fmt: skip
    code, report = run_json("baseline", "verify", RULE)
    assert (code, list(report)) == (0, ["version", "database", "file", "status", "seconds", "rules"])
    assert (report["status"], report["rules"][0]["status"]) == ("clean", "pass")


def test_more_than_a_hundred_keys_are_a_number_that_may_not_grow_or_shrink(db):
    keys = orders(101)
    run("baseline", "update", RULE)
    assert held() == {RULE: {"missing": 101}}
    assert run("baseline", "verify", RULE)[0] == 0
    (new,) = orders(1)
    code, out, _ = run("baseline", "verify", RULE)
    assert code == 1
    assert "missing new     1" in out
    mend(new, *keys[:2])
    code, out, _ = run("baseline", "verify", RULE)
    assert code == 1
    assert "missing mended  2" in out
    assert run("baseline", "update", RULE, "--only-mended")[0] == 0
    assert held() == {RULE: {"missing": keys[2:]}}


def test_an_update_of_some_rules_leaves_the_others_as_they_are(lacking):
    run("baseline", "update")
    before = held()
    assert set(before) == {RULE, "orders.notification"}
    orders(1)
    run("baseline", "update", "orders.notification")
    assert held()[RULE] == before[RULE]
    assert len(held()["orders.notification"]["missing"]) == 13
    run("baseline", "update", "--select", "tag:money")
    assert len(held()[RULE]["missing"]) == 13


def test_a_reason_is_kept_as_long_as_the_rule_has_drift(lacking):
    run("baseline", "update", RULE)
    path = Path(FILE)
    path.write_text(path.read_text().replace("missing =", 'reason = "until May"\nmissing ='))
    orders(1)
    run("baseline", "update", RULE)
    assert held()[RULE]["reason"] == "until May"
    assert len(held()[RULE]["missing"]) == 13
    assert run("baseline", "verify", RULE)[0] == 0


def test_a_second_update_writes_the_same_bytes(lacking):
    run("baseline", "update")
    before = Path(FILE).read_bytes()
    run("baseline", "update")
    assert Path(FILE).read_bytes() == before
    assert stat.S_IMODE(Path(FILE).stat().st_mode) == 0o644
    assert files() == [FILE]


def test_each_database_has_its_own_part_of_the_file(lacking):
    Path(FILE).write_text('version = 1\n[drift.archive."gone.rule"]\nmissing = 3\n')
    assert run("baseline", "update", RULE)[0] == 0
    assert held(using="archive") == {"gone.rule": {"missing": 3}}
    assert held() == {RULE: {"missing": lacking}}
    assert run("baseline", "verify", RULE)[0] == 0
    code, _, err = run("baseline", "verify", "--database", "archiv")
    assert (code, "Did you mean 'archive'?" in err) == (2, True)


def test_what_a_rule_tolerates_gets_into_no_baseline_and_new_drift_within_it_passes(db, rules):
    rules("r = Rule(every=Basket, must=HaveValues(label='x'), error_if=1, warn_if=1)")
    Basket.objects.create()
    assert run("baseline", "update")[0] == 0
    assert held() == {}
    code, out, _ = run("baseline", "verify")
    assert code == 0
    assert "1 new drifted row in 1 of 1 rule, within what the rules tolerate." in out
    Basket.objects.create()
    assert run("baseline", "verify")[0] == 1
    run("baseline", "update")
    assert len(held()["own.r"]["stale"]) == 2
    assert run("baseline", "verify")[0] == 0


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warn", 1)])
def test_a_new_warning_fails_only_on_demand(db, rules, fail_on, code):
    rules("r = Rule(every=Basket, must=HaveValues(label='x'), warn_if=0)")
    run("baseline", "update")
    Basket.objects.create()
    got, report = run_json("baseline", "verify", "--fail-on", fail_on)
    assert (got, report["status"], report["rules"][0]["status"]) == (code, "warn", "warn")


@pytest.mark.parametrize(
    ("limits", "drifted", "of", "status"),
    [
        ("", 1, 10, "fail"),
        ("warn_if=0", 10, 10, "warn"),
        ("warn_if=2", 2, 10, "pass"),
        ("warn_if='20%'", 2, 10, "pass"),
        ("warn_if='20%'", 3, 10, "warn"),
        ("error_if=2", 2, 10, "warn"),
        ("error_if=2", 3, 10, "fail"),
        ("error_if='20%'", 2, 10, "warn"),
        ("error_if='20%'", 3, 10, "fail"),
        ("warn_if=1, error_if='20%'", 1, 10, "pass"),
        ("warn_if=1, error_if='20%'", 2, 10, "warn"),
        ("warn_if='10%', error_if=2", 1, 10, "pass"),
        ("warn_if='10%', error_if=2", 2, 10, "warn"),
        ("warn_if='10%', error_if=2", 3, 10, "fail"),
        ("warn_if='0.5%', error_if='10%'", 1, 10, "warn"),
        ("warn_if=5, error_if=2", 3, 10, "fail"),
    ],
)
@pytest.mark.parametrize("fail_on", ["warn", "error"])
def test_counts_and_percents_decide_with_fail_on_which_code_a_check_has(
    db, rules, limits, drifted, of, status, fail_on
):
    rules(f"r = Rule(every=Basket, must=HaveValues(label='x'), {limits})")
    Basket.objects.bulk_create([Basket(label="" if number < drifted else "x") for number in range(of)])
    code, report = run_json("check", "--fail-on", fail_on)
    assert report["rules"][0]["status"] == status
    assert code == (1 if status == "fail" or (status, fail_on) == ("warn", "warn") else 0)


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_cannot_be_evaluated_exits_with_3_and_nothing_is_written(rules):
    rules(
        "a = Rule(every=Ghost, must=HaveValues(value=1))\nb = Rule(every=Basket, must=HaveValues(label='x'))"
    )
    # A key that no basket has, whatever the tests before have used up.
    Path(FILE).write_text('version = 1\n[drift.default."own.b"]\nstale = ["-9"]\n')
    before = Path(FILE).read_text()
    Basket.objects.create()
    code, report = run_json("baseline", "verify")
    assert (code, report["status"]) == (3, "error")
    assert [rule["status"] for rule in report["rules"]] == ["error", "fail"]
    code, out, _ = run("baseline", "update")
    assert code == 3
    assert f"{FILE} was not written. 1 rule could not be evaluated." in out
    assert run_json("baseline", "update")[1]["written"] is False
    assert Path(FILE).read_text() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "There is no baseline"),
        ("version = ", "can't be used"),
        ('version = 1\n[drift.default."orders.invioce"]\nmissing = 3', "Did you mean 'orders.invoice'?"),
    ],
)
def test_a_file_that_cannot_be_verified_exits_with_2_and_the_way_out(db, text, said):
    if text is not None:
        Path(FILE).write_text(text)
    code, out, err = run("baseline", "verify")
    assert (code, out) == (2, "")
    assert said in err
    assert "reconcile baseline update" in err


def test_a_rule_that_is_gone_is_taken_out_by_an_update_of_all(lacking):
    Path(FILE).write_text('version = 1\n[drift.default."gone.rule"]\nmissing = 3\n')
    assert run("baseline", "update", RULE)[0] == 0
    assert set(held()) == {RULE, "gone.rule"}
    assert run("baseline", "verify", RULE)[0] == 2
    assert run("baseline", "update")[0] == 0
    assert set(held()) == {RULE, "orders.notification"}
    assert run("baseline", "verify")[0] == 0


def test_a_broken_file_is_not_written_over(lacking):
    Path(FILE).write_text("version = 1\nmine = 3\n")
    assert run("baseline", "update")[0] == 2
    assert Path(FILE).read_text() == "version = 1\nmine = 3\n"


def test_taking_out_needs_a_file(lacking):
    code, _, err = run("baseline", "update", "--only-mended")
    assert code == 2
    assert "There is no baseline" in err
    assert files() == []


def test_another_file_is_named_in_the_commands(lacking, folder):
    (folder / "my files").mkdir()
    path = str(folder / "my files" / "known.toml")
    assert run("baseline", "update", RULE, "--file", path)[0] == 0
    mend(lacking[0])
    report = folder / "report.txt"
    assert run("baseline", "verify", RULE, "--file", path, "--output", str(report))[0] == 1
    assert f"reconcile baseline update --only-mended --file '{path}'" in " ".join(report.read_text().split())


@pytest.mark.parametrize("verb", ["update", "verify"])
def test_a_folder_or_a_file_in_none_is_refused(db, verb):
    for path in (".", "nowhere/known.toml"):
        code, out, err = run("baseline", verb, "--file", path)
        assert (code, out) == (2, ""), err
    assert files() == []


def test_a_baseline_that_may_not_be_written_can_be_verified(lacking):
    run("baseline", "update", RULE)
    Path(FILE).chmod(0o444)
    assert run("baseline", "verify", RULE)[0] == 0


@pytest.mark.django_db
def test_both_verbs_have_help_and_the_group_names_them():
    assert run("baseline", "--help")[0] == 0
    code, out, err = run("baseline", "verify", "--help")
    assert code == 0
    assert "--fail-on" in out + err
    assert run("baseline", "verfy")[0] == 2


def test_the_report_goes_to_standard_output_alone(lacking):
    code, out, err = run("baseline", "verify", "--format", "json", "--file", "none.toml")
    assert (code, out) == (2, "")
    assert "none.toml" in err
    run("baseline", "update")
    _, out, err = run("baseline", "verify", "--format", "json")
    assert json.loads(out)["status"] == "clean"
    assert err == ""
