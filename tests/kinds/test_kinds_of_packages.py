"""What well-known packages keep twice, on models of the same shape: drifted by a bulk path, found, repaired."""

import re  # noqa: I001
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db.models import (
    Avg, BigIntegerField, Case, CharField, Count, Exists, F, OuterRef, Q, Subquery, Sum, TextField, Value, When,
)  # fmt: skip
from django.db.models.functions import Cast, Coalesce, Concat, Length, Lower
from django.utils.text import slugify

from reconcile import (
    EXTRA, AtLeast, BeUnique, Delete, FromPython, HaveRow, HaveRows, HaveSource, HaveValues, Latest, LookedUp,
    Rule, Satisfy, runs,
)  # fmt: skip
from tests.helpers import assert_clean, assert_finds, assert_repairs, repaired
from tests.zoo.foreign import (
    KEPT, NOON, Account, AccountEmail, CartLine, Category, FollowUp, Forum, ForumPost, ForumTopic, HelpQueue,
    HelpTicket, ObjectGrant, OrderLine, Poll, PollHistory, Product, Reference, Review, SitePage, StockRecord,
    ThreadComment, address, cart_lines, categories, column, comments, followups, forums, grants, kind, minutes,
    pages, raw_delete, snapshot, stocks, the, tickets, topic, users,
)  # fmt: skip
from tests.zoo.models import Device, Page, Team

pytestmark = pytest.mark.django_db


def values(name, every, **columns):
    return Rule(name=name, every=every, must=HaveValues(**columns))


def assert_mends(rule, *, written=None, **drifted):
    """The check finds just these rows, and the repair writes as many, or those that are given."""
    drifted = {name: list(rows) for name, rows in drifted.items()}
    assert_finds(rule, **drifted)
    verbs = {"missing": "insert", "stale": "update", "extra": "delete"}
    return assert_repairs(rule, **(written or {verbs[name]: len(rows) for name, rows in drifted.items()}))


def all_repaired(*rules):
    """All rules are repaired together, in whatever order they were given, and a second run writes nothing."""
    named = {rule.name: rule for rule in rules}
    for written in (True, False):
        _, results = runs.repair(named, using="default")
        assert [(each.error, each.left, each.why_stopped) for each in results] == [(None, 0, "")] * len(rules)
        assert any(each.written.total for each in results) is written
    for rule in rules:
        assert_clean(rule)


# A forum.

TOPIC = values(
    "topics", ForumTopic, posts_count=Count("posts", filter=Q(posts__approved=True)),
    first_post=Latest("posts", by=["created"], filter=Q(approved=True)),
    last_post=Latest("posts", by=["-created"], filter=Q(approved=True)),
    last_post_on=Latest("posts", by=["-created"], value="created", filter=Q(approved=True)),
)  # fmt: skip
DIRECT = values(
    "forums.direct", Forum, direct_topics_count=Count("topics", filter=Q(topics__approved=True)),
    direct_posts_count=Sum("topics__posts_count", filter=Q(topics__approved=True)),
)  # fmt: skip
BELOW_IT = Sum("children__all_posts_count")
ALL_POSTS = values("forums.all", Forum, all_posts_count=F("direct_posts_count") + BELOW_IT)
NEWEST = [F("last_post_on").desc(nulls_last=True)]
FORUM_LAST = values(
    "forums.last", Forum, last_post=Latest("topics", by=NEWEST, value="last_post", filter=Q(approved=True)),
    last_post_on=Latest("topics", by=NEWEST, value="last_post_on", filter=Q(approved=True)),
)  # fmt: skip


def test_posts_made_in_bulk_are_counted_up_to_the_top_of_the_forum():
    top, middle, leaf = forums(3)
    empty, _other = Forum.objects.create(parent=top), Forum.objects.create()
    topic(top, 0), topic(middle, 1, 2), topic(leaf, 3, 4, 5), topic(leaf, 9, approved=False), topic(empty)
    rules = (ALL_POSTS, FORUM_LAST, DIRECT, TOPIC)
    all_repaired(*rules)
    assert column(Forum, "all_posts_count") == [6, 5, 3, 0, 0]
    assert column(Forum, "direct_topics_count") == [1, 1, 1, 1, 0]
    assert [the(each, "last_post_on") for each in (leaf, empty)] == [NOON + minutes(5), None]
    ForumPost.objects.filter(topic__forum=leaf).update(approved=False)
    assert_finds(TOPIC, stale=ForumTopic.objects.filter(forum=leaf))
    all_repaired(*rules)
    assert column(Forum, "all_posts_count") == [3, 2, 0, 0, 0]
    assert the(leaf, "last_post", "last_post_on") == (None, None)


def test_a_moved_forum_is_counted_above_its_new_place():
    top, middle, leaf = forums(3)
    other = Forum.objects.create()
    topic(leaf, 1, 2), topic(middle, 3)
    all_repaired(TOPIC, DIRECT, ALL_POSTS)
    Forum.objects.filter(pk=leaf.pk).update(parent=other)
    assert_mends(ALL_POSTS, stale=[middle, other], written={"update": 3})
    assert [the(each, "all_posts_count") for each in (top, middle, leaf, other)] == [1, 1, 2, 2]


def test_of_posts_of_one_moment_the_keys_decide_and_hidden_ones_do_not_count():
    made = topic(Forum.objects.create(), 7, 7, 7, 7)
    hidden_first, first, last, hidden_last = ForumPost.objects.order_by("pk")
    ForumPost.objects.filter(pk__in=[hidden_first.pk, hidden_last.pk]).update(approved=False)
    assert_mends(TOPIC, stale=[made])
    assert the(made, "first_post", "last_post", "posts_count") == (first.pk, last.pk, 2)


# A shop.

DEPTH = values("categories.depth", Category, depth=Length("path") / 4)
BELOW = LookedUp(Category, link={"path__startswith": F("path"), "depth": F("depth") + 1}, value=Count("pk"))
NUMCHILD = values("categories.numchild", Category, numchild=BELOW)
CHILDREN = Category.objects.filter(path__startswith=OuterRef("path"), depth=OuterRef("depth") + 1)
COUNTED = CHILDREN.values("depth").annotate(number=Count("pk")).values("number")
NUMCHILD_BY_HAND = values("categories.by_hand", Category, numchild=Coalesce(Subquery(COUNTED), 0))
SLUG = values("categories.slug", Category, slug=FromPython(slugify, reads=["name"]))
ALLOCATED = values(
    "stock.allocated", StockRecord,
    num_allocated=Sum("lines__quantity", filter=Q(lines__status="open"), default=0),
)  # fmt: skip
RATING = values("products.rating", Product, rating=Avg("reviews__score", filter=Q(reviews__approved=True)))
WHOLE = Q(structure="child", parent__structure="parent") | ~Q(structure="child") & Q(parent=None)
STRUCTURE = Rule(name="products.structure", every=Product, must=Satisfy(WHOLE))
HAS_CHILDREN = Exists(Product.objects.filter(parent=OuterRef("pk")))
PARENT = values("products.parent", Product.objects.filter(HAS_CHILDREN), structure=Value("parent"))


@pytest.mark.parametrize("numchild", [NUMCHILD, NUMCHILD_BY_HAND], ids=["looked up", "subquery"])
def test_categories_made_in_bulk_know_their_depth_and_their_children(numchild):
    made = categories("0001", "00010001", "000100010001", "00010002", "0002", "0010", "00100001")
    assert_finds(DEPTH, stale=made)
    all_repaired(numchild, DEPTH)
    assert column(Category, "depth") == [1, 2, 3, 2, 1, 1, 2]
    assert column(Category, "numchild") == [2, 1, 0, 0, 0, 1, 0]
    raw_delete(Category.objects.filter(path="00010002"))
    Category.objects.filter(path="000100010001").update(path="00020001")
    assert_finds(DEPTH, stale=[made[2]])
    all_repaired(numchild, DEPTH)
    assert column(Category, "numchild") == [1, 0, 0, 1, 1, 0]


@pytest.mark.server
@pytest.mark.parametrize("numchild", [NUMCHILD, NUMCHILD_BY_HAND], ids=["looked up", "subquery"])
def test_children_of_paths_that_differ_by_case_are_told_apart(numchild):
    """But by SQLite, whose LIKE folds case."""
    categories("000a", "000A", "000a0001", "000A0001", "000A0002")
    assert_repairs(DEPTH, update=5)
    repaired(numchild)
    assert column(Category, "numchild") == [1, 2, 0, 0, 0]


@pytest.mark.server
def test_a_condition_by_a_subquery_tells_them_apart_too():
    _, childless, _ = categories("000a", "000A", "000a0001")
    has_child = Exists(Category.objects.filter(path__startswith=OuterRef("path"), path__endswith="0001"))
    assert_finds(Rule(name="children", every=Category, must=Satisfy(has_child)), stale=[childless])


def test_a_slug_is_made_of_the_name_by_python():
    accents, spaces, empty, right = categories("0001", "0002", "0003", "0004")
    for each, name in ((accents, "Crème Brûlée"), (spaces, "  Two  Words "), (empty, ""), (right, "a")):
        Category.objects.filter(pk=each.pk).update(name=name, slug="a")
    assert_mends(SLUG, stale=[accents, spaces, empty])
    assert column(Category, "slug") == ["creme-brulee", "two-words", "", "a"]


def test_stock_is_allocated_to_open_lines_alone_and_to_none_if_there_are_none():
    filled, null, empty, _right, back = stocks(None, None, 3, 0, 4)
    OrderLine.objects.bulk_create(
        OrderLine(stockrecord=stock, quantity=quantity, status=status)
        for stock, quantity, status in (
            (filled, 2, "open"), (filled, 3, "open"), (filled, 9, "Open"), (filled, 9, "open "),
            (null, 5, "sent"), (back, 4, "open"), (back, -4, "open"), (None, 8, "open"),
        )
    )  # fmt: skip
    folded = OrderLine.objects.filter(stockrecord=filled, status="open").values_list("quantity", flat=True)
    assert_mends(ALLOCATED, stale=[filled, null, empty, back])
    assert column(StockRecord, "num_allocated") == [sum(folded), 0, 0, 0, 0]


def test_a_rating_is_the_average_of_approved_reviews_and_null_without_any():
    thirds, hidden, none, right, zero = (
        Product.objects.create(rating=each) for each in ("1.00", "4.00", "0.00", "2.50", None)
    )
    scores = {thirds: (5, 5, 4), hidden: (), none: (), right: (2, 3), zero: (-1, 1)}
    Review.objects.bulk_create(
        Review(product=product, score=score) for product, given in scores.items() for score in given
    )
    Review.objects.bulk_create([Review(product=hidden, score=4, approved=False)])
    assert_mends(RATING, stale=[thirds, hidden, none, zero])
    assert column(Product, "rating") == [Decimal("4.67"), None, None, Decimal("2.50"), Decimal(0)]


def test_a_child_without_a_parent_and_a_parent_that_is_no_parent_are_found():
    parent, alone = Product.objects.create(structure="parent"), Product.objects.create()
    child = Product.objects.create(structure="child", parent=parent)
    assert_clean(STRUCTURE)
    Product.objects.bulk_create([Product(structure="child"), Product(structure="child", parent=alone)])
    orphan, stray = Product.objects.filter(pk__gt=child.pk).order_by("pk")
    Product.objects.filter(pk=parent.pk).update(structure="standalone")
    assert_finds(STRUCTURE, stale=[child, orphan, stray])
    assert_mends(PARENT, stale=[parent, alone])
    assert_finds(STRUCTURE, stale=[orphan])


def test_lines_of_a_basket_with_one_reference_are_merged():
    alike = BeUnique("cart", "line_reference", merge={"quantity": "sum"})
    once = Rule(name="lines", every=CartLine, must=alike)
    lines = cart_lines(
        (1, "b", 1), (1, "b", 2), (2, "b", 4), (1, "b ", 8), (1, "b", 0), (1, "a", 1), (1, "A", 1)
    )
    assert_finds(once, extra=[lines[1], lines[4]])
    assert_repairs(once, update=1, delete=2)
    assert column(CartLine, "quantity") == [3, 4, 8, 1, 1]


# Comments in threads.

THREAD = values(
    "comments.thread", ThreadComment, level=Coalesce(F("parent__level") + 1, Value(0)),
    thread_id=Coalesce(F("parent__thread_id"), F("pk"), output_field=BigIntegerField()),
)  # fmt: skip
REPLIES = Sum("children__nested_count") + Count("children")
NESTED = values("comments.nested", ThreadComment, nested_count=REPLIES)
ON_OBJECT = {"must": HaveSource("content_object", unknown=None), "remedies": {EXTRA: Delete()}}
COMMENTED = Rule(name="comments.object", every=ThreadComment, **ON_OBJECT)


def test_a_thread_that_was_made_in_bulk_knows_its_level_its_root_and_all_its_replies():
    made = comments(None, 0, 1, 0, 3, 4, None, on=Team.objects.create(name="team"))
    first, last = made[0].pk, made[-1].pk
    all_repaired(NESTED, THREAD)
    assert column(ThreadComment, "level") == [0, 1, 2, 1, 2, 3, 0]
    assert column(ThreadComment, "thread_id") == [first] * 6 + [last]
    assert column(ThreadComment, "nested_count") == [5, 1, 0, 2, 1, 0, 0]
    ThreadComment.objects.filter(pk=made[3].pk).update(parent=made[-1].pk)
    assert_finds(NESTED, stale=[made[0], made[-1]])
    assert_finds(THREAD, stale=[made[3]])
    all_repaired(THREAD, NESTED)
    assert column(ThreadComment, "thread_id") == [first] * 3 + [last] * 4
    assert column(ThreadComment, "nested_count") == [2, 1, 0, 2, 1, 0, 3]


def test_a_comment_whose_parent_is_gone_becomes_a_root():
    made = comments(None, 0, 1, on=Team.objects.create(name="team"))
    assert_repairs(THREAD, update=3)
    raw_delete(ThreadComment.objects.filter(pk=made[0].pk))
    assert_mends(THREAD, stale=[made[1]], written={"update": 2})
    assert column(ThreadComment, "level") == [0, 1]
    assert column(ThreadComment, "thread_id") == [made[1].pk] * 2


def test_roots_that_are_their_own_parents_need_a_rule_of_their_own():
    made = comments(0, 0, 1, 3, 3, on=Team.objects.create(name="team"))
    own = ThreadComment.objects.filter(parent=F("pk"))
    others = ThreadComment.objects.exclude(parent=F("pk"))
    roots = values("comments.roots", own, level=0, thread_id=F("pk"))
    replies = values("replies", others, level=F("parent__level") + 1, thread_id=F("parent__thread_id"))
    all_repaired(replies, roots)
    assert column(ThreadComment, "level") == [0, 1, 2, 0, 1]
    assert column(ThreadComment, "thread_id") == [made[0].pk] * 3 + [made[3].pk] * 2


def test_a_root_that_is_its_own_parent_and_is_not_left_out_is_named_as_a_circle():
    made = comments(0, 0, on=Team.objects.create(name="team"))
    result = repaired(THREAD)
    assert f"in a circle: {made[0].pk} → {made[0].pk}, through 'parent'" in result.why_stopped
    assert set(column(ThreadComment, "level")) == {0}


def test_comments_on_what_is_gone_are_deleted_with_their_replies_from_the_leaves_on():
    team, device = Team.objects.create(name="a"), Device.objects.create(name="b")
    gone, kept = comments(None, 0, on=team), comments(None, on=device)
    assert_clean(COMMENTED)
    raw_delete(Team.objects.filter(pk=team.pk))
    assert_mends(COMMENTED, extra=gone)
    assert column(ThreadComment, "pk") == [kept[0].pk]


# Permissions for single objects.

GRANTED = Rule(name="grants.object", every=ObjectGrant, **ON_OBJECT, max_deletes=None)


def test_grants_on_objects_of_any_key_that_are_gone_are_found_and_deleted():
    teams = [Team.objects.create(name=name) for name in "ab"]
    devices = [Device.objects.create(name=name) for name in "ab"]
    pages = [Page.objects.create(code=code) for code in ("a", "7")]
    rows = [grants(type(each[0]), *(one.pk for one in each)) for each in (teams, devices, pages)]
    assert_clean(GRANTED)
    for each in (teams, devices, pages):
        raw_delete(type(each[0])._base_manager.filter(pk=each[0].pk))
    assert_mends(GRANTED, extra=[first for first, _ in rows])
    assert column(ObjectGrant, "pk") == [second.pk for _, second in rows]


def test_texts_that_are_no_key_are_grants_on_nothing():
    number, device = Team.objects.create(name="a").pk, Device.objects.create(name="b")
    Page.objects.create(code="a")
    grants(Team, number), grants(Device, device.pk), grants(Page, "a")
    wrong = [
        *grants(Team, "", "abc", f"0{number}", f"{number} ", f" {number}", f"{number}.0", "-1", "9" * 40),
        *grants(Device, "", "x", device.pk.hex, str(device.pk).upper(), f"{device.pk} ", number),
        *grants(Page, "", "A", "a ", "a\t"),
    ]
    assert_mends(GRANTED, extra=wrong)
    assert ObjectGrant.objects.count() == 3


def test_a_grant_on_a_model_that_is_no_more_is_found():
    unknown = ContentType.objects.create(app_label="zoo", model="dodo")
    user = Account.objects.create()
    lost = ObjectGrant.objects.create(user=user, content_type=unknown, object_pk="1")
    ObjectGrant.objects.bulk_create([ObjectGrant(user=user, content_type_id=unknown.pk + 999, object_pk="1")])
    assert_mends(GRANTED, extra=ObjectGrant.objects.filter(pk__gte=lost.pk))


# A record and its history.

ROWS = PollHistory.objects.filter(id=OuterRef("pk")).order_by("-history_date", "-history_id")
NEWER = PollHistory.objects.filter(id=OuterRef("id")).filter(
    Q(history_date__gt=OuterRef("history_date"))
    | Q(history_date=OuterRef("history_date"), history_id__gt=OuterRef("history_id"))
)
HISTORY = Rule(
    name="polls.history", every=Poll,
    must=HaveRow(PollHistory, link={"id": F("pk")}, count=AtLeast(1), create_only={each: F(each) for each in KEPT}),
)  # fmt: skip
NEWEST_ROW = Rule(
    name="polls.newest", every=PollHistory.objects.filter(~Exists(NEWER)),
    must=HaveSource(model=Poll, link={"pk": F("id"), "question": F("question"), "votes": F("votes")}),
)  # fmt: skip
RECORDED = Rule(
    name="polls.recorded", every=Poll.objects.filter(Exists(ROWS)),
    must=Satisfy(Q(question=Subquery(ROWS.values("question")[:1]), votes=Subquery(ROWS.values("votes")[:1]))),
)  # fmt: skip
RECORDED_AGAIN = Rule(
    name="polls.again", every=Poll,
    must=HaveRow(
        PollHistory, link={"id": F("pk"), "question": F("question"), "votes": F("votes")}, where=Q(~Exists(NEWER)),
        count=AtLeast(1), create_only={"closes_on": F("closes_on"), "history_type": "~"},
    ),
)  # fmt: skip
RESTORED = values(
    "polls.restored", Poll.objects.filter(Exists(ROWS)),
    **{name: LookedUp(PollHistory, link={"id": F("pk")}, value=name, by=["-history_date"]) for name in KEPT},
)  # fmt: skip


def test_a_record_without_any_history_gets_a_row_of_what_it_is():
    known = Poll.objects.create(question="a")
    snapshot(known, question="before")
    Poll.objects.bulk_create([Poll(question="b", votes=-3, closes_on=date(2026, 5, 6)), Poll(question="")])
    assert_mends(HISTORY, missing=Poll.objects.exclude(pk=known.pk))
    rows = PollHistory.objects.order_by("id").values_list(*KEPT, "history_type")
    assert list(rows)[1:] == [("b", -3, date(2026, 5, 6), "+"), ("", 0, None, "+")]


def test_the_newest_row_of_history_is_what_the_record_is():
    right, updated, tie, _never = (Poll.objects.create(question=each) for each in "abcd")
    for poll in (right, updated, tie):
        snapshot(poll, 1, votes=9), snapshot(poll, 2)
    last = snapshot(tie, 2, question="newest of two")
    assert_finds(RECORDED, stale=[tie])
    Poll.objects.filter(pk=updated.pk).update(votes=5)
    newest = PollHistory.objects.get(id=updated.pk, votes=0)
    assert_finds(RECORDED, stale=[updated, tie])
    assert_finds(NEWEST_ROW, extra=[newest.history_id, last.history_id])
    assert_mends(RESTORED, stale=[updated, tie])
    assert column(Poll, "question") + column(Poll, "votes") == ["a", "b", "newest of two", "d", 0, 0, 0, 0]
    assert_clean(RECORDED), assert_clean(NEWEST_ROW)


def test_a_record_whose_newest_row_is_old_gets_another_row():
    right, updated, back = (Poll.objects.create(question=each) for each in "abc")
    for poll in (right, updated, back):
        snapshot(poll, 1)
    snapshot(back, 2, votes=7)
    Poll.objects.filter(pk=updated.pk).update(votes=5)
    assert_mends(RECORDED_AGAIN, missing=[updated, back])
    assert_clean(RECORDED)


# Pages and references.

URL_PATH = values(
    "pages.url", SitePage,
    url_path=Case(
        When(parent=None, then=Value("/", TextField())),
        default=Concat(F("parent__url_path"), F("slug"), Value("/"), output_field=TextField()),
    ),
)  # fmt: skip
PAGE_KIND = Subquery(ContentType.objects.filter(app_label="zoo", model="sitepage").values("pk")[:1])


def text(path):
    return Cast(path, CharField(max_length=40))


def links(body):
    return sorted(set(re.findall(r"page:(\d+)", body)))


OF_PAGE = {"content_type": PAGE_KIND, "object_id": text("pk")}
IN_PARENT = Rule(
    name="pages.parent", every=SitePage,
    must=HaveRow(
        Reference, link={**OF_PAGE, "to_object_id": text("parent_id"), "model_path": Value("parent_id")}
    ),
    remedies={EXTRA: Delete()}, max_deletes=None,
)  # fmt: skip
IN_BODY = Rule(
    name="pages.body", every=SitePage,
    must=HaveRows(
        Reference, link={**OF_PAGE, "page": F("pk"), "model_path": Value("body")},
        rows=links, reads=["body"], key=["to_object_id"],
    ),
    remedies={EXTRA: Delete()}, max_deletes=None,
)  # fmt: skip


def test_pages_moved_in_bulk_get_the_path_of_their_new_place():
    root, _news, day, leaf = pages("root", "news", "day", "leaf")
    assert_repairs(URL_PATH, update=4)
    assert the(leaf, "url_path") == "/news/day/leaf/"
    other = SitePage.objects.create(parent=root, slug="News", url_path="/News/")
    SitePage.objects.filter(pk=day.pk).update(parent=other)
    assert_mends(URL_PATH, stale=[day], written={"update": 2})
    assert column(SitePage, "url_path") == ["/", "/news/", "/News/day/", "/News/day/leaf/", "/News/"]


def test_a_page_s_path_that_differs_by_case_or_a_space_is_found():
    root, news, leaf = pages("root", "news ", "")
    assert_repairs(URL_PATH, update=3)
    assert column(SitePage, "url_path") == ["/", "/news /", "/news //"]
    SitePage.objects.filter(pk=news.pk).update(url_path="/News /")
    SitePage.objects.filter(pk=root.pk).update(url_path="/ ")
    assert_mends(URL_PATH, stale=[root, news, leaf], written={"update": 2})


def test_each_page_has_one_reference_to_its_parent_and_roots_have_none():
    root, news, day = pages("root", "news", "day")
    kind(SitePage)
    assert_mends(IN_PARENT, missing=[news, day])
    old = Reference.objects.get(object_id=str(day.pk))
    SitePage.objects.filter(pk=day.pk).update(parent=root)
    gone = Reference.objects.get(object_id=str(news.pk))
    raw_delete(SitePage.objects.filter(pk=news.pk))
    assert_mends(IN_PARENT, missing=[day], extra=[old, gone])
    assert list(Reference.objects.values_list("object_id", "to_object_id")) == [(str(day.pk), str(root.pk))]


def test_each_page_has_a_reference_for_each_link_in_its_body():
    both, twice, _none = pages("both", "twice", "none")
    assert_repairs(IN_PARENT, insert=2)
    SitePage.objects.filter(pk=both.pk).update(body="page:7 and page:07")
    SitePage.objects.filter(pk=twice.pk).update(body="page:7, page:7")
    assert_mends(IN_BODY, missing=[both, twice], written={"insert": 3})
    SitePage.objects.filter(pk=both.pk).update(body="PAGE:7 and page:07")
    lost = Reference.objects.get(object_id=str(both.pk), to_object_id="7")
    assert_mends(IN_BODY, extra=[lost])
    assert_clean(IN_PARENT)


# Users and their addresses.

ADDRESSES = AccountEmail.objects.filter(user=OuterRef("pk"))
LOWER_CASE = values("addresses.lower", AccountEmail, email=Lower("email"))
USER_LOWER = values("users.lower", Account, email=Lower("email"))
HAS_ADDRESS = Rule(
    name="users.address", every=Account.objects.exclude(email=""),
    must=HaveRow(AccountEmail, link={"user": F("pk"), "email": F("email")}, count=AtLeast(1)),
)  # fmt: skip
ONE_PRIMARY = Rule(
    name="addresses.primary", every=AccountEmail.objects.filter(primary=True),
    must=BeUnique("user", keep=["-verified", "pk"], others={"primary": False}),
)  # fmt: skip
SOME_PRIMARY = Rule(
    name="users.primary", every=Account.objects.filter(Exists(ADDRESSES)),
    must=Satisfy(Exists(ADDRESSES.filter(primary=True))),
)  # fmt: skip
EMAIL = values(
    "users.email", Account.objects.filter(Exists(ADDRESSES.filter(primary=True))),
    email=LookedUp(AccountEmail, link={"user": F("pk"), "primary": True}, value="email", by=["pk"]),
)  # fmt: skip


def test_each_user_with_an_email_has_a_row_with_this_address():
    right, none, other, upper, space = users("a@x", "", "b@x", "C@x", "d@x ")
    address(right, "a@x"), address(right, "second@x"), address(other, "a@x")
    address(upper, "c@x"), address(space, "d@x")
    assert_mends(HAS_ADDRESS, missing=[other, upper, space])
    assert not AccountEmail.objects.filter(user=none).exists()


def test_of_several_primary_addresses_the_first_verified_one_stays():
    one, several, none = users("a@x", "b@x", "c@x")
    address(one, "a@x", primary=True), address(none, "c@x")
    early = address(several, "b@x", primary=True)
    stays, late = (address(several, f"{each}@x", primary=True, verified=True) for each in "de")
    address(several, "f@x", verified=True)
    assert_mends(ONE_PRIMARY, stale=[early, late])
    assert AccountEmail.objects.get(user=several, primary=True) == stays
    assert_finds(SOME_PRIMARY, stale=[none])


def test_rules_about_addresses_agree_when_they_are_repaired_together():
    shouting, several, _none = users("ADA@x", "b@x", "")
    address(several, "B@x", primary=True), address(several, "b@x", primary=True, verified=True)
    all_repaired(EMAIL, HAS_ADDRESS, ONE_PRIMARY, LOWER_CASE, USER_LOWER)
    assert list(shouting.addresses.values_list("email", flat=True)) == ["ada@x"]
    assert column(Account, "email") == ["ada@x", "b@x", ""]


# A help desk.

SPENT = values(
    "tickets.spent", HelpTicket, time_spent=Sum("followups__time_spent"),
    time_billed=Sum("followups__time_spent", default=timedelta(0)), followup_count=Count("followups"),
)  # fmt: skip
ESCALATED = values(
    "tickets.escalated", HelpTicket,
    last_escalation=Latest("followups", by=["-date"], value="date", filter=Q(kind="escalated")),
)  # fmt: skip
TICKET_STATUS = values(
    "tickets.status",
    HelpTicket.objects.filter(Exists(FollowUp.objects.filter(ticket=OuterRef("pk"), new_status__isnull=False))),
    status=Latest("followups", by=["-date"], value="new_status", filter=Q(new_status__isnull=False)),
)  # fmt: skip
ON_HOLD = Rule(
    name="tickets.hold", every=HelpTicket,
    must=Satisfy(Q(on_hold=False) | Q(status__in=["open", "reopened"]), values={"on_hold": False}),
)  # fmt: skip
QUEUE = values(
    "queues", HelpQueue,
    open_count=Count("tickets", filter=Q(tickets__status__in=["open", "reopened"], tickets__on_hold=False)),
    time_spent=Sum("tickets__time_spent"),
)  # fmt: skip


def test_the_time_spent_on_a_ticket_is_that_of_its_followups():
    filled, none, nulls, zero, below = tickets(5, time_spent=minutes(5))
    followups(filled, minutes(90), timedelta(microseconds=1), timedelta(days=40), None)
    followups(nulls, None, None), followups(zero, minutes(3), minutes(-3)), followups(below, minutes(-5))
    assert_mends(SPENT, stale=[filled, none, nulls, zero, below])
    total = timedelta(days=40, minutes=90, microseconds=1)
    assert column(HelpTicket, "time_spent") == [total, None, None, timedelta(0), minutes(-5)]
    assert column(HelpTicket, "time_billed") == [total, *[timedelta(0)] * 3, minutes(-5)]
    assert column(HelpTicket, "followup_count") == [4, 0, 2, 2, 1]


def test_the_sum_of_no_durations_is_zero_where_the_column_cannot_be_null():
    tickets(1, time_billed=minutes(5))
    assert_repairs(values("billed", HelpTicket, time_billed=Sum("followups__time_spent")), update=1)
    assert column(HelpTicket, "time_billed") == [timedelta(0)]


def test_the_last_escalation_is_that_of_the_newest_followup_of_its_kind():
    escalated, never, right = tickets(3)
    followups(escalated, None, None, kind="escalated"), followups(escalated, None, None, None)
    followups(never, None), followups(right, None, kind="escalated")
    HelpTicket.objects.filter(pk__in=[never.pk, right.pk]).update(last_escalation=NOON)
    assert_mends(ESCALATED, stale=[escalated, never])
    assert column(HelpTicket, "last_escalation") == [NOON + minutes(1), None, NOON]


def test_a_queue_counts_its_open_tickets_once_their_followups_have_closed_them():
    queue, _empty = HelpQueue.objects.create(open_count=3), HelpQueue.objects.create()
    closed, held, open_again = tickets(3, queue=queue)
    tickets(1)
    followups(closed, None, new_status="closed"), followups(held, None, new_status="open")
    followups(open_again, minutes(2), new_status="closed")
    FollowUp.objects.create(ticket=open_again, date=NOON + minutes(1), new_status="reopened")
    HelpTicket.objects.filter(pk__in=[closed.pk, held.pk]).update(on_hold=True)
    all_repaired(QUEUE, ON_HOLD, SPENT, TICKET_STATUS)
    assert column(HelpTicket, "status") == ["closed", "open", "reopened", "open"]
    assert column(HelpTicket, "on_hold") == [False, True, False, False]
    assert column(HelpQueue, "open_count") + column(HelpQueue, "time_spent") == [1, 0, minutes(2), None]


def test_every_rule_of_this_module_can_be_used():
    rules = [each for each in globals().values() if isinstance(each, Rule)]
    assert len(rules) > 30
    assert [fault.message for rule in rules for fault in rule.faults()] == []
