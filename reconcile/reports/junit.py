"""The `junit` format: a test case a rule, for all that reads JUnit's XML."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from junitparser import Attr, Error, Failure, IntAttr, Skipped
from junitparser.xunit2 import JUnitXml, TestCase, TestSuite

from reconcile.checking import RuleCheck
from reconcile.drift import Drift
from reconcile.reports._saying import headline, message, place, plain
from reconcile.reports._summary import CheckReport
from reconcile.reports.text import plural

__all__ = ["check_report"]


class _Case(TestCase):
    """A test case with the place of its rule, as pytest writes it and GitLab reads it."""

    file = Attr()
    line = IntAttr()


def check_report(report: CheckReport) -> str:
    """The document. Drift that fails the check is a failure, a rule that can't be evaluated an error.

    A rule is skipped where all its records are too young to be judged. Drift that does not fail the check is said
    in the case's output.
    """
    suite = TestSuite("reconcile")
    if report.at:
        suite.timestamp = report.at.isoformat(timespec="seconds")
    suite.add_property("database", plain(report.database))
    suite.add_property("run", report.run)
    for check in report.checks:
        suite.add_testcase(_case(report, check))
    document = JUnitXml("reconcile")
    document.add_testsuite(suite)
    # Counts the suite, too; the times it adds up leave out what lies between the rules.
    document.update_statistics()
    document.time = suite.time = round(report.seconds, 3)
    written = BytesIO()
    document.write(written, pretty=True)
    return written.getvalue().decode("utf-8").rstrip()


def _case(report: CheckReport, check: RuleCheck) -> _Case:
    case = _Case(
        name=plain(check.rule.name),
        classname=plain(check.rule.declared_in or "rules"),
        time=round(check.seconds, 3),
    )
    if where := place(check.rule):
        case.file, case.line = plain(where[0]), where[1]
    for name, value in _properties(check):
        case.add_property(name, plain(value))
    said = message(report, check)
    if check.error:
        case.result = [_result(Error(headline(check), "error"), said)]
    elif report.fails(check):
        case.result = [_result(Failure(headline(check), "drift"), said)]
    elif check.tally.settling and not check.tally.checked:
        case.result = [Skipped(f"{plural(check.tally.settling, 'record')} too young to be judged")]
    elif check.tally.total:
        case.system_out = said
    return case


def _result(result: Error | Failure, said: str) -> Error | Failure:
    result.text = said
    return result


def _properties(check: RuleCheck) -> Iterator[tuple[str, str]]:
    yield "status", str(check.status)
    if not check.error:
        yield "checked", str(check.tally.checked)
        yield from ((str(drift), str(check.tally[drift])) for drift in Drift)
        yield "guarantee", check.guarantee
    if check.rule.owner:
        yield "owner", check.rule.owner
    if check.rule.tags:
        yield "tags", ", ".join(check.rule.tags)
