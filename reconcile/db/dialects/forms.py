"""What a database has to spell in words of its own: the forms of SQL that the ORM lacks, and how it keeps values.

A form is a template, with the names of its parts in braces. The reasons stand beside each database's own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar

from django.db.models import Field

from reconcile.db.columns import INTEGERS, TEXTS
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper

__all__ = ["Forms", "ImageColumn", "spell"]

_PLAIN = INTEGERS | TEXTS | {"BooleanField"}


def spell(template: str, **parts: SQL) -> SQL:
    """The template with SQL in the place of its names, and the parameters in the order in which their parts stand."""
    sql: list[str] = []
    params: list[Any] = []
    for literal, name, _, _ in Formatter().parse(template):
        sql.append(literal)
        if name is not None:
            sql.append(parts[name][0])
            params += parts[name][1]
    return "".join(sql), tuple(params)


@dataclass(frozen=True, kw_only=True)
class ImageColumn:
    """A column in an image. kind: its field's type, by Django's name. declared, cast: as the database declares and casts it.

    is_integral, is_textual: whether the database really has an integer or boolean, or a text, there.
    """

    attname: str
    kind: str
    declared: str
    cast: str
    is_bytes: bool
    is_integral: bool
    is_textual: bool

    @property
    def is_plain(self) -> bool:
        """Whether JSON has values of its kind, by the field's name."""
        return self.kind in _PLAIN


class Forms:
    """How one database spells what the ORM can't, and which values it keeps. A new database answers all of it in a subclass."""

    title: ClassVar[str] = ""
    """The database's name, for people."""

    # Comparisons. Each has the parts lhs and rhs.

    differs: ClassVar[str] = "{lhs} IS DISTINCT FROM {rhs}"
    """True if they differ; NULL equals NULL."""
    differs_as_text: ClassVar[str] = "{lhs} IS DISTINCT FROM {rhs}"
    """The same to the character, whatever the collation folds."""
    links_as_text: ClassVar[str] = "{lhs} = {rhs}"
    """True if a text column is a value, to the character, by the column's index."""
    same_text: ClassVar[str] = "{lhs} = {rhs}"
    """True if two texts are the same, to the character, also of two collations; by no index."""
    prefix_of: ClassVar[str] = "SUBSTR({rhs}, 1, LENGTH({lhs})) = {lhs}"
    """True if the left text is the beginning of the right one, to the character."""
    exact_text: ClassVar[str] = "{text}"
    """A text such that only equal ones are grouped; a column with a collation of its own as `exact_collated_text` says."""
    exact_collated_text: ClassVar[str] = "{text}"

    # Numbers, times, and what a column keeps.

    most_digits: ClassVar[int | None] = None
    """Digits of the largest decimal that a cast takes; None if there is a type for any."""
    keeps_decimals_as_floats: ClassVar[bool] = False
    keeps_times_as_texts: ClassVar[bool] = False
    """Days and moments are texts, of which a cast would take the year."""
    keeps_any_date: ClassVar[bool] = False
    """The columns of dates hold more than Python reads."""
    keeps_nul: ClassVar[bool] = True
    """A text may have the character NUL in it."""
    keeps_infinity: ClassVar[bool] = False
    """A float may be infinite, or no number, in a column and in the journal."""
    divides_integers_to_fractions: ClassVar[bool] = False
    counts_rows_left_alone: ClassVar[bool] = False
    """An upsert counts the rows that it has left as they were, too."""
    exact_collation: ClassVar[str] = ""
    """The collation of columns whose texts are told apart exactly; empty if the usual one does so."""
    casts_strictly: ClassVar[bool] = True
    """A text that is none of the type that it is cast to is an error."""
    strict_kinds: ClassVar[Mapping[str, str]] = {}
    """Unless it casts strictly: for each kind of type what is true of a `{text}` of the right pattern that fits."""
    refuse_cast: ClassVar[str] = ""
    """Unless it casts strictly: an expression that is an error, whose message has `no {kind}: ` and the `{text}`."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    def untyped_constant_is_text(self, kind: str) -> bool:
        """Whether a constant of this kind of column, sent as a parameter, is taken for a text."""
        return False

    def difference(self, field: Field[Any, Any]) -> str:
        """The difference lhs - rhs of two numbers of the field's type."""
        return "({lhs} - {rhs})"

    def number(self, value: Any) -> Any:
        """A number as a parameter that is compared with a difference."""
        return value

    def whole_number(self) -> str:
        """A fraction rounded to a whole number, which may be larger than the largest integer; empty if a cast to a decimal does so."""
        return ""

    def concatenated(self, parts: Sequence[str]) -> str:
        """The texts, one behind the other; NULL if one is."""
        return f"({' || '.join(parts)})"

    def prefix_range(self) -> str:
        """Beside `lhs LIKE rhs || '%'`: a range in which each such text lies, and which an index serves; empty if there is none."""
        return ""

    def among(
        self, keys: Any, *, integers: bool, prepare: Callable[[Iterable[Any]], list[Any]]
    ) -> SQL | None:
        """What the column is compared with, in one parameter for all keys; None if each key needs one of its own.

        keys: values, or their placeholder, on which the parameter is made as `one_parameter` says. prepare: makes them what the
        driver takes.
        """
        return None

    # Keys as text.

    def key_of_integer(self) -> str:
        """The integer that a `{text}` stands for; NULL if it is none, never an error."""
        raise NotImplementedError

    def key_of_uuid(self) -> str:
        """The UUID that a `{text}` stands for; NULL if it is none, never an error."""
        raise NotImplementedError

    def text_of_any_collation(self) -> str:
        """A `{text}` such that a column of another collation can be compared with it, by its index."""
        return "{text}"

    # Images: rows as JSON objects. What `value_from_element` reads is stored again as it was, to the byte.

    def element(self, column: ImageColumn) -> str:
        """A column's `{value}` as an element of an image."""
        raise NotImplementedError

    def value_from_element(self, column: ImageColumn) -> str:
        """The value of an element of an `{image}`; `{name}` is the column's name, and `{path}` its path, as parameters."""
        raise NotImplementedError

    def merged(self, number: int) -> str:
        """So many JSON objects, `{o0}`, `{o1}` …, as one."""
        raise NotImplementedError

    def image_columns(self) -> str:
        """The names of the columns of an `{image}`, as a JSON array; in its order, if it has one."""
        raise NotImplementedError

    def same_image(self) -> str:
        """Whether two images, `{one}` and `{other}`, say the same of the same columns; false if one is NULL."""
        return "COALESCE({one} = {other}, FALSE)"

    # What is asked of the database around statements.

    def analyze_all(self) -> str:
        """The statement that makes the statistics of all tables anew; empty if there is none, or none is needed."""
        return ""

    def throwaway_name(self, alias: str, token: str, test_name: str) -> str:
        """The name of a database that is made and dropped again. PostgreSQL cuts names after 63 bytes."""
        return f"{test_name[:36]}_fixtures_{token}"
