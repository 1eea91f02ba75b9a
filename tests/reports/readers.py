"""What reads each format of a check: it raises where the text is none of that format, and gives back what it has read."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
from junitparser import JUnitXml
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "check-2.json").read_text())

_VOID = {"meta", "link", "rect", "br", "hr", "img"}
_TEXT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string", "minLength": 1}},
}


def _object(required, **properties):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _list(items, **more):
    return {"type": "array", "items": items, **more}


_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_BAG = {"type": "object", "properties": {"tags": _list({"type": "string"}, uniqueItems=True)}}
_INDEX = {"type": "integer", "minimum": -1}
SARIF = _object(
    ["version", "runs"],
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs=_list(
        _object(
            ["tool"],
            tool=_object(
                ["driver"],
                driver=_object(
                    ["name"],
                    name={"type": "string"},
                    version={"type": "string"},
                    rules=_list(
                        _object(
                            ["id"],
                            id={"type": "string"},
                            shortDescription=_TEXT,
                            fullDescription=_TEXT,
                            help=_TEXT,
                            defaultConfiguration=_object([], level=_LEVEL),
                            properties=_BAG,
                        ),
                        uniqueItems=True,
                    ),
                ),
            ),
            automationDetails=_object([], id={"type": "string"}),
            invocations=_list(
                _object(
                    ["executionSuccessful"],
                    executionSuccessful={"type": "boolean"},
                    toolExecutionNotifications=_list(
                        _object(
                            ["message"],
                            level=_LEVEL,
                            message=_TEXT,
                            associatedRule=_object([], id={"type": "string"}, index=_INDEX),
                        )
                    ),
                )
            ),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            results=_list(
                _object(
                    ["message"],
                    ruleId={"type": "string"},
                    ruleIndex=_INDEX,
                    level=_LEVEL,
                    message=_TEXT,
                    locations=_list(
                        _object(
                            [],
                            physicalLocation=_object(
                                ["artifactLocation"],
                                artifactLocation=_object(
                                    [],
                                    uri={"type": "string", "pattern": r"^(file:///)?[^\s:\\]+$"},
                                    uriBaseId={"type": "string"},
                                ),
                                region=_object([], startLine={"type": "integer", "minimum": 1}),
                            ),
                        )
                    ),
                    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
                    properties=_BAG,
                )
            ),
        ),
        minItems=1,
    ),
)
"""The parts of the official schema, https://json.schemastore.org/sarif-2.1.0.json, for the objects that are written."""


class Page(HTMLParser):
    """Elements and text of a page; raises where an element is closed that isn't open."""

    def __init__(self, said):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(said)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read_text(said):
    assert "rule" in said
    return said


def read_concise(said):
    """Each line as path, line, rule, status and message."""
    return [re.fullmatch(r"(.+?):(\d+): (\S+) (\w+): (.+)", line).groups() for line in said.splitlines()]


def read_json(said):
    report = json.loads(said)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    return report


def read_junit(said):
    (suite,) = JUnitXml.fromstring(said.encode())
    assert suite.tests == len(list(suite))
    return suite


def read_github(said):
    """Each command as the runner takes it apart: its level, its properties, and its message."""
    read = []
    for line in said.splitlines():
        level, properties, message = re.fullmatch(r"::(error|warning) ([^\n]*?)::(.*)", line).groups()
        pairs = dict(each.split("=", 1) for each in properties.split(","))
        read.append((level, {name: _unescaped(value) for name, value in pairs.items()}, _unescaped(message)))
    return read


def _unescaped(text):
    codes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}
    return re.sub("|".join(codes), lambda found: codes[found[0]], text)


def read_sarif(said):
    log = json.loads(said)
    jsonschema.Draft7Validator(SARIF).validate(log)
    (run,) = log["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


def read_markdown(said):
    tokens = MarkdownIt("commonmark").enable("table").parse(said)
    assert (tokens[0].type, tokens[0].tag) == ("heading_open", "h2")
    return tokens


def read_html(said):
    assert said.startswith("<!DOCTYPE html>")
    return Page(said)


READERS = {
    "text": read_text, "concise": read_concise, "json": read_json, "junit": read_junit, "github": read_github,
    "sarif": read_sarif, "markdown": read_markdown, "html": read_html,
}  # fmt: skip
