"""The `markdown` format: for `rules`, a page that is kept beside the code; for `check`, a summary for a job or a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from django.db import connections

from reconcile.audit.places import name_of
from reconcile.core.drift import GUARANTEE_MEANINGS, Drift, Status
from reconcile.core.finder import Finder
from reconcile.db.dialects import dialect_of, forms_of
from reconcile.detect.checking import RuleCheck
from reconcile.reports.facts import age_in_words, nightly_in_words, plural
from reconcile.reports.findings import (
    CheckReport,
    Keys,
    Overall,
    empty_in_words,
    has_part,
    headline,
    keys,
    next_step,
    others,
    place,
    plain,
    prose,
    why,
    word,
)
from reconcile.reports.statements import finders_of, sort_constants, sql_of
from reconcile.rules.rule import Rule

__all__ = ["catalogue", "check_report", "escape", "fence", "stale_in"]


def catalogue(rules: Sequence[Rule], *, using: str) -> str:
    """The page about the rules. It changes only with the rules or with the kind of database. Costs no statement."""
    with dialect_of(using).without_server():
        return _page(rules, using)


def _page(rules: Sequence[Rule], using: str) -> str:
    anchors = _anchors([rule.name for rule in rules])
    head = (
        f"The SQL is that of {forms_of(connections[using]).title}. `:now` is the moment at which a run begins, "
        "`(:after, :upto]` the range of keys that one statement reads. Made by `reconcile rules --format markdown`."
    )
    parts = [
        "# Rules",
        head,
        "\n".join(f"- [{escape(rule.name)}](#{anchors[rule.name]})" for rule in rules),
        *(part for rule in rules for part in _rule(sort_constants(rule), using)),
    ]
    return "\n\n".join(parts)


def stale_in(page: str, current: str) -> Sequence[str]:
    """How `page` differs from the `current` page, as clauses; empty if it doesn't."""
    old, new = _sections(page.strip()), _sections(current.strip())
    if old == new and page.strip() == current.strip():
        return ()
    changes = {
        "changed": [name for name in new if name and name in old and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    clauses = [f"{how}: {', '.join(names)}" for how, names in changes.items() if names]
    return clauses or ["its head or its order changed"]


def _sections(page: str) -> Mapping[str, str]:
    """The sections of the page by the names of their rules. The text before the first rule has an empty name."""
    head, *sections = re.split(r"^## (?=.)", page, flags=re.MULTILINE)
    return {"": head, **{_unescape(section.partition("\n")[0]): section.strip() for section in sections}}


def _rule(rule: Rule, using: str) -> Iterator[str]:
    finders = finders_of(rule, using)
    yield f"## {escape(rule.name)}"
    yield escape(rule.sentence)
    if rule.reason:
        yield escape(rule.reason)
    rows = [(name, value) for name, value in _facts(rule, finders, using) if value]
    yield "\n".join(["| | |", "|---|---|", *(f"| {name} | {escape(value)} |" for name, value in rows)])
    for finder in finders:
        yield _finder_details(rule, finder, using)


def _facts(rule: Rule, finders: Sequence[Finder], using: str) -> Iterator[tuple[str, str]]:
    guarantee = rule.guarantee(using)
    yield "Records", rule.model._meta.label
    yield "Owner", rule.owner
    yield "Tags", ", ".join(rule.tags)
    yield "Remedies", ", ".join(f"{each.drift}: {type(rule.remedy(each.drift)).__name__}" for each in finders)
    yield "Nightly job", nightly_in_words(rule, using)
    yield "Guarantee", f"{guarantee}: {GUARANTEE_MEANINGS[guarantee]}"
    if rule.settle:
        yield "Judged", f"{age_in_words(rule.settle.age)} after {rule.settle.column}"
    yield "Stands in for", ", ".join(map(name_of, rule.covers))


def _finder_details(rule: Rule, finder: Finder, using: str) -> str:
    reach = "in windows" if finder.in_windows else "the whole table in one statement"
    summary = f"{finder.drift}, {reach}"
    if finder.needs_python:
        summary += "; Python tells which of these rows drift"
    sql = sql_of(rule, finder, using)
    if sql is None:
        sql = _comment_for_no_sql(finder)
    return f"<details>\n<summary>{summary}</summary>\n\n{fence(sql, 'sql')}\n\n</details>"


def fence(text: str, language: str = "") -> str:
    """The text as a block of code. The fence is longer than every run of backticks in the text."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return f"{fence}{language}\n{lines}\n{fence}"


def _comment_for_no_sql(finder: Finder) -> str:
    """The SQL comment for a finder that has no SELECT to show."""
    if finder.needs_python:
        return "-- the records are read"
    return "-- one SELECT for each content type in use" if finder.needs_database else "-- never any rows"


def _anchors(names: Sequence[str]) -> Mapping[str, str]:
    """The id that GitHub gives to each heading. A heading that reads like an earlier one gets a number."""
    anchors: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w\- ]", "", " ".join(name.split())).lower().replace(" ", "-")
        again = sum(
            re.fullmatch(re.escape(plain) + r"(-\d+)?", each) is not None for each in anchors.values()
        )
        anchors[name] = f"{plain}-{again}" if again else plain
    return anchors


def escape(text: str) -> str:
    """The text in one line, escaped so that Markdown shows it as it is. Addresses in memory are left out: they change."""
    line = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
    line = re.sub(r"([\\`*\[\]|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))", r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # These would make a list or a heading of the line.
    line = re.sub(r"^([-+#=])", r"\\\1", line)
    return re.sub(r"^(\d+)(?=[.)])", r"\1\\", line)


def _unescape(text: str) -> str:
    line = re.sub(r"\\([\\`*\[\]|~$_#=+.)-])", r"\1", text)
    return line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


_MARKS = {Status.PASS: "✅", Status.WARN: "⚠️", Status.FAIL: "❌", Status.ERROR: "💥"}
_SKIPPED = "⬜"
_OVERALL: dict[Overall, str] = {
    "clean": "✅ Clean",
    "empty": "⬜ 0 records checked",
    "warn": "⚠️ Warnings",
    "drift": "❌ Drift",
    "error": "💥 Not evaluated",
}


def check_report(report: CheckReport) -> str:
    """The summary: the outcome as its heading, a table of the rules that don't pass, a folded part for each, and the rest."""
    looked_at = [check for check in report.checks if has_part(report, check)]
    if report.is_empty:
        return "\n\n".join([f"## {_OVERALL['empty']}: nothing is known", empty_in_words(report)])
    parts = [
        f"## {_OVERALL[report.status]}: {plural(len(report.checks), 'rule')} checked{report.extent}",
        *_lead(report),
    ]
    if looked_at:
        parts.append(_table(looked_at))
        parts += [_check_details(report, check) for check in looked_at]
    parts += [_fold(title, [_table(those)]) for _, title, those in others(report)]
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
    mark = _SKIPPED if word(check) == "skipped" else _MARKS[check.status]
    return f"| {mark} | {escape(plain(check.rule.name))} | {' | '.join(shown)} |"


def _check_details(report: CheckReport, check: RuleCheck) -> str:
    parts = [escape(prose(check.rule.sentence))]
    if check.rule.reason:
        parts.append(escape(prose(check.rule.reason)))
    if check.error:
        parts.append(fence(prose(check.error)))
    parts += [escape(prose(remark)) for remark in check.remarks]
    parts += [_keys_text(drifted) for drifted in keys(report, check)]
    parts += ["\n".join(f"- {escape(each)}" for each in said)] if (said := why(report, check)) else []
    if where := place(check.rule):
        parts.append(f"Declared at {_code(f'{where[0]}:{where[1]}')}.")
    if step := next_step(report, check):
        parts.append(f"{step[0]}:\n\n{fence(plain(step[1]), 'sh')}")
    summary = "could not be evaluated" if check.error else headline(check)
    return _fold(f"{_MARKS[check.status]} {check.rule.name}: {summary}", parts)


def _keys_text(drifted: Keys) -> str:
    head = f"**{drifted.drift}** {drifted.number:,}"
    if not drifted.shown:
        return head
    lines = [
        f"- {_code(key)} from {_code(origin)}" if origin else f"- {_code(key)}"
        for key, origin in drifted.shown
    ]
    if drifted.more > 0:
        lines.append(f"- and {drifted.more:,} more")
    return "\n".join([head, "", *lines])


def _fold(summary: str, parts: Sequence[str]) -> str:
    inside = "\n\n".join(parts)
    return f"<details>\n<summary>{_html(summary)}</summary>\n\n{inside}\n\n</details>"


def _html(text: str) -> str:
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """The text as code within a line. The fence is longer than every run of backticks in the text.

    Not for tables: there GitHub takes a bar in the code for the end of the cell.
    """
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest or text != text.strip() else ""
    return f"{fence}{space}{text}{space}{fence}"
