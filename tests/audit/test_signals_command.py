"""`reconcile signals` on the shop and the zoo."""

import json
import re

import jsonschema
import pytest
from django.db.models import CASCADE, SET, SET_DEFAULT, SET_NULL
from django.db.models.signals import post_save
from django.test.utils import override_settings

from reconcile.audit import cascades
from reconcile.audit.cascades import cascades_of
from reconcile.audit.effects import On
from reconcile.audit.listing import named_model
from reconcile.errors import UnknownNameError
from sample_project.shop.models import Order
from tests.audit.test_effects import connected, handle
from tests.cli.test_cli import rules, run
from tests.helpers import ROOT
from tests.zoo.models import Contact, Letter, Parcel, ParcelProxy, Seat

__all__ = ["rules"]


SCHEMA = json.loads((ROOT / "docs" / "schemas" / "signals-1.json").read_text())
SHOP = override_settings(RECONCILE={"RULES": ["rules"]})


def flat(text):
    return " ".join(text.split())


@SHOP
def test_each_effect_of_the_shop_is_covered_by_a_rule():
    code, out, _ = run("signals", "--format", "json")
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    shop = [each for each in report["models"] if each["model"].startswith("shop.")]
    effects = {
        (each["effect"].rpartition(".")[2], each["on"]): each
        for model in shop
        for each in model["effects"]
        if not each["third_party"]
    }
    assert code == 0
    assert len(effects) == 17
    assert all(each["rules"] for each in effects.values())
    created = effects["handle_order_created", "post_save"]
    assert created["rules"] == ["orders.invoice", "orders.notification"]
    assert (created["raw"], created["thin"], created["async"]) == (True, False, False)
    assert effects["handle_item_changed", "post_save"]["thin"]
    assert (created["path"], created["line"]) == ("sample_project/shop/signals.py", 59)
    assert not [each for each in report["dead"] if each["effect"].startswith("sample_project")]


@SHOP
def test_no_line_ends_in_blanks_however_narrow_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("signals")[1].split("\n")
    assert any(len(each) > 50 for each in lines)
    assert [each for each in lines if each != each.rstrip()] == []


@SHOP
def test_a_receiver_that_no_rule_covers_is_said_to_be_uncovered():
    with connected(post_save, handle, Order):
        code, out, _ = run("signals", "Order")
    assert code == 0
    assert "tests.audit.test_effects.handle" in out
    assert "no rule covers it" in out
    assert "6 effects of 1 model: 5 covered by rules, 1 by none." in flat(out)
    assert re.search(
        r"handle_order_created\s+sample_project/shop/signals.py:59 · minds raw\s+writes shop.Invoice, shop.Notification\s+covered by orders.invoice",
        out,
    )


@SHOP
def test_effects_of_third_parties_are_counted_and_shown_on_demand():
    _, out, _ = run("signals")
    assert re.search(r"effects of third parties: --third-party shows them", flat(out))
    assert "actstream" not in out
    _, out, _ = run("signals", "--third-party")
    assert "actstream.follows.delete_orphaned_follows" in out
    assert "third party" in out


@SHOP
def test_the_picture_has_models_effects_and_rules():
    with connected(post_save, handle, Parcel):
        _, out, _ = run("signals", "--format", "mermaid")
    assert out.startswith("flowchart LR\n")
    assert '["shop.Order"]' in out
    assert '(["handle_order_created"])' in out
    assert '[["orders.invoice"]]' in out
    (number,) = re.findall(r'(e\d+)\(\["handle"\]\)', out)
    assert f"style {number} stroke-dasharray" in out
    assert len(re.findall("stroke-dasharray", out)) < len(re.findall("-->", out))


@SHOP
def test_a_proxy_says_what_it_does_not_set_off():
    with connected(post_save, handle, Parcel):
        _, out, _ = run("signals", "zoo.ParcelProxy")
    assert "zoo.ParcelProxy (proxy)" in out
    assert "Saving it calls none of: handle" in out


@SHOP
@pytest.mark.parametrize("name", ["shop.Ordr", "Nothing"])
def test_an_unknown_model_is_a_usage_error(name):
    code, out, err = run("signals", name)
    assert (code, out) == (2, "")
    assert f"There is no model {name!r}" in flat(err)


def test_a_model_is_named_by_its_label_or_by_a_name_of_its_own():
    assert named_model("shop.order") is Order
    assert named_model("ParcelProxy") is ParcelProxy
    assert named_model("zoo.contact_tags") is Contact.tags.through
    with pytest.raises(UnknownNameError):
        named_model("Note")


def test_a_delete_that_goes_past_the_code_of_others_is_said_once_a_relation():
    with connected(post_save, handle, Letter), connected(post_save, handle, Contact):
        found = {(each.model, each.column): each for each in cascades_of(Contact)}
    assert found[Contact, "parent"].does == "sets to NULL"
    assert any(name.endswith("test_effects.handle") for name in found[Contact, "parent"].past)
    assert (Letter, "contact") not in found
    assert (Seat, "contact") not in found


@pytest.mark.parametrize(
    ("on_delete", "does", "skips"),
    [
        (CASCADE, "deletes", On.DELETE),
        (SET_NULL, "sets to NULL", On.POST_SAVE),
        (SET_DEFAULT, "sets to its default", On.SAVE),
        (SET(3), "sets", On.PRE_SAVE),
        (None, "", None),
    ],
)
def test_what_each_on_delete_goes_past(on_delete, does, skips):
    said, skipped = cascades._what(on_delete)
    assert said == does
    assert skips in skipped if skips else not skipped


@pytest.mark.parametrize(
    ("name", "skips"),
    [("DB_CASCADE", On.POST_DELETE), ("DB_SET_NULL", On.POST_SAVE), ("DB_SET_DEFAULT", On.SAVE)],
)
def test_what_the_database_does_sends_no_signal(name, skips):
    models = pytest.importorskip("django.db.models")
    if not hasattr(models, name):
        pytest.skip("this Django has none")
    said, skipped = cascades._what(getattr(models, name))
    assert said.startswith("has the database")
    assert skips in skipped


@SHOP
def test_models_of_packages_are_shown_if_they_are_asked_for():
    _, out, _ = run("signals", "--third-party")
    assert "auth.User\n" in out
    assert "auth.User\n" not in run("signals")[1]
    _, without, _ = run("signals", "coverage", "--format", "json")
    _, counted, _ = run("signals", "coverage", "--third-party", "--format", "json")
    assert "auth.User" in {each["model"] for each in json.loads(counted)["effects"]}
    assert "auth.User" not in {each["model"] for each in json.loads(without)["effects"]}


@override_settings(
    RECONCILE={"RULES": ["rules"], "EXEMPT": {"tests.audit.test_effects.handle": "owed to nobody"}}
)
def test_what_is_exempt_is_said_to_be_with_its_reason():
    with connected(post_save, handle, Order):
        _, out, _ = run("signals", "Order")
    assert "exempt: owed to nobody" in out
    assert "5 covered by rules, 0 by none, 1 exempt." in flat(out)


@SHOP
def test_of_nothing_no_percentage_is_said(monkeypatch):
    from reconcile.audit import listing

    monkeypatch.setattr(listing, "audited_models", lambda **_: [])
    with override_settings(RECONCILE={"RULES": []}):
        _, out, _ = run("signals", "coverage")
    assert "No effect that a rule would have to cover." in out
