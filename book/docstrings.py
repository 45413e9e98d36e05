"""How docstrings of the house become Markdown: a line "name: what it is" is a list item of its own."""

import re

from griffe import Class, Extension, Object

ITEM = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*){0,3}): (?=\S)")


class ShapeTables(Extension):
    """Griffe calls it for every object that it finds in the package."""

    def on_object(self, *, obj: Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: Class, **_) -> None:
        """Fields of a data class, with the comments behind them."""
        if cls.docstring and "dataclass" in cls.labels:
            told = (field.source.partition("  # ") for field in cls.attributes.values())
            items = (f"- `{code.strip()}`{': ' if said else ''}{said}" for code, _, said in told)
            cls.docstring.value += "\n\n" + "\n".join(items)


def as_markdown(text: str) -> str:
    """Paragraphs stay as they are; each "name: text" line becomes an item, with the lines that go on in lower case."""
    paragraphs = []
    for paragraph in text.replace("<", "&lt;").split("\n\n"):
        lines, in_item = [], False
        for line in paragraph.splitlines():
            starts = bool(ITEM.match(line))
            if lines and starts != in_item and (starts or line[:1].isupper()):
                lines.append("")
            in_item = starts or (in_item and not line[:1].isupper())
            lines.append(ITEM.sub(r"- `\1`: ", line) if starts else f"    {line.strip()}" if in_item else line)
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)
