"""`reconcile signals bypasses` from the command line: what it lists, exempts, knows and compares, its formats and its exit codes."""

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from django.core.cache import cache
from django.db.models.signals import post_save
from django.test.utils import override_settings

from reconcile.audit.known import only_new
from reconcile.audit.searching import Search, search_bypasses
from sample_project.shop import signals
from sample_project.shop.models import Order
from tests.audit.test_effects import connected
from tests.cli.test_cli import run, run_json
from tests.helpers import ROOT

pytestmark = pytest.mark.once

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "bypasses-1.json").read_text())
SHOP = override_settings(RECONCILE={"RULES": ["rules"]})
NO_RULES = override_settings(RECONCILE={"RULES": []})
IMPORT = "from sample_project.shop.models import Article, Order\n\n\n"
TITLES = "def rename(pk):\n    Article.objects.filter(pk=pk).update(title='a')\n"
BODIES = "\n\ndef rewrite(pk):\n    Article.objects.filter(pk=pk).update(body='a')\n"
SLUG = "sample_project.shop.signals.handle_article_saving"
KEYWORDS = "sample_project.shop.signals.handle_article_written"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "paths.py"
    path.write_text(IMPORT + TITLES)
    return path


def flat(text):
    return " ".join(text.split())


def handle(instance, **_):
    """Tell somebody of the order."""
    cache.set("order", instance.status)


@SHOP
def test_each_bulk_path_of_the_shop_is_found_with_the_rule_that_covers_it():
    code, report = run_json("signals", "bypasses")
    jsonschema.validate(report, SCHEMA)
    found = {
        each["function"].rpartition(".")[2]: {
            rule for skip in each["skips"] for rule in skip["rules"] if skip["state"] == "covered"
        }
        for each in report["findings"]
        if each["path"] == "sample_project/shop/bulk.py" and each["state"] == "covered"
    }
    assert code == 0
    assert found == {
        "import_orders": {"items.quantity", "items.archived", "items.archived_charges", "items.storefront", "orders.total", "orders.item_count"},
        "import_customers": {"customers.preferences", "customers.welcome"},
        "import_addresses": {"customers.default_address"},
        "import_items": {"items.quantity", "items.archived", "items.archived_charges", "items.storefront", "orders.total", "orders.item_count"},
        "import_articles": {"articles.slug", "articles.keywords"},
        "rename_articles": {"articles.slug"},
        "rewrite_articles": {"articles.keywords"},
        "move_categories": {"categories.path"},
        "reprice_orders": {"orders.invoice", "orders.notification"},
        "reprice_items": {"orders.total", "orders.item_count"},
        "archive_by_update": {"items.archived", "items.archived_charges", "items.storefront"},
        "add_members": {"groups.access", "groups.member_count"},
        "delete_items_raw": {"orders.total", "orders.item_count"},
        "delete_orders_raw": {"customers.order_count", "customers.last_order", "notes.target"},
        "insert_order_by_sql": {"orders.customer_name", "orders.invoice", "orders.notification", "customers.order_count", "customers.last_order"},
    }  # fmt: skip
    _, out, _ = run("signals", "bypasses", str(ROOT / "sample_project"))
    assert "No call that can be told skips an effect that no rule covers." in out
    assert "2 unknown" in out


@SHOP
def test_a_new_receiver_without_a_rule_fails_at_each_call_that_skips_it():
    with connected(post_save, handle, Order):
        code, out, _ = run("signals", "bypasses")
    assert code == 1
    assert "uncovered" in out
    assert "tests.audit.test_bypasses_command.handle" in out
    assert "sample_project/shop/bulk.py:157  cursor.execute(...)" in out
    assert "calls skip 1 effect that no rule covers." in flat(out)


@NO_RULES
def test_calls_stand_beneath_the_effect_that_they_skip(file):
    file.write_text(IMPORT + TITLES + TITLES.replace("rename", "again"))
    code, out, _ = run("signals", "bypasses", str(file))
    assert code == 1
    assert out.count(SLUG) == 1
    assert out.count("Article.objects.filter(...).update(...)") == 2
    assert "2 calls skip 1 effect that no rule covers. Others: " not in out


@NO_RULES
@pytest.mark.parametrize("shown", ["low", "all"])
def test_what_is_low_is_counted_and_shown_on_demand(file, shown):
    code, out, _ = run("signals", "bypasses", str(file))
    assert KEYWORDS not in out
    code, out, _ = run("signals", "bypasses", str(file), "--show", shown)
    assert code == 1
    assert KEYWORDS in out
    assert "it reads none of the columns that are written" in out


@NO_RULES
def test_the_levels_may_be_named_as_the_json_report_names_them(file):
    assert run("signals", "bypasses", str(file), "--show", "by_hand") == run(
        "signals", "bypasses", str(file), "--show", "by-hand"
    )


@NO_RULES
def test_a_comment_exempts_the_calls_of_its_line_with_its_reason(file):
    file.write_text(
        IMPORT
        + TITLES.replace("update(title='a')\n", "update(title='a')  # reconcile: exempt a one-off repair\n")
    )
    code, report = run_json("signals", "bypasses", str(file))
    (found,) = report["findings"]
    assert (code, found["state"], found["reason"]) == (0, "exempt", "a one-off repair")


@NO_RULES
@pytest.mark.parametrize(
    ("comment", "said"), [("# reconcile: exempt", "needs a reason after it"), ("# nothing", None)]
)
def test_a_comment_without_a_reason_exempts_nothing(file, comment, said):
    file.write_text(IMPORT + TITLES.replace("update(title='a')\n", f"update(title='a')  {comment}\n"))
    code, report = run_json("signals", "bypasses", str(file))
    assert (code, report["findings"][0]["state"]) == (1, "uncovered")
    assert (said in report["faults"][0]) if said else not report["faults"]


@NO_RULES
def test_a_comment_that_exempts_nothing_is_a_fault(file):
    file.write_text(IMPORT + "x = 1  # reconcile: exempt because\n")
    code, out, _ = run("signals", "bypasses", str(file))
    assert code == 1
    assert "stands on a line that skips nothing. Take it out." in out


def test_the_settings_exempt_an_effect_everywhere(file):
    with override_settings(RECONCILE={"RULES": [], "EXEMPT": {SLUG: "slugs are made by a job"}}):
        code, report = run_json("signals", "bypasses", str(file))
    assert (code, report["findings"][0]["state"]) == (0, "exempt")


@NO_RULES
def test_a_baseline_passes_over_what_it_has_and_fails_for_the_rest(file, tmp_path):
    baseline = tmp_path / "known.toml"
    code, out, _ = run("signals", "bypasses", str(file), "--baseline", str(baseline), "--update-baseline")
    assert code == 0
    assert f'effect = "{SLUG} (pre_save)"' in baseline.read_text()
    assert run("signals", "bypasses", str(file), "--baseline", str(baseline))[0] == 0
    file.write_text(IMPORT + "\n\n\n" + TITLES + BODIES)
    code, out, _ = run("signals", "bypasses", str(file), "--baseline", str(baseline))
    assert code == 1
    assert (SLUG in out, KEYWORDS in out) == (False, True)


@NO_RULES
def test_a_second_call_of_the_same_kind_is_new(file, tmp_path):
    baseline = tmp_path / "known.toml"
    run("signals", "bypasses", str(file), "--baseline", str(baseline), "--update-baseline")
    file.write_text(IMPORT + TITLES + "    Article.objects.filter(pk=2).update(title='b')\n")
    assert run("signals", "bypasses", str(file), "--baseline", str(baseline))[0] == 1


@NO_RULES
def test_an_update_keeps_reasons_and_drops_what_is_there_no_more(file, tmp_path):
    baseline = tmp_path / "known.toml"
    file.write_text(IMPORT + TITLES + BODIES)
    run("signals", "bypasses", str(file), "--baseline", str(baseline), "--update-baseline")
    baseline.write_text(baseline.read_text().replace("calls = 1\n", 'calls = 1\nreason = "later"\n'))
    file.write_text(IMPORT + TITLES)
    run("signals", "bypasses", str(file), "--baseline", str(baseline), "--update-baseline")
    written = baseline.read_text()
    assert written.count("[[bypass]]") == 1
    assert 'reason = "later"' in written
    _, report = run_json("signals", "bypasses", str(file), "--baseline", str(baseline))
    assert report["findings"][0]["reason"] == "later"


@SHOP
def test_what_the_baseline_has_and_is_mended_is_told(tmp_path):
    baseline = tmp_path / "known.toml"
    with connected(post_save, handle, Order):
        run("signals", "bypasses", "--baseline", str(baseline), "--update-baseline")
    code, out, _ = run("signals", "bypasses", "--baseline", str(baseline))
    assert code == 0
    assert "which is there no more, or fewer times." in flat(out)
    assert "--update-baseline" in out


@NO_RULES
@pytest.mark.parametrize(
    "text", ["version = 2", "version = 1\nbypass = 3", "version = 1\n[[bypass]]\neffect = 1", "version = 1\n[[bypass]]\nother = 1", "["]
)  # fmt: skip
def test_a_baseline_that_cannot_be_used_is_refused(file, tmp_path, text):
    (tmp_path / "known.toml").write_text(text)
    code, _, err = run("signals", "bypasses", str(file), "--baseline", str(tmp_path / "known.toml"))
    assert code == 2
    assert "can't be used" in err


@NO_RULES
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--update-baseline"], "needs --baseline FILE"),
        (["--baseline", "none.toml"], "--update-baseline"),
        (["--baseline", "none.toml", "--update-baseline", "--diff", "HEAD"], "don't go together"),
        (["nowhere"], "There is no file or folder 'nowhere'"),
        (["--diff", "no-such-revision"], "--diff can't compare"),
        (["--show", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_done_as_asked_is_refused(words, said):
    code, _, err = run("signals", "bypasses", *words)
    assert code == 2
    assert said in flat(err)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository whose branch has one call."""

    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init", "-b", "main")
    (tmp_path / "paths.py").write_text(IMPORT + TITLES)
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.chdir(tmp_path)
    return git


@NO_RULES
def test_a_diff_tells_what_a_branch_adds_and_nothing_else(repository, tmp_path):
    code, out, _ = run("signals", "bypasses", str(tmp_path), "--diff", "main")
    assert (code, "No call since main skips an effect that no rule covers." in out) == (0, True)
    repository("checkout", "-b", "branch")
    (tmp_path / "paths.py").write_text(IMPORT + "x = 1\n\n\n" + TITLES + BODIES)
    (tmp_path / "more.py").write_text(IMPORT + "def more(rows):\n    Order.objects.bulk_create(rows)\n")
    repository("add", "paths.py")
    repository("commit", "-m", "second")
    code, report = run_json("signals", "bypasses", str(tmp_path), "--diff", "main")
    found = {
        (Path(each["path"]).name, each["function"].rpartition(".")[2])
        for each in report["findings"]
        if each["state"] == "uncovered"
    }
    assert code == 1
    assert found == {("paths.py", "rewrite"), ("more.py", "more")}


@NO_RULES
def test_a_diff_needs_a_repository(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("signals", "bypasses", str(file), "--diff", "main")
    assert code == 2
    assert "--diff can't compare: git" in err


def test_a_receiver_that_is_new_makes_old_calls_new():
    place = Path(signals.__file__).resolve()
    text = place.read_bytes()
    start = text.index(b"@receiver(post_save, sender=Article)")
    end = text.index(b"@receiver(pre_save, sender=Category)")
    before = search_bypasses({}, {}, Search(), {str(place): text[:start] + text[end:]}).bypasses
    now = search_bypasses({}, {}, Search()).bypasses
    names = {skip.effect.name for each in only_new(now, before) for skip in each.skips}
    assert names == {KEYWORDS}


@NO_RULES
def test_a_file_that_cannot_be_read_is_in_the_exit_code(file, tmp_path):
    file.write_text("def (:\n    Article.objects.bulk_create(rows)\n")
    code, out, _ = run("signals", "bypasses", str(tmp_path))
    assert code == 3
    assert "paths.py can't be read: SyntaxError" in flat(out)
    for form in ("github", "sarif", "junit"):
        assert "SyntaxError" in run("signals", "bypasses", str(tmp_path), "--format", form)[1]


@NO_RULES
def test_github_gets_a_line_for_each_call(file):
    code, out, _ = run("signals", "bypasses", str(file), "--format", "github")
    assert code == 1
    assert out.startswith("::error file=")
    assert (
        f"line=5,title=effects skipped::Article.objects.filter(...).update(...) on shop.Article skips {SLUG} (pre_save)"
        in out
    )


@NO_RULES
def test_sarif_has_an_effect_as_rule_and_a_call_as_result(file):
    _, out, _ = run("signals", "bypasses", str(file), "--format", "sarif")
    (report,) = json.loads(out)["runs"]
    (result,) = report["results"]
    assert [each["id"] for each in report["tool"]["driver"]["rules"]] == [SLUG]
    assert (result["ruleId"], result["locations"][0]["physicalLocation"]["region"]) == (
        SLUG,
        {"startLine": 5},
    )
    file.write_text(IMPORT + "\n\n" + TITLES)
    again = json.loads(run("signals", "bypasses", str(file), "--format", "sarif")[1])["runs"][0]["results"][0]
    assert again["partialFingerprints"] == result["partialFingerprints"], (
        "it is the same one, two lines below"
    )


@NO_RULES
def test_junit_has_a_case_for_each_call(file):
    file.write_text(IMPORT + TITLES + "x = 1  # reconcile: exempt nothing\n")
    _, out, _ = run("signals", "bypasses", str(file), "--format", "junit")
    suite = ET.fromstring(out).find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert "skips" in suite.find("testcase/failure").text


@SHOP
def test_tests_and_migrations_are_left_out_unless_they_are_asked_for():
    _, out, _ = run("signals", "bypasses")
    assert "of tests and migrations left out (--tests, --migrations)" in flat(out)
    _, out, _ = run("signals", "bypasses", "--migrations", "--tests")
    assert "left out" not in out


@NO_RULES
def test_a_report_goes_to_a_file(file, tmp_path):
    code, out, _ = run(
        "signals", "bypasses", str(file), "--format", "json", "--output", str(tmp_path / "report.json")
    )
    assert (code, out) == (1, "")
    jsonschema.validate(json.loads((tmp_path / "report.json").read_text()), SCHEMA)


@NO_RULES
def test_without_sqlglot_a_statement_is_unknown_and_says_what_to_install(file, monkeypatch):
    monkeypatch.setattr("reconcile.audit.calls.can_parse", lambda: False)
    file.write_text("def f(cursor):\n    cursor.execute('DELETE FROM shop_order')\n")
    code, report = run_json("signals", "bypasses", str(file))
    (found,) = report["findings"]
    assert (code, found["state"]) == (0, "unknown")
    assert "pip install 'django-reconcile[audit]'" in found["reason"]


STATEMENTS = {
    "INSERT INTO shop_article (title) SELECT name FROM shop_item": {SLUG, KEYWORDS},
    "UPDATE shop_article SET body = %s WHERE id = %(key)s": {KEYWORDS},
    "WITH gone AS (DELETE FROM shop_order RETURNING id) SELECT * FROM gone": {
        "sample_project.shop.signals.handle_order_saved",
        "sample_project.shop.signals.handle_order_deleted",
    },
    "SELECT id FROM shop_order FOR UPDATE": set(),
    "UPDATE no_model SET a = 1": set(),
}


@NO_RULES
@pytest.mark.parametrize(("sql", "skipped"), STATEMENTS.items())
def test_a_statement_is_about_the_models_of_its_tables(file, sql, skipped):
    file.write_text(f"def f(cursor):\n    cursor.execute({sql!r})\n")
    _, report = run_json("signals", "bypasses", str(file))
    assert {
        skip["effect"]
        for each in report["findings"]
        for skip in each["skips"]
        if skip["state"] == "uncovered"
    } == skipped


COMPOSED = {
    'f"UPDATE {Order._meta.db_table} SET total = 1"': ("shop.Order", None),
    '"DELETE FROM " + "shop_order"': ("shop.Order", None),
    'f"DELETE FROM {table}"': (None, "its table is put together at run time"),
    '"DELETE FROM %s" % table': (None, "its table is put together at run time"),
    '"DELETE FROM {}".format(table)': (None, "its table is put together at run time"),
    '"DELETE FROM ("': (None, "its statement can't be parsed"),
}


@NO_RULES
@pytest.mark.parametrize(("sql", "told"), COMPOSED.items())
def test_a_statement_that_is_put_together_is_told_as_far_as_it_can_be(file, sql, told):
    file.write_text(f"{IMPORT}def f(cursor, table):\n    cursor.execute({sql})\n")
    _, report = run_json("signals", "bypasses", str(file))
    (found,) = report["findings"]
    assert (found["model"], found["reason"] if told[1] else None) == told


@NO_RULES
def test_an_update_for_one_file_keeps_what_is_known_of_others(file, tmp_path):
    baseline = tmp_path / "known.toml"
    other = tmp_path / "others.py"
    other.write_text(IMPORT + TITLES)
    for each in (file, other):
        run("signals", "bypasses", str(each), "--baseline", str(baseline), "--update-baseline")
    assert baseline.read_text().count("[[bypass]]") == 2
    assert run("signals", "bypasses", str(tmp_path), "--baseline", str(baseline))[0] == 0


@NO_RULES
def test_what_was_not_looked_through_is_not_said_to_be_mended(file, tmp_path):
    baseline = tmp_path / "known.toml"
    other = tmp_path / "others.py"
    for each in (file, other):
        each.write_text(IMPORT + TITLES)
    run("signals", "bypasses", str(file), str(other), "--baseline", str(baseline), "--update-baseline")
    file.write_text(IMPORT)
    code, out, _ = run("signals", "bypasses", str(file), "--baseline", str(baseline))
    assert (code, "paths.rename" in out, "others.rename" in out) == (0, True, False)


@SHOP
def test_what_was_known_of_a_file_that_is_gone_goes_from_the_baseline(tmp_path):
    baseline = tmp_path / "known.toml"
    entry = '[[bypass]]\neffect = "a"\nfunction = "sample_project.shop.gone.f"\noperation = "update"\nmodel = "shop.Order"\n'
    baseline.write_text(f"version = 1\n{entry}")
    _, out, _ = run("signals", "bypasses", "--baseline", str(baseline))
    assert "sample_project.shop.gone.f" in out
    run("signals", "bypasses", "--baseline", str(baseline), "--update-baseline")
    assert "gone" not in baseline.read_text()


def test_what_stands_beside_a_manage_py_is_the_projects_and_no_environment_is(tmp_path, monkeypatch):
    from reconcile.audit import files

    project = tmp_path / "test"
    for each in (
        "shop/__init__.py",
        "lib/x.py",
        "tests/y.py",
        "myenv/pyvenv.cfg",
        "myenv/z.py",
        "manage.py",
        "script.py",
    ):
        (project / each).parent.mkdir(parents=True, exist_ok=True)
        (project / each).touch()

    class Config:
        path = str(project / "shop")

    monkeypatch.setattr(files.apps, "get_app_configs", lambda: [Config])
    assert project in files.roots()
    own = [each.removeprefix(f"{project}/") for each in files.own_files() if each.startswith(str(project))]
    assert own == [
        "manage.py",
        "script.py",
        "lib/x.py",
        "shop/__init__.py",
    ]


@NO_RULES
def test_a_call_is_told_once_by_however_many_paths_its_file_is_named(file):
    (file.parent / "link.py").symlink_to(file)
    _, report = run_json("signals", "bypasses", str(file), str(file.parent), f"{file.parent}/./{file.name}")
    assert len(report["findings"]) == 1


@NO_RULES
def test_a_comment_in_a_text_exempts_nothing(file):
    file.write_text(f"{IMPORT}s = '# reconcile: exempt x'; Article.objects.update(title=1)\n")
    assert run_json("signals", "bypasses", str(file))[0] == 1


@NO_RULES
def test_a_ring_of_functions_is_named_as_what_could_not_be_read(file):
    ring = "".join(f"def f{number}(rows):\n    f{(number + 1) % 900}(rows)\n" for number in range(900))
    file.write_text(f"{IMPORT}{ring}def f900(rows):\n    rows.update(title=1)\n    f0(rows)\n")
    code, report = run_json("signals", "bypasses", str(file))
    assert code in {0, 3}
    assert [Path(each["path"]).name for each in report["unreadable"]] in [[], [file.name]]


@NO_RULES
def test_a_queryset_that_is_made_by_hand_is_one(file):
    file.write_text(
        f"from django.db.models import QuerySet\n{IMPORT}QuerySet(Article).update(title='a')\nQuerySet(model=Article).bulk_create([])\n"
    )
    _, report = run_json("signals", "bypasses", str(file))
    assert [each["model"] for each in report["findings"]] == ["shop.Article"] * 2


@NO_RULES
def test_a_file_that_is_named_is_looked_through_whatever_it_is_called(file):
    test = file.with_name("test_imports.py")
    test.write_text(IMPORT + TITLES)
    assert run_json("signals", "bypasses", str(test))[1]["findings"]


@NO_RULES
def test_a_file_that_is_nested_too_deeply_is_named_and_the_others_are_read(file, tmp_path):
    (tmp_path / "deep.py").write_text("x.update(n=" + "-" * 3000 + "1)\n")
    (tmp_path / "sums.py").write_text("def f(rows):\n    rows.update(n=" + " + ".join(["1"] * 3000) + ")\n")
    code, report = run_json("signals", "bypasses", str(tmp_path))
    assert code == 3
    assert {Path(each["path"]).name for each in report["unreadable"]} <= {"deep.py", "sums.py"}
    assert report["unreadable"]
    assert SLUG in {skip["effect"] for each in report["findings"] for skip in each["skips"]}


def test_what_a_folder_above_the_project_is_called_says_nothing_of_its_files(monkeypatch):
    from reconcile.audit import files

    monkeypatch.setattr(files, "_folders_of", lambda _: ["/srv/tests/shop/"])
    assert not files.is_test("/srv/tests/shop/imports.py")
    assert files.is_test("/srv/tests/shop/tests/imports.py")
    assert files.is_test("/srv/tests/shop/test_imports.py")


def test_an_exemption_of_what_is_not_there_and_a_rule_that_cannot_be_used_are_told(settings, monkeypatch):
    settings.RECONCILE = {**settings.RECONCILE, "EXEMPT": {"shop.signals.nothing": "typo"}}
    code, out, _ = run("signals", "bypasses")
    assert code == 1
    assert "names shop.signals.nothing, and there is no such effect" in " ".join(out.split())


def test_a_project_whose_rules_are_still_to_be_written_is_looked_through(settings, tmp_path, monkeypatch):
    (tmp_path / "norules").mkdir()
    (tmp_path / "norules" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    settings.RECONCILE = {"RULES": ["norules"]}
    code, out, _ = run("signals", "bypasses")
    assert code == 1
    assert "skip" in out
