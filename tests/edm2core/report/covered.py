"""Which parts of templates were rendered: a fault in a part that no test renders is found by a user."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jinja2 import Environment, Template

from edm2core.report import html

_WRITES = re.compile(r"^(\s*)(yield |t_\d+\.(?:append|extend)\()", re.MULTILINE)  # what Jinja makes of every part of a template that writes


class Rendered:
    """The parts of templates that were rendered while this stood in Jinja's place, by template and line of its Python."""

    def __init__(self) -> None:
        self.there: dict[str, dict[int, str]] = {}
        self.seen: set[tuple[str, int]] = set()

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Note from now on what every template writes."""
        generate = Environment._generate

        def watched(environment: Environment, *arguments: Any, **named: Any) -> str:
            code, template = generate(environment, *arguments, **named), str(arguments[1])
            lines = code.splitlines()
            parts = self.there.setdefault(template, {})
            for number, line in enumerate(lines):
                if found := _WRITES.match(line):
                    parts[number + 1] = line.strip()
                    lines[number] = f"{found[1]}environment.seen.add(({template!r}, {number + 1})); {line.strip()}"
            return "\n".join(lines)

        patch.setattr(Environment, "_generate", watched)
        patch.setattr(Environment, "seen", self.seen, raising=False)
        html.environment.cache_clear()

    def missed(self, environment: Environment) -> Iterator[str]:
        """Every part of a template that was never rendered: where it stands, and what Jinja made of it."""
        for name, parts in self.there.items():
            template: Template = environment.get_template(name)
            for line, code in parts.items():
                if (name, line) not in self.seen:
                    yield f"{name}, line {template.get_corresponding_lineno(line)}: {code[:160]}"
