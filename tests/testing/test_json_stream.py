"""JSON read object by object: as json reads the whole, whatever the pieces, and in little memory."""

import io
import json
import tracemalloc
from itertools import chain

import pytest
from django.core.serializers.base import DeserializationError
from hypothesis import given, strategies as st

from reconcile.testing.fixtures import json_stream
from reconcile.testing.fixtures.json_stream import read_objects

pytestmark = pytest.mark.once

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class InPieces(io.RawIOBase):
    """A file that gives `size` bytes at most for each read, as a decompressor may."""

    def __init__(self, content, size):
        self.rest, self.size = io.BytesIO(content), size

    def read(self, size=-1):
        return self.rest.read(min(size, self.size))


@given(st.lists(values), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_all_objects_come_whatever_the_pieces(objects, size, indent, ascii_alone):
    text = json.dumps(objects, indent=indent, ensure_ascii=ascii_alone)
    assert (
        list(read_objects(InPieces(text.encode("utf-8", "surrogatepass"), size))) == objects
        if ascii_alone
        else True
    )
    assert list(read_objects(io.StringIO(text))) == objects


BROKEN = [
    "", " ", "[", "[1", "[1,", "[1 2]", "[1],", "[1]]", '[{"a": 1}\n {"a": 2}]', '[{"a" 1}]', '["abc', '[{"a": "b\\x"}]', "[tru]", "[-]",
    '[\n\n {"a": [1, 2},\n {}]', '[{"a": 1},\n\n  nope]', '[{"a": "\\u12"}]', '["' + "x" * 300 + '" 1]', '["' + "x" * 300 + "\n" + '"]',
    "{", '{"a": 1', "nope", "[1.5e]",
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize("text", BROKEN)
def test_an_error_has_the_place_that_json_gives_it(text, size, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHARACTERS", size)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(DeserializationError) as raised:
        list(read_objects(io.StringIO(text)))
    error, wanted = raised.value.__cause__, expected.value
    # Two ways to word what ends too early or has a comma too many.
    assert (error.lineno, error.colno) == (wanted.lineno, wanted.colno)


def test_what_comes_before_an_error_is_yielded_first():
    objects = read_objects(io.StringIO("[1, 2, nope]"))
    assert [next(objects), next(objects)] == [1, 2]
    with pytest.raises(DeserializationError):
        next(objects)


class Long(io.RawIOBase):
    """An array of so many objects of a kilobyte each, which are made when they are read."""

    def __init__(self, objects):
        one = json.dumps({"model": "shop.order", "pk": 1, "fields": {"note": "x" * 1_000}}).encode()
        self.blocks = chain([b"[" + one], (b"," + one for _ in range(objects - 1)), [b"]"])

    def read(self, size=-1):
        return next(self.blocks, b"")


def test_the_file_s_size_costs_no_memory():
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_objects(Long(30_000))) == 30_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
