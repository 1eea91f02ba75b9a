"""Records that the database can't evaluate: an integer too large on the way to a value, a text that is no number, a division by 0.

One such record fails the statement for its whole window. The window is halved until the record stands alone; it is
counted and named, and the others are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import Error
from django.db.models import Model

from reconcile.core.drift import EXTRA
from reconcile.core.finder import Finder
from reconcile.core.scopes import Keys, Scope, Window
from reconcile.db.dialects import Failure, dialect_of
from reconcile.errors import EvaluationError, UnevaluableRecordError, first_line

__all__ = ["MOST", "Unevaluable", "concerns_values", "describe_failure"]

MOST = 20
"""Records of a rule that are told apart. With more, the rule can't be evaluated."""

T = TypeVar("T")


def concerns_values(error: Error | UnevaluableRecordError, using: str) -> bool:
    """Whether a statement has failed for the values of single records, as far as the error tells."""
    return isinstance(error, UnevaluableRecordError) or dialect_of(using).failure(error) is Failure.RECORD


def describe_failure(error: Error | UnevaluableRecordError, using: str) -> str:
    """What the database, or the package, says of the record, as the end of a sentence."""
    said = dialect_of(using).message(error) if isinstance(error, Error) else first_line(error)
    return said.rstrip(".")


@dataclass(kw_only=True)
class Unevaluable:
    """The records of one rule that can't be evaluated, as the finder of one kind of drift meets them.

    model: the model of the records, whose keys a window is a range of. reasons: the message for each key; the finders of a rule
    may share it, so that a record counts once. alone: what tells that a record fails by itself, if `finder` looks at others beside it.
    """

    finder: Finder
    model: type[Model]
    reasons: dict[Any, str] = field(default_factory=dict)
    alone: Finder | None = None

    def read_around(self, window: Scope, read: Callable[[Any], T]) -> list[T]:
        """Read the window, or the keys. If the values of single records make that fail, read the windows between them, and keep the reasons.

        One statement; if it fails, three for each halving. Raises the database's error if it is not about values, if more than MOST
        records fail, or if all of several do: then what is read beside them may be wrong.
        """
        before = len(self.reasons)
        try:
            return [self._read(window, read)]
        except (Error, UnevaluableRecordError) as error:
            if not self._is_of_values(error, window):
                raise
            answers = self._read_halves(window, read, error)
            if not answers and len(self.reasons) - before > 1:
                raise
            return answers

    def _fails_alone(self, finder: Finder, key: Any) -> bool:
        try:
            with dialect_of(finder.using).protect_transaction():
                finder.keys(Keys([key]))
        except (Error, UnevaluableRecordError):
            return True
        return False

    def _beside(self, window: Scope, key: Any, error: Error | UnevaluableRecordError) -> list[Window]:
        """The parts of the window without the key, where rows may lie that no record owes. Raises the error if they can't be told."""
        if isinstance(window, Keys):
            return []
        if self.finder.drift is not EXTRA or self.finder.own_key_range:
            return []
        if not isinstance(key, int):
            raise error
        return [Window(window.after, key - 1), Window(key, window.upto)]

    def _keep_reason(self, key: Any, error: Error | UnevaluableRecordError) -> None:
        if self.alone is not None and not self._fails_alone(self.alone, key):
            raise error
        if key not in self.reasons and len(self.reasons) == MOST:
            first, why = next(iter(self.reasons.items()))
            said = f"More than {MOST} records can't be evaluated. The first of them, {first}: {why}."
            raise EvaluationError(said) from error
        self.reasons[key] = describe_failure(error, self.finder.using)

    def _read(self, window: Scope, read: Callable[[Any], T]) -> T:
        with dialect_of(self.finder.using).protect_transaction():
            return read(window)

    def _is_of_values(self, error: Error | UnevaluableRecordError, scope: Scope) -> bool:
        if not concerns_values(error, self.finder.using):
            return False
        finder = self.finder
        if isinstance(scope, Keys):
            return not finder.in_groups
        if finder.own_key_range or finder.drift is not EXTRA:
            return not finder.in_groups
        # Of rows that no record may owe, a record's key doesn't tell which one fails; of those that a function gives it does.
        return isinstance(error, UnevaluableRecordError)

    def _halves(self, scope: Scope) -> Sequence[Scope] | Any:
        """The two halves of a scope that has failed, or the key of the one record in it; empty if there is none."""
        if isinstance(scope, Keys):
            middle = len(scope.values) // 2
            return (Keys(scope.values[:middle]), Keys(scope.values[middle:])) if middle else scope.values[0]
        model = self.finder.model if self.finder.own_key_range else self.model
        keys = model._base_manager.using(self.finder.using).filter(scope.on("pk")).order_by("pk")
        number = keys.count()
        half = number // 2
        if not half:
            return keys.values_list("pk", flat=True).get() if number else ()
        middle = keys.values_list("pk", flat=True)[half - 1 : half].get()
        return Window(scope.after, middle), Window(middle, scope.upto)

    def _read_halves(
        self, window: Scope, read: Callable[[Any], T], error: Error | UnevaluableRecordError
    ) -> list[T]:
        """What is read of the two halves of a window that has failed; nothing for a record that stands alone."""
        halves = self._halves(window)
        if halves == ():
            raise error
        if not isinstance(halves, tuple):
            self._keep_reason(halves, error)
            return [self._read(part, read) for part in self._beside(window, halves, error)]
        answers = []
        for half in halves:
            try:
                answers.append(self._read(half, read))
            except (Error, UnevaluableRecordError) as failed:
                if not self._is_of_values(failed, half):
                    raise
                answers += self._read_halves(half, read, failed)
        return answers
