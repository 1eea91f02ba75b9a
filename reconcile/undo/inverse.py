"""The inverse statements: they restore rows from the images of the journal, each verb by its opposite.

Nothing here knows runs or chunks. Everything is done for a group of changes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Any, ClassVar

from django.db import connections
from django.db.models import F

from reconcile.core.scopes import Keys
from reconcile.core.verbs import DELETE, INSERT, UPDATE, VERBS
from reconcile.db.images import is_writable, value_from_image
from reconcile.db.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.db.text_keys import key_from_text
from reconcile.errors import ChunkConflictError, Refusal
from reconcile.remedies import Journal
from reconcile.remedies.delete import Leaving, delete_rows, referred_rows
from reconcile.remedies.references import Reference, Referring, references_to
from reconcile.undo.changes import ChangeHeader
from reconcile.undo.groups import ChangeGroup

__all__ = ["INVERSES", "Inverse", "inverse_of"]


class Inverse:
    """The remedy for changes of one kind of statement: it restores their rows, which are as the changes have left them.

    What it writes is recorded under the inverse of the changes' own verb.
    """

    restores_absent: ClassVar[bool] = False
    """The rows must not be there, so they can't be locked."""
    deletes: ClassVar[bool] = False
    """Rows that others refer to are left, and no session may commit a reference meanwhile."""

    def refuse(
        self,
        group: ChangeGroup,  # noqa: ARG002
        changes: Iterable[ChangeHeader],  # noqa: ARG002
        leaving: Leaving = lambda _: (),  # noqa: ARG002
    ) -> dict[ChangeHeader, Refusal]:
        """The changes of the group that are not taken back because of other rows, each with the reason."""
        return {}

    def revert(self, group: ChangeGroup, changes: Sequence[ChangeHeader], journal: Journal) -> int:
        """Restore the locked rows of the changes. Returns their number. Raises ChunkConflictError if the journal has another.

        Raises IntegrityError if a constraint forbids it.
        """
        raise NotImplementedError

    @staticmethod
    def _check(group: ChangeGroup, changes: Sequence[ChangeHeader], *counts: int) -> int:
        for number in counts:
            if number != len(changes):
                raise ChunkConflictError(
                    f"{group.model._meta.label}: of {len(changes)} rows {number} were taken back; another session writes them."
                )
        return len(changes)


class Deletion(Inverse):
    """Deletes inserted rows."""

    deletes = True

    def refuse(
        self, group: ChangeGroup, changes: Iterable[ChangeHeader], leaving: Leaving = lambda _: ()
    ) -> dict[ChangeHeader, Refusal]:
        """The inserted rows that other rows refer to.

        Rows that are deleted together may refer to each other, and rows of `leaving` no longer refer to anything. One statement
        for each reference, and again for each link of a chain of rows that stay.
        """
        if group.refusal is not None:
            return {}
        going, found = group.keys(changes), dict[ChangeHeader, Refusal]()

        def rows_leaving(reference: Reference) -> Sequence[AbstractSet[Any]]:
            return [*leaving(reference), *([going.keys()] if reference.model is group.model else [])]

        while going:
            kept = dict(referred_rows(group.model, Keys([*going]), using=group.using, leaving=rows_leaving))
            found |= {going.pop(key): Refusal(why) for key, why in kept.items()}
            if not kept:
                break
        return found

    def revert(self, group: ChangeGroup, changes: Sequence[ChangeHeader], journal: Journal) -> int:
        """Delete the rows. Two statements, and those of the references."""
        return sum(
            delete_rows(group.model, layer, journal, using=group.using, verb=group.inverse)
            for layer in self._layers(group, changes)
        )

    def _layers(self, group: ChangeGroup, changes: Sequence[ChangeHeader]) -> Iterator[Sequence[Any]]:
        """Yield the keys so that a row comes before the rows that it refers to, if the database checks each row at once."""
        going = group.keys(changes)
        alone = not any(each.model is group.model for each in references_to(group.model))
        if alone or connections[group.using].features.can_defer_constraint_checks:
            yield [*going]
            return
        while going:
            referred_to = self._referred_among(group, going)
            # Rows that refer to each other in a circle can't be deleted; the database refuses them.
            layer = [key for key in going if key not in referred_to] or [*going]
            yield layer
            going = {key: each for key, each in going.items() if key not in {*layer}}

    @staticmethod
    def _referred_among(group: ChangeGroup, going: Mapping[Any, ChangeHeader]) -> set[Any]:
        """The keys of rows that another row of the same set refers to."""
        references = Referring.to(group.model, group.using)
        found = set()
        for each in references.all:
            if each.model is group.model and each.binding and each.target.model is group.model:
                values = references.values(each, Keys([*going]))
                pairs = references.rows(each, values).values_list(each.column.attname, "pk")
                found |= {
                    values[value]
                    for value, key in pairs
                    if key in going and value in values and values[value] != key
                }
        return found


class Restoration(Inverse):
    """Updates rows to the values that they had."""

    def revert(self, group: ChangeGroup, changes: Sequence[ChangeHeader], journal: Journal) -> int:
        """Update the rows. Three statements."""
        fields = [field for field in group.fields if is_writable(field)]
        wanted: dict[str, Any] = {KEY: key_from_text(group.model, F("key"))}
        wanted |= {WANTED.format(field.attname): value_from_image("before", field) for field in fields}
        recorded = journal.record_before(
            group.model, fields, Keys([*group.keys(changes)]), verb=group.inverse
        )
        updated = update_from(
            group.model, fields, group.journal_rows(changes).annotate(**wanted).values_list(*wanted)
        )
        completed = journal.record_after(group.model, fields, verb=group.inverse)
        return self._check(group, changes, updated, recorded, completed)


class Reinsertion(Inverse):
    """Inserts deleted rows again."""

    restores_absent = True

    def revert(self, group: ChangeGroup, changes: Sequence[ChangeHeader], journal: Journal) -> int:
        """Insert the rows. Two statements."""
        fields = [field for field in group.fields if is_writable(field)]
        values: dict[str, Any] = {
            f"_column_{field.attname}": value_from_image("before", field) for field in fields
        }
        rows = group.journal_rows(changes).order_by("-pk").annotate(**values).values_list(*values)
        inserted = execute_select_into(group.model, fields, rows, own_keys=True)
        recorded = journal.record_reinserts(group.model, group.journal_rows(changes), verb=group.inverse)
        return self._check(group, changes, inserted, recorded)


INVERSES: Mapping[str, Inverse] = {INSERT: Deletion(), UPDATE: Restoration(), DELETE: Reinsertion()}
"""What takes a change back, by what it was for the database."""


def inverse_of(group: ChangeGroup) -> Inverse:
    """What takes the changes of the group back."""
    return INVERSES[VERBS[group.verb].statement]
