"""What an effect writes, and what follows from that."""

import pytest

from reconcile.audit.effects import effects_of
from reconcile.audit.listing import audit_signals
from sample_project.shop.models import Customer, Item
from tests.cli.test_cli import run

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]


def doing(model, name):
    (found,) = audit_signals({}, [model], follow=True).models
    (each,) = [each for each in found.effects if each.effect.name.endswith(name)]
    return each.doing


def writes(model, name):
    return {
        each.model: [one.rpartition(".")[2] for one in each.through]
        for each in reversed(doing(model, name).writes)
    }


def test_writes_are_followed_over_three_hops_and_over_cascades(shelf):
    assert writes(shelf.Root, "root_saved") == {
        "shelf.Branch": [],
        "shelf.Leaf": ["branch_saved"],
        "shelf.Author": ["branch_saved", "leaf_saved"],
        "shelf.Event": ["leaf_deleted"],
    }


def test_a_bulk_write_sets_nothing_off(shelf):
    assert {*writes(shelf.Leaf, "leaf_saved")} == {"shelf.Author", "shelf.Branch"}


def test_what_is_set_on_the_record_and_what_is_called():
    assert doing(Customer, "handle_customer_saving").sets == ["preferences"]
    assert doing(Item, "handle_item_archived").calls == ["sample_project.shop.services.tell_storefront"]


def test_what_is_awaited_is_written_and_read_as_by_the_methods_that_it_calls(shelf):
    assert {
        (each.model, each.how) for each in doing(shelf.Awaited, "awaited_saved").writes if not each.through
    } == {
        ("shelf.Author", "acreate"),
        ("shelf.Log", "asave"),
        ("shelf.Event", "adelete"),
    }


def test_without_following_nothing_is_said_of_writes(shelf):
    (found,) = audit_signals({}, [shelf.Root]).models
    assert [each.doing for each in found.effects] == [None] * len(effects_of(shelf.Root))


def test_callbacks_of_a_commit_are_followed_however_they_are_handed_over(shelf):
    found = doing(shelf.Guarded, "save")
    assert found.sets == ["b"]
    assert {each.model for each in found.writes if not each.through} == {"shelf.Branch", "shelf.Log"}


def test_the_text_says_what_follows_from_an_effect(shelf):
    code, out, _ = run("signals", "shelf.Root")
    assert code == 0
    assert "writes shelf.Branch" in out
    assert "and so shelf.Leaf, by branch_saved" in out
    assert "and so shelf.Author, by branch_saved and leaf_saved" in out
    _, out, _ = run("signals", "shelf.Guarded")
    assert "sets b" in out
    _, out, _ = run("signals", "shelf.Copy")
    assert "Saving it calls none of: book_saving, book_saved" in out


def test_methods_that_only_hand_on_to_djangos_write_their_rows(shelf):
    assert {(each.model, each.how) for each in doing(shelf.Ordering, "save").writes} == {
        ("shelf.Passed", "update"),
        ("shelf.Passed", "save"),
    }
    assert {(each.model, each.how) for each in doing(shelf.Ordering, "delete").writes} == {
        ("shelf.Passed", "delete")
    }
    assert doing(shelf.Passed, "save").writes == []
