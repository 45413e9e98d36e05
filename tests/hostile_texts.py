"""Broken definitions, settings, histories and metrics, and names that are no names."""

import json
import os

from hostile import Variant, flipped, truncated

MARKUP = "<img src=x onerror=alert(1)>"
DEEP = 100_000
FILES = {
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "Latin-1": lambda path: path.write_bytes(path.read_bytes() + b"# caf\xe9"),
    "null bytes": lambda path: path.write_bytes(path.read_bytes() + bytes(100)),
    "10 GB of nothing": lambda path: os.truncate(path, 10 * 2**30),
}


def swapped(old, new):
    def change(path):
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new, 1))

    return change


def field(name, value):
    """frames = 10 with another value, or a field more at the top."""

    def change(path):
        lines = path.read_text().splitlines()
        kept = [line for line in lines if not line.startswith(f"{name} =")]
        path.write_text(f"{name} = {value}\n" + "\n".join(kept))

    return change


DEFINITION = {name: change for name, change in FILES.items() if name not in ("a folder", "a pipe")} | {
    "no TOML": lambda path: path.write_text("{}"),
    "a name twice": lambda path: path.write_text("frames = 1\n" + path.read_text()),
    "nested deeply": field("about", "[" * DEEP + "]" * DEEP),
    "nested tables": lambda path: path.write_text("[" + ".".join("a" * DEEP) + "]\n"),
    "a number of 10,000 digits": field("frames", "9" * 10_000),
    "a hexadecimal number of 10,000 digits": field("frames", "0x" + "f" * 10_000),
    "a date": field("frames", "2026-01-01"),
    "NaN": field("frames", "nan"),
    "infinity": field("feature_size", "inf"),
    "frames below zero": field("frames", "-1"),
    "frames without end": field("frames", "1000000000000"),
    "size without end": field("feature_size", "9223372036854775807"),
    "classes without end": field("classes", "1000000000000"),
    "a million classes": field("classes", json.dumps([str(n) for n in range(10**6)])),
    "a class of a megabyte twice": field("classes", json.dumps(["x" * 10**6] * 2)),
    "classes are lists": field("classes", "[[1], [2]]"),
    "title is a table": field("title", "{a = 1}"),
    "an unknown field with markup": field('"<img src=x>"', "1"),
    "an unknown field of a megabyte": field("x" * 10**6, "1"),
    "folder up": field("folder", '"../elsewhere"'),
    "folder far up": field("folder", '"a/../../.."'),
    "folder absolute": field("folder", '"/etc"'),
    "folder empty": field("folder", '""'),
    "folder of a megabyte": field("folder", json.dumps("x" * 10**6)),
    "folder is a list": field("folder", '["a"]'),
    "file up": swapped('"train.h5"', '"../../secret.h5"'),
    "file absolute": swapped('"train.h5"', '"/etc/passwd"'),
    "file with a null byte": swapped('"train.h5"', '"train\\u0000.h5"'),
    "file with an escape sequence": swapped('"train.h5"', '"\\u001b[2J.h5"'),
    "file name of a megabyte": swapped('"train.h5"', json.dumps("x" * 10**6)),
    "file is a table": swapped('["train.h5"]', "{a = 1}"),
    "file is a number": swapped('["train.h5"]', "[1]"),
    "labels up": swapped('"train.mat"', '"../x.mat"'),
    "drops columns below zero": swapped("[train]", "[train]\nlabels_drop_columns = [-1]"),
    "drops columns without end": swapped("[train]", "[train]\nlabels_drop_columns = " + "9" * 30),
    "key is a number": swapped("[train]", "[train]\nfeatures_key = 1"),
    "same as itself": swapped('features = ["query.h5"]\nlabels = ["query.mat"]', 'same_as = "query"'),
    "a split is a number": swapped('[query]\nfeatures = ["query.h5"]\nlabels = ["query.mat"]', ""),
    "builder runs": field("builder", json.dumps("__import__('os').system('true')")),
    "unknown setting": lambda path: path.write_text(path.read_text() + "\n[settings]\nbitz = 1\n"),
    "settings without end": lambda path: path.write_text(path.read_text() + "\n[settings]\nepochs = 999999999999\n"),
    "setting is NaN": lambda path: path.write_text(path.read_text() + "\n[settings]\nlearning_rate = nan\n"),
    "setting is huge": lambda path: path.write_text(path.read_text() + f"\n[settings]\nlearning_rate = {10**400}\n"),
    "cycle without end": lambda path: path.write_text(
        path.read_text() + f"\n[settings]\ncycle = {json.dumps('contrast,' * 10**5 + 'contrast')}\n"
    ),
    "published with markup in its number": field("published", json.dumps([MARKUP])),
    "published bits are text": field("published", f'[{{method = "m", bits = "{MARKUP}", map = [], source = "s"}}]'),
    "published method is a list": field("published", '[{method = [1], bits = 64, map = [], source = "s"}]'),
}
DEFINITION_HARMLESS = {
    "title with markup": field("title", json.dumps(MARKUP)),
    "classes with markup": field("classes", json.dumps([MARKUP, "$x_1$", "\\frac"])),
    "a link": lambda path: (path.rename(path.with_name("kept")), path.symlink_to(path.with_name("kept"))),
}


def json_of(change):
    def write(path):
        content = json.loads(path.read_text())
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed))

    return write


def setting(name, value):
    return json_of(lambda content: content["settings"].update({name: value}))


def of_data(name, value):
    return json_of(lambda content: content["dataset"].update({name: value}))


JSON = FILES | {
    "empty": lambda path: path.write_text(""),
    "nested deeply": lambda path: path.write_text("[" * DEEP + "]" * DEEP),
    "dictionaries nested deeply": lambda path: path.write_text('{"a":' * DEEP + "1" + "}" * DEEP),
    "a list": lambda path: path.write_text("[1, 2]"),
    "a number": lambda path: path.write_text("5"),
    "nothing": lambda path: path.write_text("null"),
    "a number of 10,000 digits": lambda path: path.write_text("9" * 10_000),
    "Python": lambda path: path.write_text("__import__('os').system('true')"),
    "a link that leaves the folder": lambda path: (
        path.rename(path.parents[1] / "kept"), path.symlink_to(path.parents[1] / "kept"),
    ),
}  # fmt: skip
SETTINGS = JSON | {
    "a name twice": swapped('"settings": {', '"settings": {"bits": 8, '),
    "settings are a list": json_of(lambda content: content.update(settings=[1])),
    "no settings": json_of(lambda content: content.pop("settings") and None),
    "no data set": json_of(lambda content: content.pop("dataset") and None),
    "unknown setting": setting(MARKUP, 1),
    "unknown setting of a megabyte": setting("x" * 10**6, 1),
    "bits NaN": setting("bits", float("nan")),
    "learning rate infinite": setting("learning_rate", float("inf")),
    "learning rate of 400 digits": setting("learning_rate", 10**400),
    "bits true": setting("bits", True),
    "bits a list": setting("bits", [[[]]]),
    "bits without end": setting("bits", 10**30),
    "epochs without end": setting("epochs", 10**15),
    "cycle a program": setting("cycle", "__import__('os')"),
    "cycle of a megabyte": setting("cycle", "x" * 10**6),
    "precision unknown": json_of(lambda content: content.update(precision="../x")),
    "feature size text": of_data("feature_size", "12"),
    "feature size below zero": of_data("feature_size", -1),
    "feature size without end": of_data("feature_size", 10**15),
}
SETTINGS_HARMLESS = {
    "data set with markup": setting("dataset", MARKUP),
    "device with markup": json_of(lambda content: content.update(device=MARKUP)),
    "a width of petabytes": setting("encoder_width", 2**40),
}


def line(change, number=2):
    """One line of the history with its entry changed."""

    def write(path):
        lines = path.read_text().splitlines()
        entry = json.loads(lines[number])
        changed = change(entry)
        lines[number] = json.dumps(entry if changed is None else changed)
        path.write_text("\n".join(lines) + "\n")

    return write


HISTORY = {name: change for name, change in JSON.items() if name not in ("empty", "nothing", "a list", "a number")} | {
    "a line is a list": line(lambda entry: [1]),
    "a line is a number": line(lambda entry: 5),
    "a line is nothing": line(lambda entry: {}),
    "a pass twice": line(lambda entry: entry.update({"pass": 0})),
    "a pass is text": line(lambda entry: entry.update({"pass": MARKUP})),
    "a pass without end": line(lambda entry: entry.update({"pass": 10**30})),
    "stage unknown": line(lambda entry: entry.update(stage=MARKUP)),
    "tasks are text": line(lambda entry: entry.update(tasks="centers")),
    "tasks are lists": line(lambda entry: entry.update(tasks=[["centers"]])),
    "losses are a list": line(lambda entry: entry.update(losses=[1])),
    "a loss is text": line(lambda entry: entry.update(losses={"total": MARKUP})),
    "a loss is NaN": line(lambda entry: entry.update(losses={"total": float("nan")})),
    "a loss of 400 digits": line(lambda entry: entry.update(losses={"total": 10**400})),
    "seconds are missing": line(lambda entry: entry.pop("seconds") and None),
    "seconds are infinite": line(lambda entry: entry.update(seconds=float("inf"))),
    "nested deeply in a line": lambda path: path.write_text(path.read_text() + "[" * DEEP + "]" * DEEP + "\n"),
}


def ended(write):
    """Without its end a line does not count: a killed run leaves such."""
    return lambda path: (write(path), path.write_bytes(path.read_bytes() + b"\n"))


HISTORY |= {name: ended(HISTORY[name]) for name in HISTORY.keys() & JSON.keys() - FILES.keys()}
HISTORY |= {name: ended(HISTORY[name]) for name in ("null bytes", "Latin-1", "binary")}


def ours(**changed):
    return json_of(lambda content: content["methods"]["WSCH"].update(changed))


METRICS = JSON | {
    "a name twice": swapped('"methods": {', '"methods": {"LSH": 1, "LSH": 2, '),
    "no methods": json_of(lambda content: content.update(methods={})),
    "methods are a list": json_of(lambda content: content.update(methods=[1])),
    "a method is a number": json_of(lambda content: content["methods"].update({MARKUP: 1})),
    "no method of ours": json_of(lambda content: content.update(methods={"x": content["methods"]["WSCH"]})),
    "ks are text": ours(ks="abc"),
    "ks below zero": ours(ks=[-1]),
    "no ks": ours(ks=[]),
    "values are texts": ours(expected=[MARKUP] * 6),
    "values are NaN": ours(expected=[float("nan")] * 6),
    "values above one": ours(expected=[2.0] * 6),
    "values of 400 digits": ours(expected=[10**400] * 6),
    "too few values": ours(expected=[0.5]),
    "no code health": json_of(lambda content: content.pop("code_health") and None),
    "code health of no videos": json_of(lambda content: content["code_health"].update(videos=0)),
    "code health of text": json_of(lambda content: content["code_health"].update(distinct=MARKUP)),
    "no real values": json_of(lambda content: content.pop("real_valued") and None),
    "real values are texts": json_of(lambda content: content.update(real_valued=["a"] * 6)),
}
NAMES = ["", ".", "..", "../r", "a/../../b", "/etc/passwd", "/", "~", "~root", "a\0b", "a\nb", "a/b", "a\\b",
         "-rf", ".hidden", "x" * 101, "x" * 10**6, "é" * 100 + "\u0301", "猫" * 100, "con:", "a b", MARKUP,
         "$(touch executed)", "\ud800", "%00", 5, None, ["r"], {"a": 1}, True]  # fmt: skip


def named(name, use):
    return lambda path: path.write_text(json.dumps([name, use]))


def variants():
    sets = {"definition": DEFINITION, "settings.json": SETTINGS, "history.jsonl": HISTORY, "metrics.json": METRICS}
    made = [Variant(kind, name, change) for kind, changes in sets.items() for name, change in changes.items()]
    made += [Variant("definition", name, change, False) for name, change in DEFINITION_HARMLESS.items()]
    made += [Variant("settings.json", name, change, False) for name, change in SETTINGS_HARMLESS.items()]
    for seed, kind in enumerate(sets, start=50):
        made += truncated(kind, 12) + flipped(kind, 24, seed)
    uses = ("make", "load", "data")
    return made + [
        Variant("name", f"{use} {number}: {str(name)[:20]!r}", named(name, use), bool(name) or use != "load")
        for number, name in enumerate(NAMES)
        for use in uses
    ]
