"""The `markdown` format of `check`: a summary for a job's page or for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconcile.checking import RuleCheck
from reconcile.drift import Drift, Status
from reconcile.reports._saying import headline, keys, next_step, place, plain, prose, told
from reconcile.reports._summary import CheckReport, Overall
from reconcile.reports.markdown import escaped, fenced
from reconcile.reports.text import plural

__all__ = ["check_report"]

_MARKS = {Status.PASS: "✅", Status.WARN: "⚠️", Status.FAIL: "❌", Status.ERROR: "💥"}
_OVERALL: dict[Overall, str] = {
    "clean": "✅ Clean",
    "warn": "⚠️ Warnings",
    "drift": "❌ Drift",
    "error": "💥 Not evaluated",
}


def check_report(report: CheckReport) -> str:
    """A heading with the outcome, a table of what is to be looked at, each rule's part folded, and the rest in one line."""
    looked_at = [check for check in report.checks if told(report, check)]
    fine = [check for check in report.checks if not told(report, check)]
    parts = [f"## {_OVERALL[report.status]}: {plural(len(report.checks), 'rule')} checked", *_lead(report)]
    if looked_at:
        parts.append(_table(looked_at))
        parts += [_details(report, check) for check in looked_at]
    if fine:
        parts.append(_folded(f"{plural(len(fine), 'rule')} passed", [_table(fine)]))
    return "\n\n".join(parts)


def _lead(report: CheckReport) -> Iterator[str]:
    drifted = sum(check.tally.total for check in report.checks)
    yield (
        f"{plural(drifted, 'drifted row')} among {sum(check.tally.checked for check in report.checks):,} checked "
        f"in database {_code(report.database)}, {report.seconds:.1f} s."
    )


def _table(checks: Sequence[RuleCheck]) -> str:
    head = ["| | Rule | Checked | Missing | Stale | Extra |", "|---|---|--:|--:|--:|--:|"]
    return "\n".join([*head, *map(_row, checks)])


def _row(check: RuleCheck) -> str:
    numbers = [check.tally.checked, *(check.tally[drift] for drift in Drift)]
    shown = ["–"] * len(numbers) if check.error else [f"{number:,}" for number in numbers]
    return f"| {_MARKS[check.status]} | {escaped(plain(check.rule.name))} | {' | '.join(shown)} |"


def _details(report: CheckReport, check: RuleCheck) -> str:
    parts = [escaped(prose(check.rule.sentence))]
    if check.rule.reason:
        parts.append(escaped(prose(check.rule.reason)))
    if check.error:
        parts.append(fenced(prose(check.error)))
    parts += [_keys(str(each.drift), each.number, each.shown) for each in keys(report, check)]
    if where := place(check.rule):
        parts.append(f"Declared at {_code(f'{where[0]}:{where[1]}')}.")
    if step := next_step(report, check):
        parts.append(f"{step[0]}:\n\n{fenced(plain(step[1]), 'sh')}")
    summary = "could not be evaluated" if check.error else headline(check)
    return _folded(f"{_MARKS[check.status]} {check.rule.name}: {summary}", parts)


def _keys(drift: str, number: int, shown: Sequence[tuple[str, str]]) -> str:
    if not shown:
        return f"**{drift}** {number:,}"
    more = f"\n- and {number - len(shown):,} more" if number > len(shown) else ""
    lines = "\n".join(f"- {_code(key)}{f' from {_code(origin)}' if origin else ''}" for key, origin in shown)
    return f"**{drift}** {number:,}\n\n{lines}{more}"


def _folded(summary: str, parts: Sequence[str]) -> str:
    inside = "\n\n".join(parts)
    return f"<details>\n<summary>{_html(summary)}</summary>\n\n{inside}\n\n</details>"


def _html(text: str) -> str:
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """Text as code in a line, as it is: fenced by more backticks than it has in a row, and kept apart from them."""
    longest = max((len(each) for each in "".join(c if c == "`" else " " for c in text).split()), default=0)
    fence = "`" * (longest + 1)
    apart = " " if longest or text != text.strip() else ""
    # Within a table or a list GitHub would still take a bar for a cell's end; there are no tables around these.
    return f"{fence}{apart}{text}{apart}{fence}"
