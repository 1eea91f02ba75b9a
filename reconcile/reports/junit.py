"""The `junit` format: JUnit's XML, with one test case for each rule."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from junitparser import Attr, Error, Failure, IntAttr, Skipped
from junitparser.xunit2 import JUnitXml, TestCase, TestSuite

from reconcile.core.drift import Drift
from reconcile.detect.checking import RuleCheck
from reconcile.reports.facts import plural
from reconcile.reports.findings import CheckReport, empty_in_words, headline, message, place, plain, word

__all__ = ["Case", "check_report", "document_text", "with_text"]


class Case(TestCase):
    """A test case with the place of its rule, in the attributes that pytest writes and GitLab reads."""

    file = Attr()
    line = IntAttr()


def check_report(report: CheckReport) -> str:
    """The document. Drift that fails the check is a failure; a rule that can't be evaluated is an error.

    A rule is skipped if all its records are too young to be judged. Drift that does not fail the check stands in the
    output of the test case.
    """
    suite = TestSuite("reconcile")
    if report.at:
        suite.timestamp = report.at.isoformat(timespec="seconds")
    suite.add_property("database", plain(report.database))
    suite.add_property("run", report.run)
    for check in report.checks:
        suite.add_testcase(_case(report, check))
    if report.is_empty:
        suite.add_testcase(_empty_case(report))
    document = JUnitXml("reconcile")
    document.add_testsuite(suite)
    # This counts the suite, too. The times that it adds up don't include the time between the rules.
    document.update_statistics()
    document.time = suite.time = round(report.seconds, 3)
    return document_text(document)


def document_text(document: JUnitXml) -> str:
    """The document as text."""
    written = BytesIO()
    document.write(written, pretty=True)
    return written.getvalue().decode("utf-8").rstrip()


def _empty_case(report: CheckReport) -> Case:
    """A case of its own, since many readers take a suite of skipped cases for a good one."""
    case = Case(name="records", classname="reconcile")
    said = empty_in_words(report)
    case.result = [Skipped(said)] if report.allow_empty else [Failure(said, "empty")]
    return case


def _case(report: CheckReport, check: RuleCheck) -> Case:
    case = Case(
        name=plain(check.rule.name),
        classname=plain(check.rule.declared_at.module if check.rule.declared_at else "rules"),
        time=round(check.seconds, 3),
    )
    if where := place(check.rule):
        case.file, case.line = plain(where[0]), where[1]
    for name, value in _properties(check):
        case.add_property(name, plain(value))
    text = message(report, check)
    if check.error:
        case.result = [with_text(Error(headline(check), "error"), text)]
    elif report.fails(check):
        case.result = [with_text(Failure(headline(check), "drift"), text)]
    elif word(check) == "skipped":
        young = f"{plural(check.tally.settling, 'record')} too young to be judged"
        case.result = [Skipped(young if check.tally.settling else "0 records checked")]
    elif check.tally.total:
        case.system_out = text
    return case


def with_text(result: Error | Failure, text: str) -> Error | Failure:
    """The result with a text beneath its headline."""
    result.text = text
    return result


def _properties(check: RuleCheck) -> Iterator[tuple[str, str]]:
    yield "status", word(check)
    if not check.error:
        yield "checked", str(check.tally.checked)
        yield from ((str(drift), str(check.tally[drift])) for drift in Drift)
    if check.guarantee:
        yield "guarantee", str(check.guarantee)
    if check.remarks:
        yield "remarks", " ".join(check.remarks)
    if check.rule.owner:
        yield "owner", check.rule.owner
    if check.rule.tags:
        yield "tags", ", ".join(check.rule.tags)
