"""Comparisons of paths, as a text for people, as JSON, and as JUnit for CI services."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconcile.audit.parity.comparing import Difference
from reconcile.audit.parity.suite import Comparison, Suite
from reconcile.core.wording.names import plural
from reconcile.reports.findings import plain
from reconcile.reports.text_parity import parity_as_text

if TYPE_CHECKING:
    from reconcile.rules.rule import Rule

__all__ = ["as_json", "as_junit", "as_text"]


def as_text(suite: Suite) -> str:
    """Each comparison with what differs, and at the end what is proven and what is not."""
    blocks = ["\n".join(_comparison(each)) for each in suite.comparisons]
    return "\n\n".join([*blocks, "\n".join(_summary(suite))])


def _comparison(found: Comparison) -> Iterator[str]:
    records = ", ".join(f"{number:,} {label}" for label, number in found.records.items())
    if found.rules:
        yield ", ".join(found.rules)
        yield f"  on {records or 'no record'}, from the {found.origin}"
    yield from (f"  {line}" for line in _outcome(found))
    if found.refused:
        yield from (f"  ensure left out {name}: {why}" for name, why in found.refused.items())
    if found.idle:
        yield f"  Not called by these saves, so that nothing is shown of it: {', '.join(found.idle)}."


def _outcome(found: Comparison) -> Sequence[str]:
    if found.parity is None:
        return [f"Error: {found.error}"]
    if found.status == "empty":
        return ["Neither has done anything: nothing was compared."]
    return parity_as_text(found.parity, found.names).splitlines()


def _summary(suite: Suite) -> Iterator[str]:
    if suite.without_records:
        yield f"No records for {', '.join(suite.without_records)}: name a factory= in the rule, give --fixtures, or take existing rows of a copy (--on-copy)."
    yield " ".join(_last_line(suite))


def _last_line(suite: Suite) -> Iterator[str]:
    """What is shown and what isn't: whoever reads this alone must not be told something better than the truth."""
    by_status = {
        status: [each for each in suite.comparisons if each.status == status]
        for status in ("error", "different", "unsteady", "empty", "same")
    }
    if not suite.comparisons:
        yield "Nothing was compared."
        return
    parts = [f"{_subjects(found)} {_SAID[status]}" for status, found in by_status.items() if found]
    yield f"{'; '.join(parts)}."
    if suite.ran or suite.idle:
        yield f"{len(suite.ran):,} of {plural(len(suite.ran) + len(suite.idle), 'covered function')} {'was' if len(suite.ran) == 1 else 'were'} called."
    if suite.without_records:
        yield f"{plural(len(suite.without_records), 'rule')} without records."


_SAID = {
    "error": "could not be compared",
    "different": "did not leave the same",
    "unsteady": "did not do the same twice",
    "empty": "did nothing, so that nothing was compared",
    "same": "left the same",
}


def _subjects(found: Sequence[Comparison]) -> str:
    rules = sum(len(each.rules) for each in found)
    return plural(rules, "rule") if rules else " and ".join(found[0].names)


# JSON.


def as_json(suite: Suite) -> str:
    """The document of docs/schemas/parity-1.json."""
    document = {
        "version": 1,
        "status": suite.status,
        "comparisons": [_comparison_as_json(each) for each in suite.comparisons],
        "without_records": [*suite.without_records],
    }
    return json.dumps(document, indent=2)


def _comparison_as_json(found: Comparison) -> dict[str, Any]:
    parity = found.parity
    return {
        "paths": [*found.names],
        "rules": [*found.rules],
        "origin": found.origin or None,
        "records": dict(found.records),
        "status": found.status,
        "error": found.error or None,
        "differences": [_difference(each) for each in parity.differences] if parity else [],
        "unsteady": {name: [*map(_difference, each)] for name, each in parity.unsteady.items()}
        if parity
        else {},
        "volatile": sorted(".".join(each) for each in parity.volatile) if parity else [],
        "refused": dict(found.refused),
        "called": [*found.ran],
        "not_called": [*found.idle],
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "name": found.name,
        "one": _values(found.one),
        "two": _values(found.other),
        "times": found.times,
    }


def _values(values: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if values is None else dict(values)


# JUnit.


def as_junit(suite: Suite, rules: Mapping[str, Rule]) -> str:
    """A case for each rule, or for the two functions; a rule without records is skipped. rules: those of the project, by name. Needs junitparser."""
    from junitparser import Failure, Skipped
    from junitparser.xunit2 import JUnitXml, TestSuite

    from reconcile.reports.junit import document_text

    cases = TestSuite("reconcile parity")
    for each in suite.comparisons:
        for name in each.rules or [" and ".join(each.names)]:
            cases.add_testcase(_case(name, rules, _failure(each)))
    for name in suite.without_records:
        cases.add_testcase(_case(name, rules, Skipped("no records: name a factory= in the rule")))
    if not suite.comparisons:
        cases.add_testcase(_case("comparisons", rules, Failure("Nothing was compared.", "empty")))
    document = JUnitXml("reconcile")
    document.add_testsuite(cases)
    document.update_statistics()
    return document_text(document)


def _case(name: str, rules: Mapping[str, Rule], result: Any) -> Any:
    from junitparser.xunit2 import TestCase

    place = rules[name].declared_at if name in rules else None
    case = TestCase(name=plain(name), classname=plain(place.module if place else "reconcile"))
    if result is not None:
        case.result = [result]
    return case


def _failure(found: Comparison) -> Any:
    from junitparser import Error, Failure

    from reconcile.reports.junit import with_text

    text = plain("\n".join(_comparison(found)))
    if found.status == "error":
        return with_text(Error(plain(found.error.splitlines()[0] if found.error else ""), "error"), text)
    if found.status != "same":
        differences = found.parity.differences if found.parity else ()
        words = {"unsteady": "not the same twice", "empty": "nothing was compared"}
        said = words.get(found.status) or plural(len(differences), "difference")
        return with_text(Failure(said, found.status), text)
    return None
