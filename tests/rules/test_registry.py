import sys
import textwrap

import pytest
from django.core import checks

from reconcile.errors import InvalidRulesError, UnknownNameError, UsageError
from reconcile.rules.registry import load, project_rules, select, valid_rules

pytestmark = pytest.mark.once

HEAD = """
from django.db.models import F
from reconcile import HaveRow, HaveValues, Rule
from sample_project.shop.models import Invoice, Order
"""
GOOD = "paid = Rule(every=Order, must=HaveValues(item_count=0), tags=['a'], owner='sales')"


@pytest.fixture
def rule_files(tmp_path, monkeypatch, settings):
    """Write rule modules into a package of their own, and point the settings at it."""

    def write(**modules):
        package = tmp_path / "some_rules"
        package.mkdir()
        (package / "__init__.py").touch()
        for name, text in modules.items():
            (package / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        settings.RECONCILE = {"RULES": ["some_rules"]}

    yield write
    for name in [name for name in sys.modules if name.startswith("some_rules")]:
        del sys.modules[name]


def messages():
    return [str(fault) for fault in load().faults]


def test_a_rule_s_name_is_its_module_and_its_variable(rule_files):
    rule_files(orders=GOOD)
    assert list(valid_rules()) == ["orders.paid"]


def test_a_given_name_stays_when_the_rule_moves(rule_files):
    rule_files(moved="paid = Rule(every=Order, must=HaveValues(item_count=0), name='orders.paid')")
    assert list(valid_rules()) == ["orders.paid"]


def test_the_sample_project_s_rules_are_found_and_valid():
    assert "orders.invoice" in valid_rules()


def test_two_rules_of_one_name_are_a_fault(rule_files):
    rule_files(orders=GOOD, other=GOOD.replace("Rule(", "Rule(name='orders.paid', "))
    assert messages() == ["There are two rules named 'orders.paid'. Rename one, or give it name=."]


def test_a_rule_that_another_rule_module_imports_is_registered_once(rule_files):
    rule_files(aaa="from some_rules.orders import paid", orders=GOOD)
    assert list(valid_rules()) == ["orders.paid"]


def test_a_rule_that_a_function_elsewhere_builds_has_the_name_of_its_variable(rule_files):
    rule_files(
        _make="def make():\n    return Rule(every=Order, must=HaveValues(item_count=0))",
        orders="from some_rules._make import make\npaid = make()",
    )
    assert list(valid_rules()) == ["orders.paid"]


def test_a_module_that_cannot_be_imported_hides_no_other_fault(rule_files):
    rule_files(broken="1 / 0", orders="bad = Rule(every=Order, must=HaveValues(totl=1))")
    found = messages()
    assert any("'some_rules.broken' can't be imported: ZeroDivisionError" in each for each in found)
    assert any("Did you mean 'total'?" in each for each in found)


def test_a_misspelled_filter_names_the_nearest_field(rule_files):
    rule_files(orders="bad = Rule(every=Order.objects.filter(stauts='x'), must=HaveValues(item_count=0))")
    assert "Did you mean 'status'?" in messages()[0]


def test_a_rule_that_breaks_its_own_examination_is_reported(rule_files):
    rule_files(orders="bad = Rule(every=Order, must=HaveRow(Invoice, link={'order': F(3)}))")
    assert (
        "it can't be examined: AttributeError" in messages()[0]
        or "it can't be examined: TypeError" in messages()[0]
    )


def test_a_package_that_is_not_there_is_a_fault(settings):
    settings.RECONCILE = {"RULES": ["no_such_rules"]}
    (message,) = messages()
    assert message.startswith(
        "settings.RECONCILE['RULES'] names 'no_such_rules', and there is no such package."
    )
    with pytest.raises(InvalidRulesError, match="there is no such package"):
        project_rules()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("rules", "settings.RECONCILE is 'rules', not a dictionary."),
        ({"RULES": "rules"}, "settings.RECONCILE['RULES'] is 'rules'."),
        ({"RULE": []}, "unknown key 'RULE'. Did you mean 'RULES'?"),
        ({1: 2}, "settings.RECONCILE has an unknown key 1."),
        (
            {"ROW_SECURITY": "off"},
            "settings.RECONCILE['ROW_SECURITY'] is 'off'. Give 'refused', or 'filtered'",
        ),
        ({"LOCK_WAIT": 0}, "settings.RECONCILE['LOCK_WAIT'] is 0. Give the seconds"),
        ({"LOCK_WAIT": True}, "settings.RECONCILE['LOCK_WAIT'] is True."),
        ({"ROW_SECURITY": []}, "settings.RECONCILE['ROW_SECURITY'] is []."),
    ],
)
def test_settings_of_the_wrong_shape_are_a_fault(settings, value, said):
    settings.RECONCILE = value
    assert said in messages()[0]


@pytest.mark.parametrize("value", [{}, {"RULES": ["tests.zoo"]}, None])
def test_no_rules_at_all_is_a_usage_error_that_says_what_to_do(settings, value):
    if value is None:
        del settings.RECONCILE
    else:
        settings.RECONCILE = value
    with pytest.raises(UsageError, match="RECONCILE = "):
        valid_rules()


def test_invalid_rules_are_raised_all_together(rule_files):
    rule_files(orders="a = Rule(every=3, must=4)")
    with pytest.raises(InvalidRulesError) as raised:
        valid_rules()
    assert "every= is 3" in str(raised.value)
    assert "must= is 4" in str(raised.value)


def test_the_system_check_shows_every_fault(rule_files):
    rule_files(
        orders="bad = Rule(every=Order, must=HaveValues(totl=1))\nworse = Rule(every=Order, must=1, ownr='x')"
    )
    found = [each for each in checks.run_checks(tags=["reconcile"]) if each.id.startswith("reconcile.")]
    assert sorted(each.id for each in found) == ["reconcile.E010", "reconcile.E013"]
    assert {each.hint for each in found} == {"Did you mean 'owner'?", "Did you mean 'total'?"}
    # A warning, so that `migrate` and the development server go on.
    assert {each.level for each in found} == {checks.WARNING}


def test_the_system_check_has_no_error_for_good_rules():
    assert [each.id for each in checks.run_checks(tags=["reconcile"]) if each.level >= checks.ERROR] == []


def test_selecting_by_name_tag_owner_and_model():
    rules = valid_rules()
    assert list(select(rules, ["orders.invoice"])) == ["orders.invoice"]
    assert "orders.invoice" in select(rules, (), ["tag:money"])
    assert set(select(rules, (), ["owner:billing", "model:shop.order"])) == {"orders.invoice"}


@pytest.mark.parametrize(
    ("names", "selectors", "said"),
    [
        (["orders.invoce"], [], "There is no rule 'orders.invoce'. Did you mean 'orders.invoice'?"),
        (["zzz"], [], "`reconcile rules` lists them."),
        ([], ["tag:mony"], "There is no tag 'mony'. Did you mean 'money'?"),
        ([], ["owner:biling"], "Did you mean 'billing'?"),
        ([], ["model:shop.Ordr"], "Did you mean 'shop.Order'?"),
    ],
)
def test_an_unknown_name_names_the_nearest(names, selectors, said):
    with pytest.raises(UnknownNameError) as raised:
        select(valid_rules(), names, selectors)
    assert said in str(raised.value)


@pytest.mark.parametrize("selector", ["money", "team:x"])
def test_a_selector_of_another_kind_is_refused(selector):
    with pytest.raises(UsageError, match="is none of tag:NAME"):
        select(valid_rules(), (), [selector])


def test_selecting_nothing_is_an_error():
    with pytest.raises(UsageError, match="No rule matches"):
        select(valid_rules(), ["orders.invoice"], ["model:shop.Item"])


def test_check_deploy_fails_for_a_rule_that_cannot_be_used(rule_files):
    rule_files(orders=GOOD + "\nbad = Rule(every=Order, must=HaveValues(totl=1))", broken="1 / 0")
    found = checks.run_checks(tags=["reconcile"], include_deployment_checks=True)
    (error,) = [each for each in found if each.level >= checks.ERROR]
    assert (error.id, error.msg) == (
        "reconcile.E004",
        "Rules that can't be used, and so are never checked: broken, orders.bad.",
    )


def test_check_deploy_names_the_first_of_many_rules(rule_files):
    bad = "\n".join(f"bad{number} = Rule(every=Order, must=HaveValues(totl=1))" for number in range(7))
    rule_files(orders=bad)
    found = checks.run_checks(tags=["reconcile"], include_deployment_checks=True)
    (error,) = [each for each in found if each.id == "reconcile.E004"]
    assert error.msg.endswith("orders.bad4 and 2 more.")


def test_check_deploy_passes_for_good_rules(rule_files):
    rule_files(orders=GOOD)
    found = checks.run_checks(tags=["reconcile"], include_deployment_checks=True)
    assert [each.id for each in found] == []


def test_settings_that_cannot_be_used_stay_an_error(settings):
    settings.RECONCILE = {"RULE": []}
    (found,) = [each for each in checks.run_checks(tags=["reconcile"]) if each.id == "reconcile.E001"]
    assert found.level == checks.ERROR


def test_the_rules_are_examined_once_for_each_process(rule_files):
    rule_files(orders=GOOD)
    assert load() is load()


def test_a_file_with_faults_is_examined_again_when_it_is_written(rule_files, tmp_path):
    rule_files(orders=GOOD, broken="bad = Rule(")
    first = load()
    assert load() is first
    assert list(first.invalid) == ["broken"]
    (tmp_path / "some_rules" / "broken.py").write_text(HEAD + GOOD)
    assert list(load().rules) == ["broken.paid", "orders.paid"]


def test_other_settings_other_modules_and_new_files_are_seen(rule_files, tmp_path, settings):
    rule_files(orders=GOOD)
    first = load()
    assert list(first.rules) == ["orders.paid"]
    (tmp_path / "some_rules" / "more.py").write_text(HEAD + GOOD)
    assert list(load().rules) == ["more.paid", "orders.paid"]
    del sys.modules["some_rules.orders"]
    (tmp_path / "some_rules" / "orders.py").write_text(HEAD + GOOD.replace("paid", "settled"))
    assert list(load().rules) == ["more.paid", "orders.settled"]
    settings.RECONCILE = {"RULES": ["some_rules"], "CHUNK": 7}
    assert load() is not first


def test_two_rules_of_one_name_are_errors_beside_the_others(rule_files):
    rule_files(
        orders=GOOD + "\nfine = Rule(every=Order, must=HaveValues(item_count=0))",
        other=GOOD.replace("Rule(", "Rule(name='orders.paid', "),
    )
    registry = load()
    assert (list(registry.rules), list(registry.invalid)) == (["orders.fine"], ["orders.paid"])
    invalid = project_rules()["orders.paid"]
    assert (invalid.owner, [*invalid.tags], invalid.model_label) == ("sales", ["a"], "shop.Order")
    assert "There are two rules named 'orders.paid'." in invalid.error


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (GOOD + "\nLIMIT = {}['x']", {"orders": "The file", "orders.paid": "Its file"}),
        (GOOD + "\nbad = Rule(evry=1)", {"orders.bad": "It", "orders.paid": "Its file"}),
        (GOOD + "\nfrom nowhere import *", {"orders": "The file", "orders.paid": "Its file"}),
        (GOOD + "\nglobals()[1] = paid", {}),
        (GOOD + "\nraise GeneratorExit", {"orders": "The file", "orders.paid": "Its file"}),
        (GOOD + "\nLIMIT = int('x')", {"orders": "The file", "orders.paid": "Its file"}),
        (GOOD + "\nfor each in [1]:\n    Rule(evry=each)", {"orders": "The file", "orders.paid": "Its file"}),
        ("a = Rule(evry=Order)\nb = Rule(every=a.every)", {"orders.a": "It", "orders.b": "It"}),
        ("OPTIONS = {}['x']\na = Rule(every=Order, **OPTIONS)", {"orders": "The file", "orders.a": "It"}),
        ("import no_such\na = Rule(every=no_such.Order)", {"orders": "The file", "orders.a": "It"}),
        ("import no_such", {"orders": "The file"}),
        ("def make():\n    return Rule(evry=1)\na = make()", {"orders": "The file"}),
    ],
)  # fmt: skip
def test_what_a_file_with_faults_hides_is_named_as_far_as_it_can_be(rule_files, text, known):
    rule_files(orders=text)
    assert {name: rule.subject for name, rule in load().invalid.items()} == known
    assert bool(load().faults) is bool(known)


@pytest.mark.parametrize(
    "text", ["import sys\nsys.exit(0)", HEAD + GOOD + "\nfrom nowhere import x", "raise GeneratorExit"]
)
def test_a_package_inside_that_cannot_be_imported_is_an_error_and_stops_nothing_else(
    rule_files, tmp_path, text
):
    rule_files(orders=GOOD)
    inside = tmp_path / "some_rules" / "shop"
    inside.mkdir()
    (inside / "__init__.py").write_text(text)
    (inside / "hidden.py").write_text(HEAD + GOOD)
    registry = load()
    assert list(registry.rules) == ["orders.paid"]
    assert registry.invalid["shop"].is_file
    (inside / "__init__.py").write_text("")
    assert sorted(load().rules) == ["orders.paid", "shop.hidden.paid"]
    assert load() is load()


def test_a_rule_that_was_not_made_has_its_place(rule_files):
    rule_files(orders="a = Rule(evry=Order)")
    place = load().invalid["orders.a"].declared_at
    assert (place.file.endswith("some_rules/orders.py"), place.line) == (True, 5)


def test_a_folder_of_rules_that_is_no_package_is_an_error_and_one_without_rules_is_not(rule_files, tmp_path):
    rule_files(orders=GOOD)
    for name, text in (("shop", HEAD + GOOD), ("scripts", "print()")):
        (tmp_path / "some_rules" / name).mkdir()
        (tmp_path / "some_rules" / name / "own.py").write_text(text)
    registry = load()
    assert (list(registry.rules), list(registry.invalid)) == (["orders.paid"], ["shop"])
    assert "some_rules/shop has rules and no __init__.py" in registry.invalid["shop"].error
    (tmp_path / "some_rules" / "shop" / "__init__.py").touch()
    assert sorted(load().rules) == ["orders.paid", "shop.own.paid"]


def test_a_rule_is_selected_by_the_rows_that_it_writes_too():
    """Else those that are about a table by another one's records would silently be left out."""
    rules = valid_rules()
    assert "orders.invoice" in select(rules, (), ["model:shop.Invoice"])
    assert "orders.invoice" not in select(rules, (), [], exclude=["model:shop.invoice"])
    assert set(select(rules, (), ["model:shop.Access"])) == {"groups.access"}
    with pytest.raises(UnknownNameError, match="There is no rule about app 'reconcile'"):
        select(rules, (), ["app:reconcile"])
