"""The act of judging one record: what it owes, what is there, and what a repair would do about it.

Reads only, and knows no kind of rule: what it says is asked of the rule's finders, for this one key.
"""

from reconcile.judging._judge import judge
from reconcile.judging._values import UNSAID, Cell, Judgement, Made, Row, State, Subject, Verdict

__all__ = ["UNSAID", "Cell", "Judgement", "Made", "Row", "State", "Subject", "Verdict", "judge"]
