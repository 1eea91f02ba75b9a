"""The `markdown` format of `rules`: a page that a project keeps beside its code, and what has become stale in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from django.db import connections

from reconcile.finders import Finder
from reconcile.reports._catalogue import finders_of, in_order, sql_of
from reconcile.reports._facts import GUARANTEES, age_in_words, nightly
from reconcile.rules import Rule
from reconcile.sql.dialects import dialect_of

__all__ = ["catalogue", "escaped", "fenced", "stale_in"]

_DATABASES = {"postgresql": "PostgreSQL", "mysql": "MariaDB", "sqlite": "SQLite"}


def catalogue(rules: Sequence[Rule], *, using: str) -> str:
    """The page, the same whenever the rules and the kind of database are. Costs no statement."""
    with dialect_of(using).unasked():
        return _page(rules, using)


def _page(rules: Sequence[Rule], using: str) -> str:
    vendor = connections[using].vendor
    anchors = _anchors([rule.name for rule in rules])
    head = (
        f"The SQL is that of {_DATABASES.get(vendor, vendor)}. `:now` is the moment at which a run begins, "
        "`(:after, :upto]` the range of keys that one statement reads. Made by `reconcile rules --format markdown`."
    )
    parts = [
        "# Rules",
        head,
        "\n".join(f"- [{escaped(rule.name)}](#{anchors[rule.name]})" for rule in rules),
        *(part for rule in rules for part in _rule(in_order(rule), using)),
    ]
    return "\n\n".join(parts)


def stale_in(page: str, current: str) -> Sequence[str]:
    """What of `page` isn't as in `current`, as clauses; empty where the page is as it should be."""
    old, new = _sections(page.strip()), _sections(current.strip())
    if old == new and page.strip() == current.strip():
        return ()
    changes = {
        "changed": [name for name in new if name and name in old and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    said = [f"{how}: {', '.join(names)}" for how, names in changes.items() if names]
    return said or ["its head or its order changed"]


def _sections(page: str) -> Mapping[str, str]:
    """The page by the names of its rules; what stands before the first is under an empty name."""
    head, *sections = re.split(r"^## (?=.)", page, flags=re.MULTILINE)
    return {"": head, **{_unescaped(each.partition("\n")[0]): each.strip() for each in sections}}


def _rule(rule: Rule, using: str) -> Iterator[str]:
    finders = finders_of(rule, using)
    yield f"## {escaped(rule.name)}"
    yield escaped(rule.sentence)
    if rule.reason:
        yield escaped(rule.reason)
    rows = [(name, value) for name, value in _facts(rule, finders, using) if value]
    yield "\n".join(["| | |", "|---|---|", *(f"| {name} | {escaped(value)} |" for name, value in rows)])
    for finder in finders:
        yield _details(rule, finder, using)


def _facts(rule: Rule, finders: Sequence[Finder], using: str) -> Iterator[tuple[str, str]]:
    guarantee = rule.guarantee(using)
    yield "Records", rule.model._meta.label
    yield "Owner", rule.owner
    yield "Tags", ", ".join(rule.tags)
    yield "Remedies", ", ".join(f"{each.drift}: {type(rule.remedy(each.drift)).__name__}" for each in finders)
    yield "Nightly job", nightly(rule, using)
    yield "Guarantee", f"{guarantee}: {GUARANTEES[guarantee]}"
    if rule.settle:
        settled = f"{age_in_words(rule.settle.age)} after {rule.settle.column}"
        yield "Judged", settled
    yield "Stands in for", ", ".join(map(_dotted, rule.covers))


def _details(rule: Rule, finder: Finder, using: str) -> str:
    reach = "in windows" if finder.carried else "the whole table in one statement"
    summary = f"{finder.drift}, {reach}"
    if finder.sifted is not None:
        summary += "; Python tells which of these rows drift"
    sql = sql_of(rule, finder, using)
    if sql is None:
        sql = _unsaid(finder)
    return f"<details>\n<summary>{summary}</summary>\n\n{fenced(sql, 'sql')}\n\n</details>"


def fenced(text: str, language: str = "") -> str:
    """The text as a block of code, whatever backticks it has."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return f"{fence}{language}\n{lines}\n{fence}"


def _unsaid(finder: Finder) -> str:
    if finder.sifted is not None:
        return "-- the records are read"
    return "-- one SELECT for each content type in use" if finder.asks else "-- never any rows"


def _dotted(receiver: Callable[..., Any]) -> str:
    named = receiver if hasattr(receiver, "__qualname__") else type(receiver)
    return f"{named.__module__}.{named.__qualname__}"


def _anchors(names: Sequence[str]) -> Mapping[str, str]:
    """The ids that headings get where Markdown is shown; a second heading that reads alike is numbered."""
    anchors: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w\- ]", "", " ".join(name.split())).lower().replace(" ", "-")
        again = sum(
            re.fullmatch(re.escape(plain) + r"(-\d+)?", each) is not None for each in anchors.values()
        )
        anchors[name] = f"{plain}-{again}" if again else plain
    return anchors


def escaped(text: str) -> str:
    """Text in one line that Markdown shows as it is. Addresses in memory, which change, are left out."""
    line = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
    line = re.sub(r"([\\`*\[\]|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))", r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # At its beginning a line may be taken for a list or a heading.
    return re.sub(
        r"^([-+#=])|^(\d+)(?=[.)])", lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\", line
    )


def _unescaped(text: str) -> str:
    line = re.sub(r"\\([\\`*\[\]|~$_#=+.)-])", r"\1", text)
    return line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
