"""A rule file whose import fails tells all its faults at once, each with its line and the way out."""

import inspect
import sys
import textwrap
from dataclasses import is_dataclass

import pytest

import reconcile as package
from reconcile import Rule
from reconcile.rules.registry import load, valid_rules

pytestmark = pytest.mark.once

HEAD = """
from django.db.models import Count, F, Q
from reconcile import *
from tests.zoo import tasks
from tests.zoo.models import Basket, Bill, Contact, Note, Team
"""
LINE = 6
"""The first line below the head."""
OWED = "every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')}, values={'score': 1})"


@pytest.fixture
def written(tmp_path, monkeypatch, settings):
    """Write rule modules into a package of their own, and load them."""

    def write(**modules):
        folder = tmp_path / "filed_rules"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in modules.items():
            head = "" if text.startswith("from __future__") else HEAD
            (folder / f"{name}.py").write_text(head + textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path)
        settings.RECONCILE = {"RULES": ["filed_rules"]}
        return load()

    yield write
    for name in [name for name in sys.modules if name.startswith("filed_rules")]:
        del sys.modules[name]


def messages(registry):
    return [f"{fault.id.removeprefix('reconcile.')} {fault}" for fault in registry.faults]


def values(said):
    return f"Rule(every=Basket, must=HaveValues({said}))"


def mended(said):
    return f"Rule({OWED}, remedies={{MISSING: {said}}})"


MISSPELT = [
    ("Rule", f"Rule({OWED}, setle=None)", "setle", "settle"),
    ("Rule", f"Rule({OWED}, ownr='x')", "ownr", "owner"),
    ("Settle", f"Rule({OWED}, settle=Settle('seen_at', days=1, huors=1))", "huors", "hours"),
    ("Settle", f"Rule({OWED}, settle=Settle('seen_at', minuets=1))", "minuets", "minutes"),
    ("HaveRow", "Rule(every=Basket, must=HaveRow(Bill, vaules={}))", "vaules", "values"),
    ("HaveRow", "Rule(every=Basket, must=HaveRow(Bill, vlaues={}))", "vlaues", "values"),
    ("HaveRows", "Rule(every=Basket, must=HaveRows(Bill, keys=['kind']))", "keys", "key"),
    ("HaveSource", "Rule(every=Basket, must=HaveSource('basket', wher=Q()))", "wher", "where"),
    ("HaveReceipt", "Rule(every=Team, must=HaveReceipt('x', confirmed_withn=1))", "confirmed_withn", "confirmed_within"),
    ("HaveReceipt", "Rule(every=Team, must=HaveReceipt(nmae='x'))", "nmae", "name"),
    ("BeUnique", "Rule(every=Contact, must=BeUnique('email', kep=['pk']))", "kep", "keep"),
    ("Satisfy", "Rule(every=Team, must=Satisfy(Q(points=1), valeus={}))", "valeus", "values"),
    ("FromPython", values("note=FromPython(str, read=['label'])"), "read", "reads"),
    ("HaveKeys", "Rule(every=Note, must=HaveValues(details=HaveKeys({'a': 1}, exat=True)))", "exat", "exact"),
    ("Latest", values("score=Latest('players', by=['pk'], values='age')"), "values", "value"),
    ("Latest", values("score=Latest('players', by=['pk'], fliter=Q())"), "fliter", "filter"),
    ("LookedUp", values("score=LookedUp(Bill, wehre=1)"), "wehre", "where"),
    ("RunningSum", values("score=RunningSum('score', ovre='pk')"), "ovre", "over"),
    ("Previous", values("score=Previous('score', bye=['pk'])"), "bye", "by"),
    ("Within", values("score=Within(1, 2, tolerence=3)"), "tolerence", "tolerance"),
    ("Exactly", "Rule(every=Basket, must=HaveRow(Bill, count=Exactly(m=3)))", "m", "Exactly takes n."),
    ("AtLeast", "Rule(every=Basket, must=HaveRow(Bill, count=AtLeast(m=3)))", "m", "AtLeast takes n."),
    ("AtMost", "Rule(every=Basket, must=HaveRow(Bill, count=AtMost(m=3)))", "m", "AtMost takes n."),
    ("Insert", mended("Insert(verbb=1)"), "verbb", "Insert takes no options."),
    ("Update", mended("Update(batch=1)"), "batch", "Update takes no options."),
    ("Report", mended("Report(loud=1)"), "loud", "Report takes no options."),
    ("Delete", mended("Delete(cascade=True)"), "cascade", "Delete takes no options."),
    ("Merge", mended("Merge(delete=True)"), "delete", "Merge takes no options."),
    ("Call", mended("Call(print, bacth=5)"), "bacth", "batch"),
    ("Enqueue", mended("Enqueue(tasks.keep, batchh=3)"), "batchh", "batch"),
    ("Enqueue", mended("Enqueue(tsak=print)"), "tsak", "task"),
    ("Resend", mended("Resend(print, singal=1)"), "singal", "signal"),
    ("Split", mended("Split(wehn=1)"), "wehn", "when"),
    ("BeUnique", "Rule(every=Contact, must=BeUnique(columns=['email']))", "columns", "BeUnique takes keep, others, merge, nulls_distinct."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "rule", "option", "meant"), MISSPELT)
def test_a_typo_in_an_option_of_any_class_is_a_fault_that_names_the_nearest(
    written, kind, rule, option, meant
):
    hint = meant if " takes " in meant else f"Did you mean {meant!r}?"
    found = messages(written(own=f"r = {rule}"))
    assert found == [f"E010 {kind} has no option {option!r} (filed_rules/own.py:{LINE}). {hint}"]


def test_no_class_of_the_language_is_left_out_above():
    named = {getattr(package, name) for name in package.__all__}
    declared = {each.__name__ for each in named if inspect.isclass(each) and is_dataclass(each)}
    assert declared == {kind for kind, *_ in MISSPELT}


def test_all_faults_of_one_file_are_told_together(written):
    registry = written(
        own=f"""
        a = Rule({OWED}, ownr="x")
        b = Rule(every=Basket.objects.filter(lable="x"), must=HaveValues(score=1))
        c = Rule({OWED}, max_repairs="many")
        d = Rule({OWED}, settle=Settle("seen_at", huors=1))
        e = Rule(every=Basket)
        f = Rule({OWED})
        1 / 0
        """,
        other=f"g = Rule({OWED}, owner=3)",
    )
    assert [fault.partition(" Choices")[0] for fault in messages(registry)] == [
        "E010 Rule has no option 'ownr' (filed_rules/own.py:7). Did you mean 'owner'?",
        "E002 Rule module 'filed_rules.own' (filed_rules/own.py:8): Cannot resolve keyword 'lable' into field. Did you mean 'label'?",
        "E010 Settle has no option 'huors' (filed_rules/own.py:10). Did you mean 'hours'?",
        "E010 Rule lacks 'must' (filed_rules/own.py:11). " + TAKEN,
        f"E002 Rule module 'filed_rules.own' can't be imported: {ZERO}",
        "E012 Rule 'other.g': owner= is 3. Give a str.",
        "E012 Rule 'own.c': max_repairs= is 'many'. Give a count of rows such as 10, or a percent such as '0.5%'.",
    ]
    # Of a file that raises no rule is used, but all of its rules are known.
    assert list(registry.rules) == []
    assert sorted(registry.invalid) == [
        "other.g",
        "own",
        "own.a",
        "own.b",
        "own.c",
        "own.d",
        "own.e",
        "own.f",
    ]
    assert [fault.id for fault in registry.invalid["own.a"].faults_found] == ["reconcile.E010"]


ZERO = (
    "ZeroDivisionError: division by zero (filed_rules/own.py:13). "
    "Mend the module, or take it out of settings.RECONCILE['RULES']."
)
TAKEN = f"Rule takes {', '.join(inspect.signature(Rule).parameters)}."


def test_what_fails_for_want_of_a_faulty_rule_is_not_told(written):
    found = messages(
        written(
            own=f"""
            from dataclasses import replace
            a = Rule({OWED}, ownr="x")
            b = replace(a, owner="x")
            c = replace(b, tags=["x"])
            """,
            other="from filed_rules.own import a\nd = a",
        )
    )
    assert found == ["E010 Rule has no option 'ownr' (filed_rules/own.py:8). Did you mean 'owner'?"]


def test_a_name_that_is_nowhere_is_told(written):
    found = messages(written(own=f"a = Rule({OWED}, ownr='x')\nb = Rule(every=Baskett, must=a)"))
    assert len(found) == 2
    assert "NameError: name 'Baskett' is not defined" in found[1]


def test_nothing_follows_from_an_import_that_fails(written):
    found = messages(
        written(own="from tests.zoo.models import Baskett\nb = Rule(every=Baskett, must=HaveValues())")
    )
    assert len(found) == 1
    assert "cannot import name 'Baskett'" in found[0]
    assert "(filed_rules/own.py:6)" in found[0]


def test_a_misspelling_in_a_function_of_another_file_is_told_once_with_its_line(written):
    found = messages(
        written(
            _making=f"def made():\n    return Rule({OWED}, ownr='x')\n",
            a="from filed_rules._making import made\nr = made()",
            b="from filed_rules._making import made\nr = made()",
        )
    )
    assert found == ["E010 Rule has no option 'ownr' (filed_rules/_making.py:7). Did you mean 'owner'?"]


def test_a_positional_argument_too_many_names_the_options(written):
    (found,) = messages(written(own="r = Rule(every=Basket, must=HaveReceipt('x', 3))"))
    assert found.startswith("E010 HaveReceipt takes 2 positional arguments but 3")
    assert found.endswith("(filed_rules/own.py:6). HaveReceipt takes name, confirmed_within, version.")


def test_a_file_that_is_not_python_names_the_line(written):
    (found,) = messages(written(own="\nr = Rule(every="))
    assert found.startswith("E002 Rule module 'filed_rules.own' can't be imported: SyntaxError: ")
    assert "(filed_rules/own.py:7)." in found


def test_a_package_that_fails_is_told_once(written, tmp_path):
    registry = written(own=f"r = Rule({OWED})")
    assert messages(registry) == []
    for name in [name for name in sys.modules if name.startswith("filed_rules")]:
        del sys.modules[name]
    (tmp_path / "filed_rules" / "__init__.py").write_text(
        HEAD + f"x = Rule({OWED}, ownr='x')\ny = Rule({OWED})\n"
    )
    registry = load()
    assert messages(registry) == [
        "E010 Rule has no option 'ownr' (filed_rules/__init__.py:6). Did you mean 'owner'?"
    ]
    assert (list(registry.rules), sorted(registry.invalid)) == ([], ["filed_rules", "x", "y"])


def test_a_faulty_file_is_looked_at_again_the_next_time(written, tmp_path):
    assert messages(written(own=f"r = Rule({OWED}, ownr='x')"))
    (tmp_path / "filed_rules" / "own.py").write_text(HEAD + f"r = Rule({OWED}, owner='somebody')")
    assert list(valid_rules()) == ["own.r"]


def test_an_error_that_only_the_first_import_raises_is_told(written, tmp_path):
    flag = tmp_path / "flag"
    text = f"import pathlib\nif not pathlib.Path({str(flag)!r}).exists():\n    pathlib.Path({str(flag)!r}).touch()\n    raise OSError('once')"
    (found,) = messages(written(own=text))
    assert "can't be imported: OSError: once (filed_rules/own.py:9)" in found


def test_future_statements_count_for_each_statement(written):
    unknown = f"def late(one: Nowhere): ...\nr = Rule({OWED}, ownr='x')\n"
    future = "from __future__ import annotations"
    (found,) = messages(written(own=f"{future}{HEAD}{unknown}"))
    assert found == "E010 Rule has no option 'ownr' (filed_rules/own.py:7). Did you mean 'owner'?"


def test_a_rule_that_a_loop_makes_stands_in_its_file(written):
    registry = written(own=f"for name in ('a', 'b'):\n    globals()[name] = Rule({OWED})\nc = Rule({OWED})")
    assert {name: rule.declared_at.line for name, rule in registry.rules.items()} == {
        "own.a": 1, "own.b": 1, "own.c": 8
    }  # fmt: skip


def test_a_rule_that_a_module_takes_whole_from_another_is_registered_once(written):
    registry = written(
        aaa="from filed_rules.own import *", own=f"globals()['a'] = Rule({OWED})\nb = Rule({OWED})"
    )
    assert "own.b" in registry.rules
    assert len(registry.rules) == 2


def test_an_annotated_rule_stands_on_its_line(written):
    registry = written(own=f"\nr: Rule = Rule({OWED})")
    assert registry.rules["own.r"].declared_at.line == 7


@pytest.mark.parametrize("code", [0, 3, "'stop'"])
def test_a_rule_file_that_ends_the_process_is_a_fault_like_any_other(written, code):
    registry = written(
        good="r = Rule(every=Basket, must=HaveValues(label='a'))", bad=f"import sys\n\nsys.exit({code})"
    )
    (fault,) = registry.faults
    assert fault.id == "reconcile.E002"
    assert "SystemExit" in fault.message
    assert "bad.py" in fault.message


@pytest.mark.parametrize(
    "text", [f"ALL = [Rule({OWED})]", f"ALL = {{'a': Rule({OWED})}}", f"ALL = (Rule({OWED}), 1)"]
)
def test_rules_that_stand_in_a_list_alone_are_an_error_and_not_left_out(written, text):
    registry = written(own=text, other=f"r = Rule({OWED})")
    assert set(registry.rules) == {"other.r"}
    (fault,) = registry.faults
    assert "ALL in filed_rules.own holds rules that have no variable of their own" in fault.message
    assert "own.ALL" in registry.invalid


def test_a_list_of_rules_that_have_variables_is_none_of_anybodys_business(written):
    registry = written(own=f"r = Rule({OWED})\nALL = [r]\nNUMBERS = [1, 2]")
    assert (set(registry.rules), registry.faults) == ({"own.r"}, [])
