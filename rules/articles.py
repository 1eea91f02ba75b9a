"""Articles: the slug and the keywords that are derived from their text."""

from django.db.models import F

from reconcile import EXTRA, Delete, FromPython, HaveRows, HaveValues, Rule
from sample_project.shop import services, signals
from sample_project.shop.models import Article, Keyword

slug = Rule(
    every=Article,
    must=HaveValues(slug=FromPython(services.slug_of, reads=["title"])),
    owner="journal",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_article_saving],
    factory="sample_project.shop.factories:articles",
)

keywords = Rule(
    every=Article,
    must=HaveRows(
        Keyword, link={"article": F("pk")}, rows=services.keywords_of, reads=["body"], key=["word"]
    ),
    remedies={EXTRA: Delete()},
    owner="journal",
    covers=[signals.handle_article_written],
    factory="sample_project.shop.factories:articles",
    reason="Search goes by keywords. A word that the text no longer has is deleted, so a person starts the repair.",
)
