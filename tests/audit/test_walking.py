"""Walking through a parsed source gives what `ast` gives, but for signs such as `Load` and `Add`."""

import ast
import gc
from itertools import islice
from pathlib import Path

import pytest

from reconcile.audit.sources import without_collecting
from reconcile.audit.walking import blocks, children, walk

pytestmark = pytest.mark.once

SIGNS = (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)
SOURCES = [
    *sorted(Path(__file__).parent.parent.rglob("*.py"))[:40],
    *islice(sorted(Path(ast.__file__).parent.glob("*.py")), 40),
]
EVERYTHING = """
def every(a: int, /, b=1, *c, d, e=2, **f) -> str:
    global g
    match a:
        case {"x": [1, *rest], **others} if (y := b): return {**f, "k": y}
        case str(z) | [z, _]: del z
    with open(a) as h, b: pass
    try: raise ValueError from None
    except* OSError as i: nonlocal_ = f"{i!r:>{b}}"
    else: a.b[1:2:3] = lambda *_, k=1, **__: (yield)
    finally: assert not (a and b or c), -a @ b < c != d
    return [x async for x in y if x], {*c}, {k: v for k, v in f}, (1 if a else ...)
class Some(every, metaclass=type): field: int = 1
async def other():
    import a.b as c
    from . import d
    while True: break
    for i in d: continue
    async with a as b: await b
"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_gives_the_nodes_of_ast_in_their_order(path):
    same_nodes(ast.parse(path.read_bytes()))


def test_it_gives_the_nodes_of_every_kind_of_statement():
    same_nodes(ast.parse(EVERYTHING.replace("except*", "except")))
    same_nodes(ast.parse(EVERYTHING))


def same_nodes(tree):
    assert walk(tree) == [each for each in ast.walk(tree) if not isinstance(each, SIGNS)]
    for node in ast.walk(tree):
        inner = [each for each in ast.iter_child_nodes(node) if not isinstance(each, SIGNS)]
        assert children(node) == inner
        held = (ast.stmt, ast.ExceptHandler, ast.match_case)
        if not isinstance(node, (ast.expr, ast.comprehension, ast.FormattedValue)):
            assert {*blocks(node)} == {each for each in inner if isinstance(each, held)}


def test_the_collector_is_as_it_was_and_what_is_left_is_collected_by_it():
    class Cycle:
        def __init__(self):
            self.self = self

        def __del__(self):
            gone.append(1)

    gone = []
    with without_collecting():
        assert not gc.isenabled()
        Cycle()
    assert (gc.isenabled(), gc.get_freeze_count(), gone) == (True, 0, [])
    gc.collect()
    assert gone == [1]
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
