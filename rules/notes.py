"""Notes: remarks on things that are still there."""

from reconcile import EXTRA, Delete, HaveSource, Rule
from sample_project.shop import signals
from sample_project.shop.models import Note

target = Rule(
    every=Note,
    must=HaveSource("target"),
    remedies={EXTRA: Delete()},
    owner="support",
    covers=[signals.handle_order_deleted],
)
