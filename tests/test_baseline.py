import tomllib

import pytest

from reconcile import EXTRA, MISSING, STALE, HaveValues, Rule
from reconcile.baseline import (
    LIMIT,
    Entry,
    Rows,
    as_toml,
    compare,
    known_rules,
    prune_entry,
    read_baseline,
    update_entry,
    with_entries,
)
from reconcile.core.drift import Sample, Status, Tally
from reconcile.detect.checking import RuleCheck
from reconcile.errors import UsageError
from tests.zoo.models import Basket

pytestmark = pytest.mark.once


def rule(**options):
    return Rule(name="r", every=Basket, must=HaveValues(label="x"), **options)


def named(*keys):
    return Rows(number=len(keys), keys=tuple(map(str, keys)))


def entry(drift=MISSING, rows=None, reason=""):
    return Entry(reason=reason, drifted={drift: rows})


def checked(drift=MISSING, rows=None, *, of=1_000, **options):
    """What a check finds that names LIMIT keys at the most."""
    rows = rows or Rows()
    tally = Tally(checked=of, drifted={drift: rows.number})
    made = rule(**options)
    samples = tuple(Sample(drift, key) for key in rows.keys[:LIMIT])
    return RuleCheck(rule=made, status=made.status(tally), tally=tally, samples=samples)


MANY = Rows(number=150, keys=tuple(str(key) for key in range(100)))


@pytest.mark.parametrize(
    ("known", "found", "new", "mended"),
    [
        (None, named(1, 2), named(1, 2), None),
        (named(1, 2), named(1, 2), None, None),
        (named(1, 2), named(2, 3), named(3), named(1)),
        (named(1, 2), Rows(), None, named(1, 2)),
        (named(1, 2), MANY, Rows(number=148, keys=MANY.keys[:1] + MANY.keys[3:]), None),
        (Rows(number=150), MANY, None, None),
        (Rows(number=149), MANY, Rows(number=1), None),
        (Rows(number=151), MANY, None, Rows(number=1)),
        (Rows(number=150), named(*range(40)), None, Rows(number=110)),
    ],
)
def test_new_and_mended_drift_is_told_by_key_where_keys_are_known_and_by_number_elsewhere(
    known, found, new, mended
):
    result = compare(checked(rows=found), entry(rows=known) if known else None)
    assert result.new == ({MISSING: new} if new else {})
    assert result.mended == ({MISSING: mended} if mended else {})


def test_one_kind_of_drift_does_not_stand_in_for_another():
    result = compare(checked(STALE, named(1)), entry(EXTRA, named(1)))
    assert (result.new, result.mended) == ({STALE: named(1)}, {EXTRA: named(1)})


@pytest.mark.parametrize(
    ("options", "new", "status"),
    [
        ({}, 0, "pass"),
        ({}, 1, "fail"),
        ({"warn_if": 0}, 1, "warn"),
        ({"warn_if": 1}, 1, "pass"),
        ({"error_if": 2}, 2, "warn"),
        ({"error_if": 2}, 3, "fail"),
        ({"error_if": "0.2%"}, 2, "warn"),
        ({"error_if": "0.2%"}, 3, "fail"),
        ({"warn_if": 1, "error_if": "0.2%"}, 1, "pass"),
        ({"warn_if": "0.1%", "error_if": 2}, 2, "warn"),
        ({"warn_if": "0.1%", "error_if": 2}, 3, "fail"),
        ({"warn_if": "0.1%"}, 900, "warn"),
        ({"warn_if": 3, "error_if": 2}, 3, "fail"),
    ],
)
def test_what_is_new_is_judged_as_the_rule_says(options, new, status):
    known = [f"k{number}" for number in range(50)]
    found = named(*known, *range(new))
    result = compare(checked(rows=found, **options), entry(rows=named(*known)))
    assert result.status is Status(status)
    alone = Tally(checked=1_000, drifted={MISSING: new})
    assert rule(**options).status(alone) is Status(status)


def test_a_rule_without_records_of_which_a_percent_is_tolerated_fails_on_any_drift():
    assert rule(error_if="100%").status(Tally(checked=0, drifted={EXTRA: 1})) is Status.FAIL


def test_what_is_mended_fails_even_where_all_is_tolerated():
    assert compare(checked(error_if=10), entry(rows=named(1))).status is Status.FAIL


def test_a_rule_that_could_not_be_evaluated_has_nothing_new_and_nothing_mended():
    failed = RuleCheck(rule=rule(), status=Status.ERROR, error="down")
    result = compare(failed, entry(rows=named(1)))
    assert (result.status, result.new, result.mended) == (Status.ERROR, {}, {})


def test_an_update_takes_what_is_found_and_keeps_the_reason():
    assert update_entry(checked(rows=named(2)), entry(rows=named(1), reason="why")) == entry(
        rows=named(2), reason="why"
    )
    assert update_entry(checked(rows=named(2), error_if=5), None) == entry(rows=named(2))
    assert update_entry(checked(), entry(rows=named(1), reason="why")) is None
    assert update_entry(checked(rows=named(2), warn_if=5), None) is None


def test_pruning_lets_nothing_new_in():
    assert prune_entry(checked(rows=named(2, 3)), entry(rows=named(1, 2), reason="why")) == entry(
        rows=named(2), reason="why"
    )
    assert prune_entry(checked(rows=named(3)), entry(rows=named(1))) is None
    assert prune_entry(checked(rows=named(3)), None) is None
    assert prune_entry(checked(rows=MANY), entry(rows=named(1))) == entry(rows=named(1))
    assert prune_entry(checked(rows=MANY), entry(rows=Rows(number=200))).drifted[MISSING].number == 150
    assert prune_entry(checked(rows=named(1)), entry(rows=Rows(number=200))) == entry(rows=named(1))


def test_entries_replace_those_of_their_rules_and_leave_other_databases_alone():
    before = {
        "default": {"a": entry(rows=named(1)), "b": entry(rows=named(2))},
        "other": {"c": entry(rows=named(3))},
    }
    after = with_entries(before, {"a": None, "d": entry(rows=named(4))}, using="default", others=["a", "b"])
    assert after == {
        "default": {"b": entry(rows=named(2)), "d": entry(rows=named(4))},
        "other": before["other"],
    }
    assert "b" not in with_entries(before, {"a": None}, using="default", others=())["default"]


def test_a_rule_that_the_project_does_not_have_is_named_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"a rule 'orders.invioce', which does not exist\. Did you mean 'orders.invoice'"
    ):
        known_rules(
            {"default": {"orders.invioce": Entry()}},
            {"orders.invoice": rule()},
            using="default",
            command="do",
        )
    with pytest.raises(UsageError, match="not about database 'archive'"):
        known_rules(
            {"archive": {"r": Entry()}}, {"r": rule(databases=["default"])}, using="archive", command="do"
        )
    known_rules({"archive": {"gone": Entry()}}, {"r": rule()}, using="default", command="do")


def test_the_file_is_sorted_and_read_back_as_it_was(tmp_path):
    baseline = {
        "default": {
            "b.two": Entry(drifted={STALE: named("10", "9", "-1", "b", "a"), EXTRA: Rows(number=1_022)}),
            "a.one": Entry(reason='it is "known"\nsince May', drifted={MISSING: named(1)}),
        },
        "archive": {"c": Entry(drifted={MISSING: named("ü")})},
        "empty": {},
    }
    path = tmp_path / "baseline.toml"
    text = as_toml(baseline)
    path.write_text(text, encoding="utf-8")
    found = read_baseline(path)
    assert found["default"]["b.two"].drifted == {
        STALE: named("-1", "9", "10", "a", "b"), EXTRA: Rows(number=1_022)
    }  # fmt: skip
    assert found["default"]["a.one"] == baseline["default"]["a.one"]
    assert found["archive"] == baseline["archive"]
    assert "empty" not in found
    assert as_toml(found) == text
    tables = [line for line in text.splitlines() if line.startswith("[")]
    assert tables == ["[drift.archive.c]", '[drift.default."a.one"]', '[drift.default."b.two"]']
    assert '\n    "9",\n    "10",\n' in text


def test_keys_beyond_the_limit_are_a_number():
    text = as_toml({"default": {"r": entry(rows=MANY), "s": entry(rows=named(*range(101)))}})
    assert tomllib.loads(text)["drift"]["default"] == {"r": {"missing": 150}, "s": {"missing": 101}}


def test_an_empty_baseline_is_a_version_alone(tmp_path):
    text = as_toml({"default": {}})
    assert tomllib.loads(text) == {"version": 1}
    (tmp_path / "b").write_text(text)
    assert read_baseline(tmp_path / "b") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = ", "Invalid value"),
        ("", "version is None, and this release reads version 1"),
        ("version = 2", "version is 2"),
        ("version = 1\nrules = 3", "it has 'rules'"),
        ("version = 1\ndrift = 3", "drift is 3, and not a table"),
        ("version = 1\n[drift]\ndefault = 3", "drift.default is 3, and not a table"),
        ("version = 1\n[drift.default]\nr = 3", 'drift.default."r" is 3, and not a table'),
        ("version = 1\n[drift.default.r]\nmising = 3", "an unknown key 'mising'. Did you mean 'missing'?"),
        ("version = 1\n[drift.default.r]\nreason = 3", "reason is 3, and not a text"),
        ("version = 1\n[drift.default.r]\nmissing = -3", "missing is -3, and neither a count"),
        ("version = 1\n[drift.default.r]\nmissing = true", "missing is True, and neither a count"),
        ("version = 1\n[drift.default.r]\nmissing = [3]", "missing is [3], and neither a count"),
        ("version = 1\n[drift.default.r]\nmissing = []", "missing is [], and neither a count"),
    ],
)
def test_a_broken_file_is_refused_with_the_place_and_the_way_out(tmp_path, text, said):
    path = tmp_path / "baseline.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_baseline(path)
    assert said in str(caught.value)
    assert f"reconcile baseline update --file {path}" in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"There is no baseline .* Write it with: reconcile baseline update"):
        read_baseline(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="can't be read"):
        read_baseline(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="can't be used"):
        read_baseline(tmp_path / "bytes")
