"""A person's words on a run: outputs/<run>/notes.json holds {"tags": [...], "note": "..."}."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..storage.files import damaged, read_json
from ..storage.words import shortened
from .folder import Run

NOTES = "notes.json"
MOST_TAGS, LONGEST_TAG, LONGEST_NOTE = 50, 60, 10_000
WRITE_AGAIN = "write tags and note again"


@dataclass(frozen=True)
class Notes:
    """A person's words on a run."""

    tags: tuple[str, ...] = ()
    note: str = ""


def read_notes(run: Run) -> Notes:
    """Empty where none were written; OSError for a file that does not hold such."""
    path = run.folder / NOTES
    if not path.exists():
        return Notes()
    found = read_json(path, WRITE_AGAIN, run.folder)
    found = found if isinstance(found, dict) else {}
    try:
        return _checked(found.get("tags"), found.get("note"))
    except ValueError as error:
        raise damaged(path, error, WRITE_AGAIN) from error


def write_notes(run: Run, tags: Iterable[str], note: str) -> Notes:
    """Keep tags, without empty and repeated ones, and a note in the run folder; ValueError for what is too long."""
    tags = [" ".join(tag.split()) for tag in tags]
    notes = _checked([*dict.fromkeys(filter(None, tags))], note.strip())
    run.save_json(NOTES, {"tags": notes.tags, "note": notes.note})
    return notes


def _checked(tags: object, note: object) -> Notes:
    if not isinstance(tags, list) or len(tags) > MOST_TAGS or not all(map(_is_tag, tags)):
        raise ValueError(
            f"tags are {shortened(tags)}: at most {MOST_TAGS} texts of up to {LONGEST_TAG} letters, without commas."
        )
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        raise ValueError(f"note is {shortened(note)}: it must be text of at most {LONGEST_NOTE:,} letters.")
    return Notes(tuple(tags), note)


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and 0 < len(tag) <= LONGEST_TAG and "," not in tag
