"""What each format says of a check, and that no text of a rule or a record can break it."""

import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from reconcile.core.drift import EXTRA, STALE, Status
from reconcile.reports import concise, github, html, json, junit, markdown, sarif, text
from reconcile.reports.findings import plain
from reconcile.runs.results import PastRun
from tests.reports.readers import (
    read_concise,
    read_github,
    read_html,
    read_json,
    read_junit,
    read_markdown,
    read_sarif,
)
from tests.reports.reading import NASTY, checked, drifting, labelled, nasty, owed, report

pytestmark = pytest.mark.once

HERE = "tests/reports/reading.py"


def line_of(rule):
    """The line on which the rule's name stands to the left of its call."""
    wanted = f"{rule.name.removeprefix('own.')} = Rule("
    return next(
        number
        for number, line in enumerate(Path(HERE).read_text().splitlines(), 1)
        if line.startswith(wanted)
    )


@pytest.fixture
def warned():
    return checked(labelled, drifted={STALE: 1}, keys=["8"], status=Status.WARN)


@pytest.fixture
def failed():
    return checked(error="OperationalError: no\n such server")


def test_a_drifted_rule_is_one_line_of_concise_at_the_rule_s_line():
    ((path, line, rule, status, said),) = read_concise(concise.check_report(report(drifting())))
    assert (path, int(line), rule, status) == (HERE, line_of(owed), "own.owed", "fail")
    assert said == (
        "Every basket must have exactly 1 Bill with basket_number = pk. 7 missing and 2 extra of 12 checked. "
        "missing 35, 40 and 5 more. See what a repair would do: reconcile repair own.owed"
    )


def test_a_rule_that_passed_is_no_line_of_concise_and_no_annotation(warned):
    clean = report(checked(), checked(labelled, drifted={STALE: 1}, status=Status.PASS))
    assert concise.check_report(clean) == github.check_report(clean) == ""
    assert read_sarif(sarif.check_report(clean))["results"] == []


def test_a_rule_that_warned_or_could_not_be_evaluated_is_said_in_each_format(warned, failed):
    made = report(warned, failed)
    assert [each[3] for each in read_concise(concise.check_report(made))] == ["warn", "error"]
    assert [each[0] for each in read_github(github.check_report(made))] == ["warning", "error"]
    assert [each["level"] for each in read_sarif(sarif.check_report(made))["results"]] == ["warning", "error"]
    for said in (concise.check_report(made), github.check_report(made), html.check_report(made)):
        assert "OperationalError: no such server" in said


def test_a_warning_is_an_error_where_warnings_fail_the_check(warned):
    strict = report(warned, fail_on="warn")
    assert read_github(github.check_report(strict))[0][0] == "error"
    assert read_sarif(sarif.check_report(strict))["results"][0]["level"] == "error"
    (case,) = read_junit(junit.check_report(strict))
    assert case.is_failure


def test_an_annotation_stands_at_the_rule_s_line_and_says_all_there_is():
    ((level, properties, said),) = read_github(github.check_report(report(drifting())))
    assert level == "error"
    assert properties == {"file": HERE, "line": str(line_of(owed)), "title": "own.owed fail"}
    assert said.split("\n")[1:3] == ["7 missing and 2 extra of 12 checked.", "missing 35, 40 and 5 more."]


def test_what_no_text_may_break_is_one_annotation():
    said = github.check_report(report(nasty()))
    assert said.count("\n") == 0
    ((_, properties, message),) = read_github(said)
    assert properties["title"] == f"{NASTY} fail"
    assert plain(NASTY) in message


def test_what_no_text_may_break_is_one_line_of_concise():
    said = concise.check_report(report(nasty()))
    assert len(said.splitlines()) == 1
    assert said.isprintable()


def test_junit_has_a_case_a_rule_with_its_place_and_its_numbers(warned, failed):
    cases = list(read_junit(junit.check_report(report(drifting(), warned, failed, checked()))))
    assert [case.name for case in cases] == ["own.owed", "own.labelled", "own.owed", "own.owed"]
    assert [(case.is_failure, case.is_error, case.is_skipped) for case in cases] == [
        (True, False, False), (False, False, False), (False, True, False), (False, False, False),
    ]  # fmt: skip
    first = cases[0]
    assert (first._elem.get("file"), int(first._elem.get("line"))) == (HERE, line_of(owed))
    assert (first.classname, first.time) == ("tests.reports.reading", 0.25)
    properties = {each.get("name"): each.get("value") for each in first._elem.iter("property")}
    assert properties == {
        "status": "fail", "checked": "12", "missing": "7", "stale": "0", "extra": "2", "guarantee": "constraint",
        "owner": "billing", "tags": "money",
    }  # fmt: skip
    assert first.result[0].message == "7 missing and 2 extra of 12 checked"
    assert "missing 35, 40 and 5 more" in first.result[0].text
    assert "1 stale of 12 checked" in cases[1].system_out


def test_the_sums_of_junit_are_those_of_its_cases(failed):
    suite = read_junit(
        junit.check_report(report(drifting(), failed, checked(checked=0, settling=3), checked()))
    )
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 1, 1)
    assert (suite.time, suite.timestamp) == (0.5, "2026-03-04T05:06:07+00:00")


def test_a_rule_that_has_judged_no_record_is_skipped_in_junit_and_all_together_fail():
    young, all_together = read_junit(junit.check_report(report(checked(checked=0, settling=3))))
    assert (young.is_skipped, young.result[0].message) == (True, "3 records too young to be judged")
    assert (all_together.is_failure, "0 records checked" in all_together.result[0].message) == (True, True)
    empty, _ = read_junit(junit.check_report(report(checked(checked=0))))
    assert (empty.is_skipped, empty.result[0].message) == (True, "0 records checked")
    _, seen = read_junit(junit.check_report(report(checked(checked=0), checked())))
    assert seen.is_passed


def test_what_no_text_may_break_is_a_case_of_junit():
    (case,) = read_junit(junit.check_report(report(nasty())))
    assert case.name == plain(NASTY)
    assert plain(NASTY) in case.result[0].text


def test_sarif_describes_each_rule_and_places_each_result(warned):
    run = read_sarif(sarif.check_report(report(checked(labelled), drifting())))
    assert [each["id"] for each in run["tool"]["driver"]["rules"]] == ["own.labelled", "own.owed"]
    (result,) = run["results"]
    assert (result["ruleId"], result["ruleIndex"], result["level"]) == ("own.owed", 1, "error")
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": HERE, "uriBaseId": "%SRCROOT%"}, "region": {"startLine": line_of(owed)},
    }  # fmt: skip
    assert result["properties"] == {"status": "fail", "checked": 12, "missing": 7, "stale": 0, "extra": 2}


def test_a_result_of_sarif_is_the_same_tomorrow_and_another_in_another_database():
    def fingerprint(check, **options):
        (result,) = read_sarif(sarif.check_report(report(check, **options)))["results"]
        return result["partialFingerprints"]["reconcileRule/v1"]

    today = fingerprint(drifting())
    assert fingerprint(drifting(keys=["1"], checked=99)) == today
    assert fingerprint(drifting(), database="archive") != today
    assert fingerprint(checked(labelled, drifted={STALE: 1})) != today


def test_a_rule_that_could_not_be_evaluated_makes_the_invocation_of_sarif_unsuccessful(failed):
    (good,) = read_sarif(sarif.check_report(report(drifting())))["invocations"]
    assert (good["executionSuccessful"], good["toolExecutionNotifications"]) == (True, [])
    (bad,) = read_sarif(sarif.check_report(report(checked(labelled), failed)))["invocations"]
    assert bad["executionSuccessful"] is False
    assert bad["toolExecutionNotifications"][0]["associatedRule"] == {"id": "own.owed", "index": 1}


def test_what_no_text_may_break_is_a_result_of_sarif():
    run = read_sarif(sarif.check_report(report(nasty())))
    assert run["results"][0]["ruleId"] == plain(NASTY)


def test_the_shape_of_sarif_refuses_what_is_none():
    with pytest.raises(jsonschema.ValidationError):
        read_sarif(sarif.check_report(report(drifting())).replace('"startLine"', '"line"'))


def test_markdown_has_a_table_of_what_is_to_be_looked_at_and_one_of_the_rest(failed):
    tokens = read_markdown(markdown.check_report(report(checked(labelled), drifting(), failed)))
    tables = [
        list(group)
        for inside, group in itertools.groupby(tokens, lambda each: each.level > 0)
        if inside and any(each.type == "thead_open" for each in group)
    ]
    assert len(tables) == 2
    said = markdown.check_report(report(checked(labelled), drifting(), failed))
    assert "| ❌ | own.owed | 12 | 7 | 0 | 2 |" in said
    assert "| 💥 | own.owed | – | – | – | – |" in said
    assert "<summary>1 rule passed</summary>" in said
    assert f"Declared at `{HERE}:{line_of(owed)}`." in said


def test_what_no_text_may_break_is_text_in_markdown():
    tokens = read_markdown(markdown.check_report(report(nasty())))
    inline = [child for token in tokens for child in token.children or ()]
    assert plain(NASTY) in [child.content for child in inline if child.type == "code_inline"]
    assert [child for child in inline if child.type == "html_inline"] == []
    assert {each.type for each in inline} <= {
        "text",
        "code_inline",
        "strong_open",
        "strong_close",
        "softbreak",
        "text_special",
    }
    cells = [token for token in tokens if token.type == "td_open"]
    assert len(cells) == 6
    blocks = "".join(token.content for token in tokens if token.type == "html_block")
    assert "<b>" not in blocks
    assert blocks.count("<details>") == blocks.count("</details>") == 1


def test_html_needs_no_network_and_no_script(failed):
    page = read_html(html.check_report(report(drifting(), failed, checked())))
    for tag, attributes in page.elements:
        assert tag not in {"script", "img", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in {"src", "href", "srcset"} & attributes.keys():
            assert attributes[name].startswith(("#", "data:,"))
    said = html.check_report(report(drifting()))
    assert "url(" not in said
    assert "@import" not in said
    assert "prefers-color-scheme: dark" in said
    assert any(attributes.get("name") == "viewport" for _, attributes in page.elements)


def test_html_shows_counts_keys_the_command_and_the_sql_folded_away():
    page = read_html(html.check_report(report(drifting())))
    for said in (
        "7 missing",
        "2 extra",
        "12 checked",
        "35",
        "and 5 more",
        "reconcile repair own.owed",
        "owner billing",
    ):
        assert said in page.text
    assert f"{HERE}:{line_of(owed)}" in page.text
    assert "SELECT" in page.text
    folded = [attributes for tag, attributes in page.elements if tag == "details"]
    assert len(folded) == 2
    assert not any("open" in attributes for attributes in folded)


def test_html_has_the_worst_first():
    page = read_html(html.check_report(report(checked(labelled), drifting(), checked(error="boom"))))
    cards = [attributes["class"] for tag, attributes in page.elements if tag == "section"]
    assert cards == ["card error", "card fail"]
    assert page.text.index("own.labelled") > page.text.index("1 rule passed")


def test_what_no_text_may_break_is_text_in_html():
    page = read_html(html.check_report(report(nasty(), origins={(NASTY, NASTY): NASTY}, past=trend(NASTY))))
    assert page.text.count(plain(NASTY)) >= 4
    assert [tag for tag, _ in page.elements].count("b") == 4 + 3


def trend(name, *numbers):
    return {
        name: [
            PastRun(datetime(2026, 3, day, tzinfo=UTC), number, 12)
            for day, number in enumerate(numbers or (3,), 1)
        ]
    }


def test_html_draws_the_trend_of_past_runs_and_ends_it_with_today():
    page = read_html(html.check_report(report(drifting(), past=trend("own.owed", 0, 18, 1))))
    bars = [attributes for tag, attributes in page.elements if tag == "rect"]
    assert [int(bar["height"]) for bar in bars] == [1, 32, 4, 16]
    assert [bar["class"] for bar in bars] == ["then"] * 3 + ["now"]
    assert "Drifted rows after 3 earlier runs since 1 March 2026: 0, 18, 1; now 9." in page.text


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (datetime(2026, 3, 4, 5, 6, tzinfo=UTC), "4 March 2026, 05:06 UTC"),
        (datetime(2026, 3, 14, 5, 6), "14 March 2026, 05:06"),  # noqa: DTZ001
    ],
)
def test_the_moment_of_the_check_is_said_in_the_project_s_time_zone_or_without_one(at, said):
    assert f"· {said} ·" in html.check_report(report(drifting(), at=at))
    suite = read_junit(junit.check_report(report(drifting(), at=at)))
    assert suite.timestamp.startswith(at.isoformat(timespec="seconds"))


def test_html_draws_no_trend_where_nothing_is_remembered():
    page = read_html(html.check_report(report(drifting())))
    assert "svg" not in {tag for tag, _ in page.elements}


def test_a_sample_s_origin_stands_beside_its_key_in_each_format():
    made = report(drifting(), origins={("own.owed", "35"): "orders.json: zoo.basket 35"})
    for form in (concise, github, junit, sarif, markdown, html):
        assert "orders.json: zoo.basket 35" in form.check_report(made).replace("%3A", ":")
    assert "missing 35 (orders.json: zoo.basket 35), 40 and 5 more" in concise.check_report(made)


def test_drift_that_only_a_person_can_mend_names_the_command_that_explains_it():
    said = concise.check_report(report(checked(owed, drifted={EXTRA: 1}, keys=["4"]), database="archive"))
    assert said.endswith(
        "A person decides. See how one stands: reconcile explain own.owed --key 4 --database archive"
    )


def test_a_check_of_records_that_are_gone_names_no_command():
    made = report(drifting(), hint="")
    for form in (concise, github, junit, sarif, markdown, html):
        assert "reconcile repair" not in form.check_report(made)


def test_the_json_of_a_check_is_as_its_schema_says(warned, failed):
    said = read_json(json.check_report(report(drifting(), warned, failed, checked())))
    assert [each["status"] for each in said["rules"]] == ["fail", "warn", "error", "pass"]


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ('"version": 2', '"version": 1'),
        ('"stale"', '"stael"'),
        ('"fail"', '"failed"'),
        ('"error": null', '"error": "x"'),
    ],
)
def test_the_schema_refuses_what_is_no_json_of_a_check(there, instead):
    said = json.check_report(report(drifting()))
    assert there in said
    with pytest.raises(jsonschema.ValidationError):
        read_json(said.replace(there, instead))


@pytest.mark.parametrize(
    "form", [concise, github, sarif, junit, markdown, html, json], ids=lambda each: each.__name__
)
def test_what_is_to_be_known_of_the_records_is_said_in_each_format(form):
    said = "2 of the missing records can't be evaluated, nor repaired"
    text = form.check_report(report(replace(drifting(), remarks=(said,))))
    assert said in text.replace("&#x27;", "'").replace("&#39;", "'")


def test_no_repair_is_proposed_where_it_would_write_nothing():
    ((*_, some),) = read_concise(
        concise.check_report(report(replace(drifting(drifted={STALE: 2}), unrepairable=1)))
    )
    ((*_, none),) = read_concise(
        concise.check_report(report(replace(drifting(drifted={STALE: 2}), unrepairable=2)))
    )
    assert "See what a repair would do" in some
    assert "See what a repair would do" not in none
    assert "A person decides" in none


def page_of(*checks):
    console = Console(width=140, file=StringIO(), record=True)
    console.print(text.check_report(report(*checks)), crop=False)
    return console.export_text()


def named(check, name):
    return replace(check, rule=replace(check.rule, name=name))


def test_a_page_of_very_many_rules_lists_the_worst_and_says_where_the_rest_is():
    few = page_of(*[drifting() for _ in range(text.LISTED)])
    assert "not listed" not in few
    fine, bad = (
        [named(checked(), f"fine.r{n}") for n in range(150)],
        [named(drifting(), f"bad.r{n}") for n in range(200)],
    )
    many = page_of(*fine, *bad)
    assert len(re.findall(r"^fail  bad\.r", many, re.MULTILINE)) == text.LISTED
    assert "fine.r" not in many
    assert (
        "300 rules not listed here: 150 fail, 150 pass. All of them: --format html=FILE or json=FILE" in many
    )
    assert len(many.splitlines()) < 8 * text.LISTED


def test_the_worst_come_first_in_a_page_of_very_many(failed):
    said = page_of(*[named(drifting(), f"bad.r{n}") for n in range(60)], named(failed, "broken.r"))
    assert said.index("broken.r") < said.index("bad.r0")
