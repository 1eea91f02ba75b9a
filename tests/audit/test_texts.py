"""Which columns an update names where a name holds them: told where it is proven, and unknown wherever they may be others."""

from importlib import import_module
from pathlib import Path
from textwrap import indent

import pytest

from reconcile.audit.searching import Search, search_bypasses

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]

TOLD = "low"
UNKNOWN = "uncovered"


def half(states, text):
    """How the call stands that skips what is done where the first half may have changed."""
    return states(text)["shelf.Halves"]["half_saved"]


@pytest.mark.parametrize(
    "body",
    [
        'Halves.objects.update(**{"other": 1})',
        "Halves.objects.update(**dict(other=1))",
        'name = "other"\nHalves.objects.update(**{name: 1})',
        'name: str = "other"\nHalves.objects.update(**{name: 1})',
        'name = "other" if x else "pk"\nHalves.objects.update(**{name: 1})',
        'values = {"other": 1}\nHalves.objects.update(**values)',
        'Halves.objects.bulk_update(x, ["other"])',
        'Halves.objects.bulk_update(x, fields=("other",))',
        'columns = ["other"]\nHalves.objects.bulk_update(x, columns)',
        'columns = ("other",)\nprint(columns)\nHalves.objects.bulk_update(x, columns)',
    ],
)  # fmt: skip
def test_what_is_written_in_the_function_is_told(states, body):
    assert half(states, f"def f(x):\n{indent(body, '    ')}") == TOLD
    assert half(states, f"def f(x):\n{indent(body, '    ')}".replace("other", "one")) == UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        'name = "other"\nif x:\n    name = x()\nHalves.objects.update(**{name: 1})',
        'name = "other" if x else x()\nHalves.objects.update(**{name: 1})',
        'name = x or "other"\nHalves.objects.update(**{name: 1})',
        "for name in x:\n    Halves.objects.update(**{name: 1})",
        "[Halves.objects.update(**{name: 1}) for name in x]",
        'name = "other"\n[Halves.objects.update(**{name: 1}) for name in x]',
        'name = "other"\nfor name in x:\n    Halves.objects.update(**{name: 1})',
        'name = "other"\nwith x() as name:\n    Halves.objects.update(**{name: 1})',
        'name = "other"\ntry:\n    x()\nexcept KeyError as name:\n    Halves.objects.update(**{name: 1})',
        'name = "other"\nmatch x:\n    case name:\n        Halves.objects.update(**{name: 1})',
        'name = "other"\nprint(name := x())\nHalves.objects.update(**{name: 1})',
        'name = "other"\nname += x\nHalves.objects.update(**{name: 1})',
        'name = "other"\ndef g():\n    nonlocal name\n    name = x()\ng()\nHalves.objects.update(**{name: 1})',
        'name = "other"\n(lambda name: Halves.objects.update(**{name: 1}))(x)',
        'values = {"other": 1}\nvalues["one"] = 2\nHalves.objects.update(**values)',
        'values = {"other": 1}\nvalues.update(x)\nHalves.objects.update(**values)',
        'values = {"other": 1}\nx(values)\nHalves.objects.update(**values)',
        'values = {"other": 1}\nalso = values\nalso["one"] = 2\nHalves.objects.update(**values)',
        'values = also = {"other": 1}\nalso["one"] = 2\nHalves.objects.update(**values)',
        'print(also := {"other": 1})\nvalues = also\nHalves.objects.update(**values)',
        'values = {"other": 1, **x}\nHalves.objects.update(**values)',
        "values = dict(x, other=1)\nHalves.objects.update(**values)",
        "values = dict(other=1) | x\nHalves.objects.update(**values)",
        'Halves.objects.update(**{"other": 1}, **x)',
        'columns = ["other"]\nif x:\n    columns.append("one")\nHalves.objects.bulk_update(x, columns)',
        'columns = ["other"]\nif x:\n    columns += x\nHalves.objects.bulk_update(x, columns)',
        'columns = ["other"]\nx(columns)\nHalves.objects.bulk_update(x, columns)',
        'columns = ["other", *x]\nHalves.objects.bulk_update(x, columns)',
        'columns = ["other", x()]\nHalves.objects.bulk_update(x, columns)',
        'columns = {"other"}\ncolumns.add(x)\nHalves.objects.bulk_update(x, [each for each in columns])',
    ],
)  # fmt: skip
def test_one_way_that_is_not_known_leaves_all_unknown(states, body):
    assert half(states, f"def f(x):\n{indent(body, '    ')}") == UNKNOWN


CALLED = """
class Keeper:
    def put_half(self, name):
        Halves.objects.update(**{{name: 1}})

def f(x):
    {}
"""


@pytest.mark.parametrize(
    "body",
    [
        'Keeper().put_half("other")',
        'Keeper().put_half(name="other")\n    Keeper().put_half("pk")',
        'name = "other" if x else "pk"\n    Keeper().put_half(name)',
    ],
)
def test_a_parameter_is_what_all_callers_hand_to_it(states, body):
    assert half(states, CALLED.format(body)) == TOLD
    assert half(states, CALLED.format(body + '\n    Keeper().put_half("one")')) == UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        "Keeper().put_half(x)",
        "Keeper().put_half(*x)",
        "Keeper().put_half(**x)",
        'Keeper.put_half("other", x)',
        'x.put_half("other")',
        "map(Keeper().put_half, x)",
        "kept = Keeper().put_half\n    kept(x)",
        'getattr(Keeper(), "put_half")(x)',
        'x(f"tests.Keeper.put_half")',
        "[Keeper().put_half(name) for name in x]",
        "Keeper.put_half = x",
    ],
)  # fmt: skip
def test_a_parameter_of_a_function_that_anything_else_may_run_is_unknown(states, body):
    assert half(states, CALLED.format(f'Keeper().put_half("other")\n    {body}')) == UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        "@register\ndef put_half(name):\n    Halves.objects.update(**{name: 1})\n\nput_half('other')",
        "def put_half(name):\n    name = x()\n    Halves.objects.update(**{name: 1})\n\nput_half('other')",
        "def put_half(name='one'):\n    Halves.objects.update(**{name: 1})\n\nput_half('other')\nput_half()",
        "NAME = 'other'\ndef put_half(name=NAME):\n    Halves.objects.update(**{name: 1})\n\nput_half()",
        "class A(Base):\n    def put_half(self, name):\n        Halves.objects.update(**{name: 1})\n\nA().keep('other')",
        "def put_half(*name):\n    Halves.objects.update(**{name: 1})\n\nput_half('other')",
        "def put_half(**name):\n    Halves.objects.update(**name)\n\nput_half(other=1)",
        "def put_half(name):\n    Halves.objects.update(**{name: 1})",
        "def put_half(name):\n    Halves.objects.update(**{name: 1})\n\ndef put_half(name, x):\n    put_half(name)\n\nput_half('other', 1)",
        "def put_half(name):\n    if name:\n        put_half(name)\n    Halves.objects.update(**{name: 1})\n",
        "from x import put_half as hold\ndef put_half(name):\n    Halves.objects.update(**{name: 1})\n\nput_half('other')",
    ],
)
def test_a_function_whose_callers_cannot_all_be_known_leaves_it_unknown(states, text):
    assert half(states, text) == UNKNOWN


def test_a_framework_may_call_a_method_of_its_classes_by_name():
    """`shelf.Mixed.put_half` is called with "other" alone by the project; who knows what its library does."""
    path = Path(import_module("tests.shelf.models").__file__)
    found = {each.site.function: each for each in search_bypasses({}, {}, Search(paths=[path])).bypasses}
    assert found["Page.put_name"].state == UNKNOWN
    assert found["Plain.put_text"].state == TOLD


def test_a_default_is_one_of_the_ways(states):
    text = "def put_half(name='other'):\n    Halves.objects.update(**{name: 1})\n\nput_half()\nput_half('pk')"
    assert half(states, text) == TOLD


def test_each_way_is_weighed_by_itself(states):
    """A sum is set from its part: who sets one of the two doesn't set both."""
    text = "def put_half(name):\n    Summed.objects.update(**{name: 1})\n\nput_half('total')\n"
    assert states(text) == {}
    assert states(text + "put_half('part')")["shelf.Summed"]["save"] == "uncovered"


def test_a_collection_at_the_top_of_a_module_is_as_the_running_project_has_it():
    module = import_module("tests.shelf.models")
    path = Path(module.__file__)
    found = {each.site.function: each for each in search_bypasses({}, {}, Search(paths=[path])).bypasses}
    assert found["set_others"].state == TOLD
    assert {found["set_ones"].state, found["set_changing"].state} == {UNKNOWN}


def test_a_collection_of_a_module_that_nothing_has_imported_is_unknown(states):
    assert half(states, "NAMES = ('other',)\ndef f(x):\n    Halves.objects.bulk_update(x, NAMES)") == UNKNOWN
