"""What is read in the source of a receiver."""

import pytest

from reconcile.audit.effects import Effect, On
from reconcile.audit.handlers import Handler, read_handler
from reconcile.audit.sources import Sources
from reconcile.core.declaration import Place
from tests.zoo.models import Parcel

pytestmark = pytest.mark.once


def read(tmp_path, source, name="handle", on=On.POST_SAVE):
    file = tmp_path / "receivers.py"
    file.write_text(source)
    sources = Sources()
    module = sources.of_file(str(file))
    line = module.functions[name].lineno
    place = Place(module="receivers", file=str(file), line=line)
    return read_handler(Effect(name=name, model=Parcel, on=on, function=print, place=place), sources)


@pytest.mark.parametrize(
    ("body", "honours"),
    [
        ("def handle(instance, raw=False, **kwargs):\n    if raw:\n        return\n    act()", True),
        ("def handle(instance, **kwargs):\n    if kwargs['raw']:\n        return\n    act()", True),
        ("def handle(instance, **kw):\n    if not kw.get('raw'):\n        act()", True),
        ("def handle(instance, raw, **kwargs):\n    if instance.draft and not raw:\n        act()", True),
        ("def handle(instance, raw, **kwargs):\n    act() if not raw else None", True),
        ("def handle(instance, **kwargs):\n    if instance.value.raw:\n        act()", False),
        ("def handle(instance, **kwargs):\n    raw = instance.raw\n    if raw:\n        act()", False),
        ("def handle(instance, raw, **kwargs):\n    log(raw)", False),
        ("def handle(instance, options, **kwargs):\n    if options['raw']:\n        act()", False),
        ("def handle(instance, **kwargs):\n    act()", False),
    ],
)
def test_a_receiver_minds_raw_if_a_condition_asks_for_its_argument(tmp_path, body, honours):
    assert read(tmp_path, body).honours_raw is honours


def test_a_signal_without_raw_has_nothing_to_mind(tmp_path):
    assert read(tmp_path, "def handle(instance, **kwargs): ...", on=On.POST_DELETE).honours_raw is None


TOP = "from shop import services\nfrom shop.services import invoice as bill\ndef own(x): ...\n"


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ('"""Make it."""\n    services.invoice(instance)', "services.invoice"),
        ("if not created:\n        return\n    bill(instance)", "bill"),
        ("if created:\n        return own(instance)", "own"),
        ("services.one(instance)\n    services.two(instance)", ""),
        ("instance.customer.touch()", ""),
        ("total = 3\n    services.invoice(total)", ""),
        ("if created:\n        services.one(instance)\n    else:\n        services.two(instance)", ""),
        ("kwargs['using'].act()", ""),
        ("[services.invoice(each) for each in instance.items]", ""),
        ("pass", ""),
    ],
)
def test_a_thin_receiver_is_one_call_of_what_anybody_may_call(tmp_path, body, calls):
    found = read(tmp_path, f"{TOP}def handle(instance, created=False, **kwargs):\n    {body}\n")
    assert (found.calls, found.is_thin) == (calls, bool(calls))


def test_an_asynchronous_receiver_that_awaits_one_call_is_thin(tmp_path):
    found = read(tmp_path, f"{TOP}async def handle(instance, **kwargs):\n    await services.tell(instance)\n")
    assert found.calls == "services.tell"


def test_of_what_has_no_source_nothing_is_known(tmp_path):
    effect = Effect(name="x", model=Parcel, on=On.POST_SAVE, function=print, place=None)
    assert read_handler(effect, Sources()) == Handler()
    broken = tmp_path / "broken.py"
    broken.write_text("def handle(:")
    sources = Sources()
    assert (
        read_handler(
            Effect(
                name="x",
                model=Parcel,
                on=On.POST_SAVE,
                function=print,
                place=Place(module="broken", file=str(broken), line=1),
            ),
            sources,
        )
        == Handler()
    )
    assert "SyntaxError" in sources.unreadable[str(broken.resolve())].why
