"""Every name of Django that its documentation doesn't describe and that we use: here and nowhere else, with a reason.

Django may change such a name in any release. `tests/db/test_django_compat.py` says for each what we rely on, and runs under
each version of Django that we support; ruff and that test keep the names out of all other modules.

Described is what the reference, the topics and the how-to guides speak of, and the feature flags of a database, to
whose source they refer. What an expression, a `Q` or a lookup is made of is read where it stands (`lhs`, `children`,
`connector`, `negated`), and so are `Options.pk`, `Options.concrete_model` and `Field.column`; the test pins these, too.

Nothing here costs a statement unless it says so.
"""

from __future__ import annotations

from reconcile.db.django_compat import connections, models, queries
from reconcile.db.django_compat.connections import *  # noqa: F403 - each file says what it hands out
from reconcile.db.django_compat.models import *  # noqa: F403
from reconcile.db.django_compat.queries import *  # noqa: F403

__all__: list[str] = []
__all__ += connections.__all__
__all__ += models.__all__
__all__ += queries.__all__
