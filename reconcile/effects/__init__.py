"""What a record can owe: one file per `must=`. An effect is data; it compiles to finders."""

from reconcile.effects._base import Effect, Liftable, OverRecords, OwesRows
from reconcile.effects._from_python import FromPython, HaveKeys
from reconcile.effects._lifting import Lift
from reconcile.effects.be_unique import BeUnique
from reconcile.effects.have_receipt import HaveReceipt
from reconcile.effects.have_row import AtLeast, AtMost, Exactly, HaveRow
from reconcile.effects.have_rows import HaveRows
from reconcile.effects.have_source import HaveSource
from reconcile.effects.have_values import HaveValues
from reconcile.effects.latest import Latest
from reconcile.effects.looked_up import LookedUp
from reconcile.effects.satisfy import Satisfy
from reconcile.effects.within import Within

__all__ = [
    "AtLeast",
    "AtMost",
    "BeUnique",
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
    "Lift",
    "Liftable",
    "LookedUp",
    "OverRecords",
    "OwesRows",
    "Satisfy",
    "Within",
]
