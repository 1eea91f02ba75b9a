"""The kinds of rule: what `must=` takes, one file or folder a kind. An effect is data; it compiles to finders."""

from reconcile.kinds.base import Effect
from reconcile.kinds.be_unique.declaration import BeUnique
from reconcile.kinds.have_receipt import HaveReceipt
from reconcile.kinds.have_row.declaration import AtLeast, AtMost, Exactly, HaveRow
from reconcile.kinds.have_rows.declaration import HaveRows
from reconcile.kinds.have_source.declaration import HaveSource
from reconcile.kinds.have_values.declaration import HaveValues
from reconcile.kinds.satisfy import Satisfy
from reconcile.kinds.uniqueness import ConstraintAdvice
from reconcile.kinds.values.content_types import ContentTypeOf, PermissionOf
from reconcile.kinds.values.from_python import FromPython, HaveKeys
from reconcile.kinds.values.latest import Latest
from reconcile.kinds.values.looked_up import LookedUp
from reconcile.kinds.values.running import Previous, RunningSum
from reconcile.kinds.values.within import Within

__all__ = [
    "AtLeast",
    "AtMost",
    "BeUnique",
    "ConstraintAdvice",
    "ContentTypeOf",
    "Effect",
    "Exactly",
    "FromPython",
    "HaveKeys",
    "HaveReceipt",
    "HaveRow",
    "HaveRows",
    "HaveSource",
    "HaveValues",
    "Latest",
    "LookedUp",
    "PermissionOf",
    "Previous",
    "RunningSum",
    "Satisfy",
    "Within",
]
