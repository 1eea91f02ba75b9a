"""The cases of bypasses, one test each: which call skips what, of which model, and what is no bypass at all."""

import pytest
from django.db.models.signals import pre_save

from reconcile.audit.searching import Search, search_bypasses
from tests.audit.test_effects import connected
from tests.helpers import ROOT

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]

SAVED = {"save", "book_saving", "book_saved"}


def test_1_bulk_create_skips_save_and_its_signals_and_runs_the_fields(skipped):
    assert skipped("Book.objects.bulk_create([Book()])") == {"shelf.Book": SAVED}
    assert skipped("async def f():\n    await Book.objects.abulk_create(rows)") == {"shelf.Book": SAVED}


def test_2_bulk_update_skips_the_fields_too(skipped, states):
    assert skipped('Book.objects.bulk_update(rows, ["n"])') == {"shelf.Book": SAVED | {"stamp"}}
    assert states('Book.objects.bulk_update(rows, ["n"])')["shelf.Book"]["updated"] == "third_party"


def test_3_update_is_the_same_but_for_the_columns_that_it_names(skipped, states):
    assert skipped("Book.objects.filter(pk=1).update(n=1)") == {"shelf.Book": SAVED | {"stamp"}}
    assert skipped("Book.objects.filter(pk=1).update(n=1, stamp='')") == {"shelf.Book": SAVED}
    assert "updated" not in states("Book.objects.filter(pk=1).update(n=1, updated=None)")["shelf.Book"]
    assert skipped("async def f():\n    await Book.objects.aupdate(n=1)") == {"shelf.Book": SAVED | {"stamp"}}


@pytest.mark.parametrize(
    "call", ["add(book)", "remove(book)", "set([book])", "clear()", "aadd(book)", "aset([book])"]
)
def test_4_changes_of_a_reverse_key_are_updates(skipped, call):
    assert skipped(f"def f(book, author: Author):\n    author.books.{call}") == {
        "shelf.Book": SAVED | {"stamp"}
    }


def test_4_without_bulk_they_are_saves(skipped):
    assert skipped("def f(book, author: Author):\n    author.books.add(book, bulk=False)") == {}


def test_5_a_through_row_that_is_added_is_created_past_its_save(skipped):
    assert skipped("def f(club: Club):\n    club.members.add(1)") == {
        "shelf.Membership": {"save", "membership_saved"}
    }
    assert skipped("def f(club: Club):\n    club.members.create(name='a')") == {
        "shelf.Membership": {"save", "membership_saved"}
    }


def test_6_a_through_row_that_is_removed_is_deleted_past_its_delete(skipped):
    assert skipped("def f(club: Club):\n    club.members.remove(1)") == {"shelf.Membership": {"delete"}}
    assert skipped("def f(author: Author):\n    author.clubs.clear()") == {"shelf.Membership": {"delete"}}
    assert skipped("def f(club: Club):\n    club.members.set([])") == {
        "shelf.Membership": {"save", "membership_saved", "delete"}
    }


def test_6_without_a_class_of_its_own_nothing_is_skipped(skipped):
    assert skipped("def f(club: Club):\n    club.readers.add(1)") == {}


def test_7_through_rows_in_bulk_skip_m2m_changed(skipped):
    assert skipped("Club.readers.through.objects.bulk_create(rows)") == {
        "shelf.Club_readers": {"readers_changed"}
    }


def test_8_the_delete_of_rows_sends_signals_and_skips_delete(skipped):
    assert skipped("Book.objects.filter(n=1).delete()") == {"shelf.Book": {"delete"}}
    assert skipped("TaxRule.objects.all().delete()") == {}


def test_9_the_delete_of_one_record_skips_nothing_of_its_own(skipped):
    assert skipped("def f(book: Book):\n    book.delete()") == {}


def test_10_raw_delete_skips_everything(skipped):
    assert skipped("rows = Book.objects.all()\nrows._raw_delete(rows.db)") == {
        "shelf.Book": {"delete", "book_deleted"}
    }


def test_11_get_or_create_is_no_bypass(skipped):
    assert skipped("Book.objects.get_or_create(n=1)\nBook.objects.update_or_create(n=1, defaults={})") == {}


def test_12_loads_skip_what_minds_raw(skipped, search):
    assert skipped("def f(book: Book):\n    book.save_base(raw=True)") == {
        "shelf.Book": {"save", "book_saved"}
    }
    assert skipped("def f(book: Book):\n    models.Model.save(book)") == {"shelf.Book": {"save"}}
    text = "from django.core import serializers\nfor each in serializers.deserialize('json', s):\n    each.save()"
    (each,) = search(text).bypasses
    assert (each.state, each.model) == ("unknown", None)
    (each,) = search(
        "from django.core.management import call_command\ncall_command('loaddata', 'a.json')"
    ).bypasses
    assert each.state == "unknown"


def test_13_an_unbound_delete_is_about_its_argument(skipped):
    assert skipped(
        "from django.db.models import QuerySet\nrows = Book.objects.all()\nQuerySet.delete(rows)"
    ) == {"shelf.Book": {"delete"}}


def test_14_what_a_migration_has_is_historical(search):
    text = """
        def forwards(apps, schema_editor):
            apps.get_model("shelf", "Book").objects.update(n=1)
            Gone = apps.get_model("shelf", "Gone")
            Gone.objects.filter(n=1).update(n=2)
    """
    found = search(text).bypasses
    assert [(each.site.historical, each.model) for each in found] == [(True, "shelf.Book"), (True, None)]


NOT_DJANGO = {
    "a dict": "data = {k: 1 for k in 'ab'}\ndata.update(confirm=x)",
    "keyword arguments": "def f(**kwargs):\n    kwargs.update(n=1)",
    "a hash": "import hashlib\nh = hashlib.md5()\nh.update(b'x')",
    "a cache": "from django.core.cache import cache\ncache.delete('key')",
    "a file": "def f(row: Document):\n    row.file.delete(save=False)\n    row.file.delete()",
    "a set": "s = set()\ns.update(a)\ns.add(1)\ns.clear()",
}


@pytest.mark.parametrize("text", NOT_DJANGO.values(), ids=NOT_DJANGO)
def test_15_what_is_not_django_is_not_accused(search, text):
    assert search(text).bypasses == []


def test_16_a_model_with_a_method_update_is_no_queryset(skipped):
    text = "class View:\n    state: State\n    def f(self, u):\n        self.state.update(user=u)\n\ndef g(document: Document, u):\n    document.state.update(user=u)"
    assert skipped(text) == {}


def search_shelf():
    found = search_bypasses({}, {}, Search(paths=[ROOT / "tests" / "shelf" / "models.py"])).bypasses
    return [(each.site.function, each.model, each) for each in found]


def test_16_the_body_of_the_method_is_the_site():
    assert ("State.update", "shelf.State") in [each[:2] for each in search_shelf()]


def test_17_the_class_of_self_is_its_concrete_models():
    found = {model: each for function, model, each in search_shelf() if function == "Counted.bump"}
    assert {*found} == {"shelf.Visitors", "shelf.Voters"}
    assert {each.state for each in found.values()} == {"uncovered"}


def test_18_a_parameter_is_what_callers_hand_it(skipped):
    text = """
        def f(model, name):
            rows = model.objects.all()
            rows.update(**{name: 1})

        f(State, "user")
        f(TaxRule, "default")
    """
    assert skipped(text) == {"shelf.State": {"state_saved"}, "shelf.TaxRule": {"tax_rule_saved"}}
    assert skipped(text + "\n        f(unknown, 'a')\n") == {None: set()}


def test_19_a_relation_of_one_model_alone_is_known_by_its_name(found):
    (each,) = found("def f(x):\n    x.tax_rules.update(default=False)").values()
    assert (each.model, each.by_name, each.state) == ("shelf.TaxRule", True, "uncovered")


def test_19_a_name_that_is_a_plain_column_somewhere_is_unknown(states):
    assert states("def f(x):\n    x.labels.update(word='a')") == {None: "unknown"}


def test_20_what_two_loops_put_together_is_unknown(states):
    text = """
        def f(unknown):
            rows = []
            for c in Book.objects.all():
                rows.append(c)
            for c in State.objects.all():
                rows.append(c)
            unknown.bulk_create(rows)
    """
    assert states(text) == {None: "unknown"}


def test_20_the_name_of_an_earlier_loop_says_nothing_of_a_later_one(skipped):
    text = """
        def f(unknown):
            rows = []
            for c in Book.objects.all():
                print(c)
            for c in State.objects.all():
                rows.append(c)
            unknown.bulk_create(rows)
    """
    assert skipped(text) == {"shelf.State": {"state_saved"}}


def test_21_a_view_names_its_model(skipped, states):
    text = """
        from django.views.generic import ListView

        class Page({base}):
            {model}
            def post(self, request):
                self.get_queryset().filter(n=1).update(n=2)
    """
    assert skipped(text.format(base="ListView", model="model = Book")) == {"shelf.Book": SAVED | {"stamp"}}
    assert states(text.format(base="ListView", model="paginate_by = 3")) == {None: "unknown"}


def test_22_an_own_delete_of_rows_is_said_to_be_one(found, skipped):
    (each,) = found("Soft.objects.all().delete()").values()
    assert each.state == "low"
    assert "own delete() at tests/shelf/models.py" in each.skips[0].reason
    assert skipped("Soft.all_objects.all().delete()") == {"shelf.Soft": {"delete"}}
    assert skipped("Soft.objects.fresh().update(gone=None)") == {"shelf.Soft": {"save"}}


def test_23_what_is_done_for_new_records_is_not_skipped_by_updates(skipped):
    assert skipped("Numbered.objects.bulk_update(x, ['a'])\nNumbered.objects.update(a=1)") == {}
    assert skipped("Numbered.objects.bulk_create(x)") == {"shelf.Numbered": {"save"}}


def test_24_phases_are_told_in_many_ways(skipped):
    assert skipped("Phased.objects.bulk_create(x)") == {"shelf.Phased": {"only_new", "new_with_url"}}
    assert skipped("Phased.objects.update(url='a')") == {"shelf.Phased": {"only_old"}}


def test_25_a_guard_is_evaluated_for_the_model(skipped, shelf):
    with connected(pre_save, shelf.hear_the_loud):
        assert skipped("Shout.objects.bulk_create(x)") == {"shelf.Shout": {"hear_the_loud"}}
        assert skipped("Whisper.objects.bulk_create(x)") == {}


def test_26_what_is_filled_in_where_it_is_empty(states):
    assert states("Slugged.objects.update(t='x')") == {"shelf.Slugged": {"save": "low"}}
    assert states("Slugged.objects.update(n=1)") == {}
    assert states("Slugged.objects.update(slug='x')") == {}
    assert states("Slugged.objects.bulk_create([Slugged(t='x')])") == {"shelf.Slugged": {"save": "uncovered"}}
    assert states("Slugged.objects.bulk_create([Slugged(t='x', slug='x')])") == {}


def test_27_what_is_normalised(states):
    assert states("Coded.objects.update(used=F('used') + 1)") == {}
    assert states("Coded.objects.update(code=c)") == {"shelf.Coded": {"save": "uncovered"}}


def test_28_a_cache_is_told_whatever_is_written(states):
    assert states("Cached.objects.update(n=1)") == {"shelf.Cached": {"save": "low"}}
    assert states("Cached.objects.all().delete()") == {"shelf.Cached": {"delete": "uncovered"}}


def test_29_what_the_function_does_itself_is_by_hand(found):
    (each,) = found(
        "def f(event: Event, x):\n    Seat.objects.bulk_create(x)\n    event.cache.clear()"
    ).values()
    assert each.state == "by_hand"
    assert "line 11" in each.skips[0].reason
    (each,) = found("def f(event: Event, x):\n    Seat.objects.bulk_create(x)\n    event.clear()").values()
    assert each.state == "uncovered"


def test_30_calls_inside_an_effect_are_part_of_it():
    found = [each for function, _, each in search_shelf() if function in {"Part.save", "Part._tell"}]
    assert {each.state for each in found} <= {"low", "third_party"}
    assert {each.model for each in found} == {"shelf.Book", "shelf.Visitors"}


def test_31_validation_is_low(found):
    (each,) = found("Checked.objects.update(n=-1)").values()
    assert (each.state, each.skips[0].reason) == ("low", "validation is skipped")


def test_33_a_file_that_cannot_be_parsed_is_named(search):
    audit = search("def (:\n    Book.objects.bulk_create(x)")
    assert len(audit.unreadable) == 1
    assert "SyntaxError" in audit.unreadable[0].why


def test_what_a_receiver_noted_of_a_column_is_about_that_column(states):
    assert states("Watched.objects.update(note='a')") == {"shelf.Watched": {"after_move": "low"}}
    assert states("Watched.objects.update(place='a')") == {"shelf.Watched": {"after_move": "uncovered"}}


def test_a_receiver_of_every_model_is_asked_what_it_does_for_this_one(states, shelf):
    with connected(pre_save, shelf.hear_who_can_be_watched):
        assert states("Whisper.objects.bulk_create(x)") == {}
        assert states("Watched.objects.update(note='a')")["shelf.Watched"]["hear_who_can_be_watched"] == "low"
        assert (
            states("Watched.objects.bulk_create(x)")["shelf.Watched"]["hear_who_can_be_watched"]
            == "uncovered"
        )


def test_a_receiver_of_every_model_that_looks_the_model_up_is_low(found, shelf):
    with connected(pre_save, shelf.hear_some):
        (each,) = found("Whisper.objects.bulk_create(x)").values()
    assert each.state == "low"
    assert "whether it does anything for this one can't be told" in each.skips[0].reason


def test_a_column_that_is_filled_in_from_the_whole_record_is_there_in_each_row(states):
    found = states("Named.objects.update(title='a')")
    assert found == {"shelf.Named": {"save": "uncovered"}}, "since index() may do anything"


def test_what_runs_where_a_column_is_empty_and_does_not_fill_it_is_no_filling_in(found):
    (each,) = found("Slugged.objects.bulk_update(x, columns)").values()
    assert (each.state, each.skips[0].reason) == ("low", "it fills in what is empty")


def test_a_method_that_is_only_an_alias_is_not_the_projects_own(states):
    assert states("Scoped.objects.update(n=1)") == {"shelf.Scoped": {"save": "uncovered"}}, (
        "since the task reads n"
    )


def test_rows_of_a_many_to_many_are_no_effect_of_creating_the_owner(states):
    assert states("Club.objects.bulk_create(x)") == {}


def test_a_file_is_known_by_its_name(search):
    assert search("def f(x):\n    x.answer.file.delete()").bypasses == []


def test_an_object_that_a_record_holds_is_no_record(search):
    text = """
        class Stats:
            def delete(self): ...

        class Holder:
            def __init__(self):
                self.stats = Stats()

        def f(holder: Holder):
            holder.stats.delete()
    """
    assert search(text).bypasses == []


def test_what_runs_only_where_a_column_has_changed_is_about_that_column(found):
    skips = {
        each.effect.name: each for each in found("Tracked.objects.update(place='a')")["shelf.Tracked"].skips
    }
    assert skips["shelf.Tracked.save"].state == "low"
    assert "only where other columns have changed" in skips["shelf.Tracked.save"].reason
    skips = {
        each.effect.name: each for each in found("Tracked.objects.update(start=1)")["shelf.Tracked"].skips
    }
    assert skips["shelf.Tracked.save"].state == "uncovered"
    skips = {
        each.effect.name: each for each in found("Tracked.objects.bulk_create(x)")["shelf.Tracked"].skips
    }
    assert skips["shelf.Tracked.save"].state == "uncovered"


def test_a_signal_that_is_sent_by_hand_is_by_hand(found):
    text = """
        from django.db.models.signals import post_save

        def f(rows):
            Tracked.objects.filter(pk=1).update(note="a")
            for each in rows:
                post_save.send(sender=Tracked, instance=each)
    """
    states = {each.effect.name.rpartition(".")[2]: each.state for each in found(text)["shelf.Tracked"].skips}
    assert states == {"save": "low", "tracked_saved": "by_hand"}


def test_an_own_method_of_rows_is_trusted_and_named(found):
    (each,) = found("Owned.objects.bulk_create(x)").values()
    assert (each.state, each.skips[0].reason[:37]) == ("low", "the project's own bulk_create() at te")


def test_a_receiver_of_every_model_of_which_nobody_knows_what_it_calls_is_low(states, shelf):
    with connected(pre_save, shelf.hear_all):
        assert states("Whisper.objects.bulk_create(x)") == {"shelf.Whisper": {"hear_all": "low"}}


@pytest.mark.parametrize(
    ("receiver", "heard", "unheard"),
    [
        ("hear_two", "Guarded", "Shout"),
        ("hear_one", "Guarded", "Whisper"),
        ("hear_kind", "Shout", "Whisper"),
        ("hear_type", "Guarded", "Whisper"),
    ],
)
def test_a_receiver_says_in_many_ways_which_models_it_is_for(states, shelf, receiver, heard, unheard):
    with connected(pre_save, getattr(shelf, receiver)):
        assert states(f"{heard}.objects.bulk_create(x)")[f"shelf.{heard}"][receiver] == "uncovered"
        assert receiver not in states(f"{unheard}.objects.bulk_create(x)").get(f"shelf.{unheard}", {})


@pytest.mark.parametrize("receiver", [
    "hear_matching", "hear_guarded", "hear_group", "hear_unpacked", "hear_assigned_at_once", "hear_walrus", "hear_either", "hear_made",
    "hear_asked_for",
])  # fmt: skip
def test_a_receiver_acts_in_whichever_statement_it_does(states, shelf, receiver):
    with connected(pre_save, getattr(shelf, receiver)):
        assert states("Whisper.objects.bulk_create(x)") == {"shelf.Whisper": {receiver: "uncovered"}}
        assert states('Whisper.objects.filter(pk=1).update(text="x")') == {
            "shelf.Whisper": {receiver: "uncovered"}
        }


@pytest.mark.parametrize(("column", "state"), [
    ("place", "uncovered"), ("start", "uncovered"), ("note", "uncovered"), ("idle", "low"),
])  # fmt: skip
def test_what_is_left_on_the_record_depends_on_all_who_set_it(states, column, state):
    assert states(f"Stashing.objects.update({column}=x)") == {"shelf.Stashing": {"stashed": state}}


def test_a_receiver_that_walks_through_what_the_model_has_is_low(states, shelf):
    with connected(pre_save, shelf.hear_asked):
        assert states("Whisper.objects.bulk_create(x)") == {"shelf.Whisper": {"hear_asked": "low"}}


def test_a_column_that_is_set_by_its_name_and_what_is_done_on_commit(found, states):
    assert states("Guarded.objects.update(b=1)") == {"shelf.Guarded": {"save": "low"}}
    assert states("Guarded.objects.update(a=1)") == {"shelf.Guarded": {"save": "uncovered"}}
    (each,) = found("Guarded.objects.bulk_create(x)").values()
    assert each.state == "uncovered"


def test_what_a_save_does_in_blocks_and_under_another_name_counts(states):
    assert states("Various.objects.update(note='a')") == {"shelf.Various": {"save": "uncovered"}}
    assert states("Various.objects.bulk_create(x)") == {"shelf.Various": {"save": "uncovered"}}
    assert states("Various.objects.all().delete()") == {"shelf.Various": {"delete": "uncovered"}}
    assert states("def f(various: Various):\n    various.save_base(raw=True)") == {
        "shelf.Various": {"save": "uncovered"}
    }


def test_the_save_of_a_proxy_calls_no_receiver_of_the_model_behind_it(states):
    assert states("def f(copy: Copy):\n    copy.save()")["shelf.Copy"].keys() == {"book_saving", "book_saved"}
    assert "shelf.Copy" in states("Copy.objects.create(n=1)")
    assert states("def f(book: Book):\n    book.save()") == {}


def test_a_generic_or_related_manager_of_nothing_with_effects_is_quiet(states):
    assert states("def f(author: Author):\n    author.reads_in.add(1)\n    author.reads_in.clear()") == {}


def test_what_is_left_for_another_receiver_says_when_that_does_anything(states):
    left = states("Watched.objects.update(note='a')")["shelf.Watched"]
    assert left["after_move"] == "low"
    assert states("Watched.objects.update(place='a')")["shelf.Watched"]["after_move"] == "uncovered"
    assert "after_move" not in states("Watched.objects.bulk_create([Watched(note='a')])").get(
        "shelf.Watched", {}
    )


@pytest.mark.parametrize(
    ("columns", "skipped"),
    {
        "state='a'": {"save": "low", "number_published": "low", "publishing_noted": "low"},
        "n=1": {"save": "uncovered", "number_published": "uncovered", "publishing_noted": "low"},
        "title='a'": {"save": "uncovered", "number_published": "low", "publishing_noted": "low"},
        "**some": {"save": "uncovered", "number_published": "uncovered", "publishing_noted": "low"},
    }.items(),
)
def test_what_is_done_for_some_update_fields_alone_is_skipped_for_these(states, columns, skipped):
    assert states(f"Publishing.objects.update({columns})") == {"shelf.Publishing": skipped}


def test_what_belongs_to_a_migrations_model_is_that_of_its_relations_and_sets_nothing_off(found):
    text = """
    def adjust(apps, schema_editor):
        Author = apps.get_model("shelf", "Author")
        for author in Author.objects.all():
            author.books.filter(n=1).update(title="a")
    """
    book = found(text)["shelf.Book"]
    assert {str(each.state) for each in book.skips} == {"low"}
    assert {each.reason for each in book.skips} == {
        "a migration that calls it has models of its own, which set nothing off"
    }


def test_a_receiver_that_is_called_by_its_name_is_by_hand(states):
    text = """
        from tests.shelf.models import tracked_saved

        def f(rows):
            Tracked.objects.filter(pk=1).update(note="a", start=1)
            for each in rows:
                {call}
    """
    by_name = states(text.format(call="tracked_saved(instance=each)"))
    assert by_name == {"shelf.Tracked": {"save": "uncovered", "tracked_saved": "by_hand"}}
    other = states(text.format(call="Tracked(note=each).save()"))
    assert other == {"shelf.Tracked": {"save": "uncovered", "tracked_saved": "uncovered"}}


def test_a_router_and_what_nobody_sets_depend_on_no_column(states):
    assert states("Routed.objects.update(n=1)") == {"shelf.Routed": {"save": "low"}}
    assert states("Routed.objects.update(title='a')") == {"shelf.Routed": {"save": "uncovered"}}
    assert states("Hushed.objects.update(n=1)") == {"shelf.Hushed": {"save": "uncovered"}}


def test_a_signal_that_is_sent_for_another_model_does_nothing_for_this_one(states):
    text = """
        from django.db.models.signals import post_save

        def f(rows):
            State.objects.bulk_create(rows)
            for each in rows:
                post_save.send(sender={}, instance=each, created=True)
    """
    assert states(text.format("State"))["shelf.State"]["state_saved"] == "by_hand"
    assert states(text.format("Book"))["shelf.State"]["state_saved"] == "uncovered"
