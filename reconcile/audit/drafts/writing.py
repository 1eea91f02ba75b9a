"""The drafts as modules of rules, which read as a person would have written them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from reconcile.audit.drafts.candidates import plural_of
from reconcile.audit.drafts.drafting import Draft, covers_in_code, file_name

__all__ = ["as_modules", "names_of"]

WIDTH = 110


def as_modules(drafts: Sequence[Draft], bypasses: Mapping[str, int]) -> dict[str, str]:
    """The text of each module by its name. bypasses: by the name of an effect, how many calls in the source skip it."""
    by_file: dict[str, list[Draft]] = defaultdict(list)
    for each in drafts:
        by_file[file_name(each.model)].append(each)
    return {name: _module(found, bypasses) for name, found in by_file.items()}


def _module(drafts: Sequence[Draft], bypasses: Mapping[str, int]) -> str:
    title = plural_of(drafts[0].model)
    imports = {line for each in drafts for line in (*each.imports, *covers_in_code(each)[1])}
    imports |= {f"from reconcile import {each.reports}, Report" for each in drafts if each.reports}
    names = names_of(drafts)
    rules = "\n\n".join(_rule(each, name, bypasses) for each, name in zip(drafts, names, strict=True))
    return f'"""{title[:1].upper()}{title[1:]}: drafts. Read each, mend it or take it out."""\n\n{_imports(imports)}\n\n{rules}\n'


def names_of(drafts: Sequence[Draft]) -> list[str]:
    """The variables of the drafts of one module, each another one."""
    found: list[str] = []
    for each in drafts:
        name = each.name if each.name not in found else f"{each.name}_{len(found)}"
        found.append(name)
    return found


def _rule(draft: Draft, name: str, bypasses: Mapping[str, int]) -> str:
    comments = [f"# {line}" for line in draft.evidence]
    if draft.unsure:
        comments.append(
            f"# ??? {draft.unsure}{' It only reports, until you take out remedies=.' if draft.reports else ''}"
        )
    covers, _ = covers_in_code(draft)
    skipped = sum(bypasses.get(each, 0) for each in {one.effect.name for one in draft.covers})
    if skipped:
        comments.append(
            f"# {skipped:,} {'call skips' if skipped == 1 else 'calls skip'} what it covers: reconcile signals bypasses"
        )
    held = [
        f"every={draft.every}",
        f"must={draft.must}",
        *([f"remedies={{{draft.reports}: Report()}}"] if draft.reports else []),
        *([f"covers=[{', '.join(covers)}]"] if covers else []),
    ]
    line = f"{name} = Rule({', '.join(held)})"
    if len(line) > WIDTH or len(held) > 2:  # noqa: PLR2004
        line = "\n".join([f"{name} = Rule(", *(f"    {each}," for each in held), ")"])
    return "\n".join([*_wrapped(comments), line])


def _wrapped(comments: Iterable[str]) -> list[str]:
    lines = []
    for each in comments:
        rest = each
        while len(rest) > WIDTH and " " in rest[2:WIDTH]:
            cut = rest.rindex(" ", 2, WIDTH)
            lines.append(rest[:cut])
            rest = f"# {rest[cut + 1 :]}"
        lines.append(rest)
    return lines


def _imports(lines: Iterable[str]) -> str:
    """The imports, those of one module in one line, Django's before the package's and the project's own."""
    by_module: dict[str, set[str]] = defaultdict(set)
    plain = set()
    for line in lines:
        match = re.fullmatch(r"from (\S+) import (.+)", line)
        if match:
            by_module[match[1]] |= {each.strip() for each in match[2].split(",")}
        else:
            plain.add(line)
    ordered = sorted(by_module, key=lambda each: (not each.startswith("django."), each))
    groups: dict[int, list[str]] = defaultdict(list)
    for module in ordered:
        groups[0 if module.startswith("django.") else 1].append(
            _import_line(module, sorted(by_module[module]))
        )
    return "\n\n".join("\n".join(groups[number]) for number in sorted(groups)) + (
        "\n" + "\n".join(sorted(plain)) if plain else ""
    )


def _import_line(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    return (
        line
        if len(line) <= WIDTH
        else "\n".join([f"from {module} import (", *(f"    {each}," for each in names), ")"])
    )
