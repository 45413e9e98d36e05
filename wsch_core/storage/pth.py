"""Tensors and plain values of a file that `torch.save` has written (.pth), read strictly.

Such a file is an uncompressed zip archive: `data.pkl`, a program for a stack machine (pickle), and one member of raw
numbers for each tensor's storage. This machine knows only the instructions that dictionaries, lists and tensors need, calls
nothing, and judges every size before anything of that size is made; `torch.load` follows instructions that make gigabytes
of a few bytes.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_PROGRAM = 2**17  # bytes of data.pkl; a checkpoint's has some ten thousand
MOST_DIRECTORY = 2**20  # bytes that list the archive's members
MOST_DIMENSIONS = 16
END, END64, PLACE64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
TYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
DICTIONARY, TENSOR, PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
NAMES = {DICTIONARY, TENSOR, PARAMETER, *(f"torch {name}" for name in TYPES)}
VALUES = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "NONE": lambda: None, "NEWTRUE": lambda: True,
          "NEWFALSE": lambda: False}  # fmt: skip
CONSTANTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")


class NotPlain(Exception):
    """The file holds something other than dictionaries, lists, numbers, texts and tensors; it says what."""


class Damaged(Exception):
    """The content is not what the format promises; the reason, in a few words."""


class _Name(str):
    """A name of Python's that the program mentions, as a value of its own kind."""


def read_pth(path: Path) -> Any:
    """What a .pth file holds. Raises NotPlain, Damaged, or zipfile's and OSError's own errors."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise Damaged("its members are compressed or lie over each other")
        programs = [member for member in archive.infolist() if member.filename.count("/") == 1
                    and member.filename.endswith("/data.pkl")]  # fmt: skip
        if len(programs) != 1:
            raise Damaged("there is no data.pkl in it, or several")
        top = programs[0].filename.removesuffix("data.pkl")
        if programs[0].file_size > MOST_PROGRAM:
            raise Damaged(f"its data.pkl takes more than {MOST_PROGRAM:,} bytes")
        names = archive.namelist()
        if f"{top}byteorder" in names and archive.read(f"{top}byteorder") != b"little":
            raise Damaged("its numbers are in another byte order")
        return _Machine(_Storages(archive, top).read).run(archive.read(programs[0]))


def _check_directory(path: Path) -> None:
    """Refuse an archive of so many members that listing them takes memory and time (Damaged)."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 98))
        tail = file.read()
    place = tail.rfind(END)
    if place < 0 or len(tail) < place + 22:
        raise Damaged("it is no zip archive, which torch has written since its version 1.6")
    size = struct.unpack_from("<I", tail, place + 12)[0]
    if tail[place - 20 : place - 16] == PLACE64 and tail[place - 76 : place - 72] == END64:
        size = max(size if size != 2**32 - 1 else 0, struct.unpack_from("<Q", tail, place - 36)[0])
    if size > MOST_DIRECTORY:
        raise Damaged(f"the list of its members takes more than {MOST_DIRECTORY:,} bytes")


class _Storages:
    """The archive's members of raw numbers, each read once."""

    def __init__(self, archive: zipfile.ZipFile, top: str):
        self.archive, self.top, self.found = archive, top, {}

    def read(self, parts: Any) -> Tensor:
        """("storage", type, member, device, numbers) -> (numbers,)."""
        kinds = (str, _Name, str, str, int)
        if not isinstance(parts, tuple) or tuple(map(type, parts)) != kinds or parts[0] != "storage":
            raise Damaged("a storage is not described as torch describes one")
        name = parts[1].split()[1]
        if name not in TYPES:
            raise Damaged("a storage is of no type")
        numbers, member = (name, parts[4]), parts[2]
        if member not in self.found:
            self.found[member] = numbers, self._read(member, TYPES[name], parts[4])
        if self.found[member][0] != numbers:
            raise Damaged(f"storage {member[:40]!r} is described in two ways")
        return self.found[member][1]

    def _read(self, member: str, dtype: torch.dtype, numbers: int) -> Tensor:
        try:
            entry = self.archive.getinfo(f"{self.top}data/{member}")
        except KeyError:
            raise Damaged(f"storage {member[:40]!r} is missing") from None
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != numbers * dtype.itemsize:
            raise Damaged(
                f"storage {member[:40]!r} holds {entry.file_size:,} bytes, not the {numbers:,} numbers it says"
            )
        content = bytearray(entry.file_size)
        with self.archive.open(entry) as file:
            if file.readinto(content) != len(content) or file.read(1):
                raise Damaged(f"storage {member[:40]!r} is cut off")
        return torch.frombuffer(content, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


class _Machine:
    """Follows a program. Keys are texts or whole numbers, so that looking one up takes no time that the file chooses."""

    def __init__(self, storage: Callable[[Any], Tensor]):
        self.storage, self.memo = storage, {}
        self.stack, self.below = [], []  # below: what lay on the stack when each mark was set

    def run(self, program: bytes) -> Any:
        try:
            for code, argument, _ in pickletools.genops(program):
                if code.name == "STOP":
                    return self.stack.pop()
                self.step(code.name, argument)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise Damaged(f"its program is not whole: {error}") from error
        raise Damaged("its program has no end")

    def step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in CONSTANTS:
            stack.append(argument)
        elif code in VALUES:
            stack.append(VALUES[code]())
        elif code == "MARK":
            self.below.append(stack)
            self.stack = []
        elif code in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple([stack.pop() for _ in range(int(code[-1]))][::-1]))
        elif code == "TUPLE":
            items = self.marked()
            self.stack.append(tuple(items))
        elif code in ("APPEND", "APPENDS"):
            items = self.marked() if code == "APPENDS" else [stack.pop()]
            self.top(list).extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            self.set_items(self.marked() if code == "SETITEMS" else [stack.pop(), stack.pop()][::-1])
        elif code == "GLOBAL":
            if argument not in NAMES:
                raise NotPlain(f"it names {argument[:80]!r}")
            stack.append(_Name(argument))
        elif code == "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            stack.append(self.made(name, arguments))
        elif code == "BUILD":  # attributes of a dictionary of weights, which say nothing of them
            stack.pop(), self.top(dict)
        elif code == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif code != "PROTO":
            raise NotPlain(f"it has the instruction {code}")

    def marked(self) -> list:
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise Damaged("something is put into what cannot hold it")
        return self.stack[-1]

    def set_items(self, items: list) -> None:
        content = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise NotPlain("a key is neither a text nor a whole number")
            content[key] = value

    def made(self, name: Any, arguments: Any) -> Any:
        if type(name) is not _Name or type(arguments) is not tuple:
            raise Damaged("something is called that is no function")
        if name == DICTIONARY and not arguments:
            return {}
        if name == PARAMETER and isinstance(arguments[0], Tensor):
            return arguments[0]
        if name == TENSOR:
            return _view(*arguments[:4])
        raise Damaged(f"{name} is not used as torch uses it")


def _view(storage: Any, start: Any, shape: Any, strides: Any) -> Tensor:
    """A tensor of a storage's numbers, which must lie in it."""
    whole = all(isinstance(numbers, tuple) and len(numbers) <= MOST_DIMENSIONS
                and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
                for numbers in (shape, strides, (start,)))  # fmt: skip
    if not isinstance(storage, Tensor) or not whole or len(shape) != len(strides):
        raise Damaged("a tensor is not described as torch describes one")
    last = start + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    if last >= len(storage) and 0 not in shape:
        raise Damaged("a tensor reaches beyond its storage")
    return storage.as_strided(shape, strides, start if 0 not in shape else 0)
