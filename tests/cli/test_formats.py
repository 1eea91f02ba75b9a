"""Each format from end to end: its reader reads it, its exit codes are the four, and it is alone on standard output."""

import pytest
from django.utils import timezone

from reconcile.cli.check import _FORMS
from reconcile.models import Outcome, Run
from sample_project.shop.models import Order
from tests.cli.test_cli import lacking, rules, run  # noqa: F401 - fixtures
from tests.helpers import ROOT, an_hour_ago, environment
from tests.processes import run_reconcile
from tests.reports.readers import READERS, read_html, read_json, read_junit, read_sarif
from tests.zoo.models import Basket

pytestmark = pytest.mark.once

GHOST = "a = Rule(every=Ghost, must=HaveValues(value=1))\nb = Rule(every=Basket, must=HaveValues(label='x'))"
NOISY = """
import logging, sys, warnings
import structlog
from reconcile import FromPython, HaveValues, Rule
from sample_project.shop.models import Order

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
print("printed by a rule file")
warnings.warn("warned by a rule file")

def named(status):
    print("printed by a function")
    structlog.get_logger().info("logged by a function")
    return status.upper()

name = Rule(every=Order, must=HaveValues(customer_name=FromPython(named, reads=["status"])))
"""


def test_each_format_has_a_reader():
    assert set(READERS) == set(_FORMS)


@pytest.mark.parametrize("form", _FORMS)
def test_each_format_is_documented(form):
    assert f"\n| `{form}` |" in (ROOT / "docs" / "formats.md").read_text()


@pytest.mark.django_db
@pytest.mark.parametrize("form", _FORMS)
def test_a_clean_check_exits_with_0_in_each_format(form):
    Order.objects.create(created_at=an_hour_ago())
    code, out, err = run("check", "orders.invoice", "--format", form)
    assert (code, err) == (0, "")
    READERS[form](out)


@pytest.mark.parametrize("form", _FORMS)
def test_drift_exits_with_1_in_each_format(form, lacking):  # noqa: F811
    code, out, err = run("check", "orders.invoice", "--format", form)
    assert (code, err) == (1, "")
    READERS[form](out)
    for said in ("orders.invoice", *lacking[:5]):
        assert said in out
    assert form in {"text", "json"} or "rules/orders.py" in out


@pytest.mark.parametrize("form", _FORMS)
def test_bad_usage_exits_with_2_and_leaves_standard_output_empty_in_each_format(form):
    code, out, err = run("check", "orders.invioce", "--format", form)
    assert (code, out) == (2, "")
    assert "Did you mean 'orders.invoice'?" in err


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", _FORMS)
def test_a_rule_that_cannot_be_evaluated_exits_with_3_in_each_format(form, rules):  # noqa: F811
    rules(GHOST)
    Basket.objects.create()
    code, out, _ = run("check", "--format", form)
    assert code == 3
    READERS[form](out)
    assert "migrate --database default" in " ".join(out.split())


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warn", 1)])
def test_a_warning_is_a_failure_of_junit_only_where_it_fails_the_check(db, rules, fail_on, code):  # noqa: F811
    rules("r = Rule(every=Basket, must=HaveValues(label='x'), warn_if=0)")
    Basket.objects.create()
    got, out, _ = run("check", "--format", "junit", "--fail-on", fail_on)
    assert (got, read_junit(out).failures) == (code, code)


def test_several_formats_go_to_files_and_one_to_standard_output(lacking, tmp_path):  # noqa: F811
    files = {form: tmp_path / f"report.{form}" for form in _FORMS if form != "json"}
    asked = [f"--format={form}={file}" for form, file in files.items()]
    code, out, err = run("check", "orders.invoice", *asked, "--format", "json")
    assert (code, err) == (1, "")
    assert read_json(out)["rules"][0]["missing"] == 12
    for form, file in files.items():
        READERS[form](file.read_text())
        assert "orders.invoice" in file.read_text()
    assert sorted(tmp_path.iterdir()) == sorted(files.values())


def test_where_every_format_has_a_file_nothing_is_printed(lacking, tmp_path):  # noqa: F811
    code, out, err = run("check", "orders.invoice", "--format", f"junit={tmp_path / 'report.xml'}")
    assert (code, out, err) == (1, "", "")
    assert read_junit((tmp_path / "report.xml").read_text()).failures == 1


def test_output_still_takes_the_one_format(lacking, tmp_path):  # noqa: F811
    file = tmp_path / "report.sarif"
    code, out, _ = run("check", "orders.invoice", "--format", "sarif", "--output", str(file))
    assert (code, out) == (1, "")
    assert len(read_sarif(file.read_text())["results"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "junit", "--format", "html"], "junit and html can't both go to standard output"),
        (["--format", "text", "--format", "text"], "text and text can't both go to standard output"),
        (["--format", "junit", "--format", "html", "--output", "x"], "--output is for a single --format"),
        (["--format", "junit=a.xml", "--output", "x"], "Give each its own: --format junit=a.xml"),
        (["--format", "junit=a", "--format", "html=./a"], "Two reports would go to"),
        (["--format", "junit="], "is not in a folder that exists"),
        (["--format", "junit=/no/such/folder/r.xml"], "is not in a folder that exists"),
        (["--format", "junti=r.xml"], "is not one of"),
    ],
)
@pytest.mark.django_db
def test_reports_that_have_no_place_of_their_own_are_refused_with_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("check", *arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split()), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_each_format_is_alone_on_standard_output_beside_prints_logs_and_warnings(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "noisy_settings.py").write_text(
        'from tests.settings import *\nRECONCILE = {"RULES": ["noisy"]}\nDEBUG = True\n'
    )
    Order.objects.bulk_create([Order(created_at=an_hour_ago()) for _ in range(3)])
    settings = environment(PYTHONPATH=f"{tmp_path}:{ROOT}", PYTHONWARNINGS="always")
    for form in _FORMS:
        done = run_reconcile(
            "--settings", "noisy_settings", "--verbose", "check", "--format", form, env=settings
        )
        assert done.returncode == 1, (form, done)
        READERS[form](done.stdout)
        assert "by a rule file" not in done.stdout
        assert "by a function" not in done.stdout
        for said in (
            "printed by a rule file",
            "warned by a rule file",
            "printed by a function",
            "logged by a function",
        ):
            assert said in done.stderr, (form, done.stderr)


def test_html_draws_the_trend_of_the_runs_that_the_database_remembers(lacking):  # noqa: F811
    earlier = Run.objects.create(
        kind="nightly", state="finished", now=timezone.now(), started_at=an_hour_ago()
    )
    Outcome.objects.create(
        run=earlier, rule="orders.invoice", position=0, state="done", status="fail", missing=24, checked=30
    )
    page = read_html(run("check", "orders.invoice", "--format", "html")[1])
    bars = [attributes for tag, attributes in page.elements if tag == "rect"]
    assert [(bar["class"], bar["height"]) for bar in bars] == [("then", "32"), ("now", "16")]
    assert "Drifted rows after a run of" in page.text


# A check that has judged nothing.


@pytest.mark.django_db
@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize(("more", "code"), [((), 1), (("--allow-empty",), 0)])
def test_a_check_of_no_record_is_not_clean_in_any_format(form, more, code):
    exited, out, err = run("check", "--format", form, *more)
    assert (exited, err) == (code, "")
    READERS[form](out)
    assert ("empty" if form == "json" else "0 records checked") in out
    for good in ("All clean", "✅", "No drift", " passed"):
        assert good not in out
    if form in {"html", "markdown", "text", "concise", "github"}:
        assert ("If there may be none: --allow-empty." in out) is (code == 1)


@pytest.mark.django_db
def test_the_way_out_is_said_where_it_is_needed():
    assert "If there may be none: --allow-empty." in run("check")[1]
    assert "--allow-empty" not in run("check", "--allow-empty")[1]


@pytest.mark.django_db
def test_a_rule_without_records_beside_others_is_skipped_and_said():
    Order.objects.create(created_at=an_hour_ago())
    code, out, _ = run("check", "orders.invoice", "notes.target")
    assert (code, "1 rule saw no record." in out) == (0, True)
    assert [line.split()[0] for line in out.splitlines() if "notes.target" in line] == ["skipped"]
    report = read_json(run("check", "orders.invoice", "notes.target", "--format", "json")[1])
    assert {each["rule"]: each["status"] for each in report["rules"]} == {
        "orders.invoice": "pass",
        "notes.target": "skipped",
    }
    assert report["status"] == "clean"


@pytest.mark.django_db
@pytest.mark.parametrize("form", ["html", "markdown"])
def test_rules_that_saw_no_record_are_not_among_those_that_passed(form):
    Order.objects.create(created_at=an_hour_ago())
    out = run("check", "orders.invoice", "notes.target", "subscribers.email", "--format", form)[1]
    passed, unseen = out.split("2 rules saw no record")
    assert "1 rule passed" in passed
    assert ("orders.invoice" in passed, "notes.target" in passed) == (True, False)
    assert ("notes.target" in unseen, "subscribers.email" in unseen) == (True, True)


@pytest.mark.django_db
def test_drift_of_rows_without_a_record_is_drift():
    """Extra rows are found where there is no record at all."""
    Order.objects.create(created_at=an_hour_ago())
    Order.objects.update(status="draft")
    code, out, _ = run("check", "orders.invoice")
    assert (code, "1 drifted row" in out) == (1, True)
