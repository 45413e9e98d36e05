"""Broken published checkpoints (.pth) and safetensors."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import torch
from hostile import Variant, flipped, truncated
from safetensors.torch import load_file, save_file


class Runs:
    """Runs a command where it is unpickled: it makes a file beside the one it lies in."""

    def __init__(self, path: Path, function=os.system):
        self.path, self.function = path, function

    def __reduce__(self):
        text = f"open({str(self.path.with_name('executed'))!r}, 'w')"
        return self.function, (f"touch {self.path.with_name('executed')}" if self.function is os.system else text,)


def stored(path):
    return torch.load(path, weights_only=True)


def changed(change):
    """The checkpoint with its content changed, saved as torch does."""

    def write(path):
        content = stored(path)
        made = change(content)
        torch.save(content if made is None else made, path)

    return write


def weight(value, name="En.norm1.bias"):
    return changed(lambda content: content["berthash"].update({name: value}))


def opcodes(text):
    """A pickle written by hand."""
    return lambda path: path.write_bytes(text.replace(b"SENTINEL", str(path.with_name("executed")).encode()))


def in_archive(make, name="archive/data.pkl", compress=zipfile.ZIP_STORED):
    """torch's zip layout around a pickle."""

    def write(path):
        content = make(path)
        with zipfile.ZipFile(path, "w", compress) as archive:
            archive.writestr(name, content)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")

    return write


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def deep_pickle(levels):
    return b"\x80\x02" + b"(" * 1 + b"]" * levels + b"a" * (levels - 1) + b"l."


def in_tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Runs(path), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def changed_program(change):
    """The checkpoint with its pickle changed."""

    def write(path):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                if name.endswith("data.pkl"):
                    made = change(content)
                    assert made != content, "nothing was changed"
                    content = made
                archive.writestr(name, content)

    return write


def encoded(times):
    """A text encoded, its bytes decoded to a text of more letters, and so on."""
    text = "\xff" * 1000
    start = b"\x80\x02c_codecs\nencode\nq\x01X" + struct.pack("<I", len(text.encode())) + text.encode()
    return start + (b"q\x02h\x01h\x02X\x06\0\0\0utf-16\x86R") * times + b"."


def many_dictionaries(count):
    """Each made of one and the same long list."""
    pairs = b"](" + b"".join(b"J" + struct.pack("<i", n) + b"N\x86" for n in range(7_000)) + b"eq\x01"
    return b"\x80\x02" + pairs + b"ccollections\nOrderedDict\nq\x02" + b"(" + b"h\x02h\x01\x85R" * (count // 4) + b"t."


def many_members(path):
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(300_000):
            archive.writestr(zipfile.ZipInfo(f"archive/data/x{number}"), b"")


def overlapping(path):
    """Every storage's entry names the place of the largest one."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        entries = [member.header_offset for member in archive.infolist() if "/data/" in member.filename]
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    tail = content[directory:]
    for offset in entries:
        tail = tail.replace(
            struct.pack("<I", offset) + b"published/data/",
            struct.pack("<I", largest.header_offset) + b"published/data/",
        )
    assert tail != content[directory:], "nothing was changed"
    path.write_bytes(content[:directory] + tail)


def itself(content):
    content["berthash"]["self"] = content
    return content


def recompressed(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + bytes(2**26) * (name.endswith("data/0")))


def declares(shape, stride, numbers=2):
    """A tensor that says it is larger than what it is stored in."""

    def write(path):
        content = stored(path)
        content["berthash"]["En.norm1.bias"] = torch.zeros(numbers).as_strided((1, 1), (0, 0)).expand(*shape)
        torch.save(content, path)

    return write


PLACES, ONE = torch.tensor([[0], [0]]), torch.tensor([1.0])
SPARSE = torch.sparse_coo_tensor(PLACES, ONE, (10**6, 10**6), check_invariants=True)
PTH = {
    "runs a command": lambda path: torch.save({"berthash": Runs(path)}, path),
    "runs Python": lambda path: torch.save({"berthash": Runs(path, exec)}, path),
    "runs a command, plain pickle": lambda path: path.write_bytes(pickle.dumps(Runs(path), protocol=2)),
    "runs Python, newest pickle": lambda path: path.write_bytes(pickle.dumps(Runs(path, eval), protocol=5)),
    "runs a command, oldest torch format": lambda path: torch.save(
        Runs(path), path, _use_new_zipfile_serialization=False
    ),
    "runs a command, tar": in_tar,
    "opcode GLOBAL and REDUCE": opcodes(b"cos\nsystem\n(S'touch SENTINEL'\ntR."),
    "opcode INST": opcodes(b"(S'touch SENTINEL'\nios\nsystem\n."),
    "opcode OBJ": opcodes(b"(cos\nsystem\nS'touch SENTINEL'\no."),
    "opcode STACK_GLOBAL": opcodes(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch SENTINEL\x85R."),
    "opcode BUILD": opcodes(b"\x80\x02ctypes\nSimpleNamespace\n)R}S'a'\nS'b'\nsb."),
    "opcode EXT": opcodes(b"\x80\x02\x82\x01."),
    "nested pickle": in_archive(lambda path: pickle.dumps({"berthash": pickle.dumps(Runs(path))}, protocol=2)),
    "pickle in an archive": in_archive(lambda path: pickle.dumps(Runs(path), protocol=2)),
    "an archive that is a program": in_archive(lambda path: b"constants", name="archive/constants.pkl"),
    "names that leave the archive": in_archive(lambda path: b"x", name="../../executed"),
    "unhashable key": opcodes(b"\x80\x02}(]K\x01u."),
    "stack runs empty": opcodes(b"\x80\x02aaaa."),
    "memo missing": opcodes(b"\x80\x02h\x07."),
    "nested 100,000 times": opcodes(deep_pickle(100_000)),
    "nested in dictionaries": changed(lambda content: content.update(epoch=deep(100))),
    "refers to itself": changed(itself),
    "compressed to a bomb": recompressed,
    "a view that repeats without end": declares((10**6, 10**7), (0, 0)),
    "a view of terabytes": weight(torch.zeros(1).expand(10**12), "En.in_proj.weight"),
    "on the meta device": weight(torch.zeros(10**6, 10**6, device="meta")),
    "sparse": weight(SPARSE),
    "complex": weight(torch.zeros(128, dtype=torch.complex64)),
    "whole numbers": weight(torch.zeros(128, dtype=torch.int64)),
    "NaN": weight(torch.full((128,), torch.nan)),
    "infinity": weight(torch.full((128,), torch.inf)),
    "empty": weight(torch.zeros(0), "En.ssm.D"),
    "text": weight("<img src=x onerror=alert(1)>"),
    "a long name": weight(torch.zeros(1), "x" * 10**6),
    "a name that is a number": changed(lambda content: content["berthash"].update({5: torch.zeros(1)})),
    "no dictionary": changed(lambda content: [content]),
    "keys of a megabyte": changed(lambda content: {"x" * 10**6: 1, ("y",) * 10**5: 2}),
    "nothing": changed(lambda content: {}),
    "optimizer of another": changed(lambda content: content.update(optimizer={"state": {0: {"step": 1}}})),
    "optimizer without end": changed(
        lambda content: content.update(
            optimizer={"state": {0: dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), torch.zeros(1).expand(10**12))}}
        )
    ),
    "no file": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "bytearray of 3 GB": in_archive(lambda path: b"\x80\x02c__builtin__\nbytearray\nJ\x00\x5e\xd0\xb2\x85R."),
    "encoded over and over": in_archive(lambda path: encoded(21)),
    "a key that doubles 60 times": in_archive(lambda path: b"\x80\x02})" + b"q\x01h\x01\x86" * 60 + b"K\x01s."),
    "a key in 1,000,000 tuples": in_archive(lambda path: b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s."),
    "120,000 tuples in one another": in_archive(lambda path: b"\x80\x02})" + b"\x85" * 120_000 + b"."),
    "an epoch in 120,000 tuples": changed_program(
        lambda program: program[:-1] + b"X\x05\0\0\0epoch)" + b"\x85" * 120_000 + b"s."
    ),
    "a place far away in the memo": in_archive(lambda path: b"\x80\x02}r\xff\xff\xff\x7f."),
    "dictionaries made of one list": in_archive(lambda path: many_dictionaries(10**4)),
    "marks over a large stack": in_archive(lambda path: b"\x80\x02" + b"}" * 60_000 + b"(t" * 30_000 + b"."),
    "one storage, 1,500 tensors": changed(
        lambda content: content.update(optimizer=[content["berthash"]["En.norm1.bias"].view(-1) for _ in range(1_500)])
    ),
    "a number of 255 bytes": changed_program(
        lambda program: program[:-1] + b"X\x05\0\0\0epoch\x8a\xff" + b"\x7f" * 255 + b"s."
    ),
    "a number of 500 kB": in_archive(lambda path: b"\x80\x02\x8b\x00\x00\x08\x00" + b"\x7f" * 2**19 + b"."),
    "digits of 500 kB": in_archive(lambda path: b"I" + b"9" * 500_000 + b"\n."),
    "a storage that is shorter": changed_program(lambda program: program.replace(b"K\x80t", b"M\x80\x7ft")),
    "a storage of two types": changed_program(lambda program: program.replace(b"FloatStorage", b"HalfStorage", 1)),
    "a tensor beyond its storage": changed_program(
        lambda program: program.replace(b"K\x00K\x80\x85", b"K\x01K\x80\x85")
    ),
    "300,000 members": many_members,
    "members over each other": overlapping,
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "text file": lambda path: path.write_text("hello\n" * 100),
    "HTML page": lambda path: path.write_text("<!doctype html><title>Sign in</title>"),
}
PTH_HARMLESS = (
    "nested in dictionaries", "an epoch in 120,000 tuples", "one storage, 1,500 tensors", "a number of 255 bytes",
)  # fmt: skip


def raw(header, data=b"", length=None):
    """A safetensors file written by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def tensors(change):
    def write(path):
        content = load_file(path)
        change(content)
        save_file(content, path)

    return write


def one(dtype, shape, offsets, name="hash_layer.norm.bias"):
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def some(content):
    """The name of a weight, as weights or a checkpoint have it."""
    return next(name for name in content if name.endswith("hash_layer.norm.bias"))


def prepend(path):
    path.write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR." + path.read_bytes())


def linked_out(path):
    path.symlink_to(path.rename(path.parents[1] / path.name))


SAFETENSORS = {
    "header of an exabyte": raw(b"{}", length=2**60),
    "header of 99 MB that is not there": raw(b"{}", length=99_000_000),
    "header length below nothing": raw(b"{}", length=2**64 - 1),
    "header is no JSON": raw(b"{" * 100),
    "header nested deeply": raw(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "header is a list": raw([1, 2]),
    "header is not UTF-8": raw(b'{"\xff\xfe": 1}'),
    "declares terabytes": raw(one("F32", [10**12], [0, 4 * 10**12])),
    "shape and bytes disagree": raw(one("F32", [10**12], [0, 4]), bytes(4)),
    "shape overflows": raw(one("F32", [2**62, 2**62, 16], [0, 4]), bytes(4)),
    "offsets outside": raw(one("F32", [1], [4, 8]), bytes(4)),
    "offsets backwards": raw(one("F32", [1], [4, 0]), bytes(4)),
    "unknown type": raw(one("X99", [1], [0, 4]), bytes(4)),
    "tensors overlap": raw(one("F32", [1], [0, 4]) | one("F32", [1], [0, 4], "b"), bytes(4)),
    "nothing in it": raw({}),
    "name with a null byte": raw(one("F32", [1], [0, 4], "a\0b"), bytes(4)),
    "300,000 empty tensors": lambda path: save_file({f"t{n}": torch.zeros(0) for n in range(300_000)}, path),
    "6,000 empty tensors": lambda path: save_file({f"t{n}": torch.zeros(0) for n in range(6_000)}, path),
    "name of a megabyte": raw(one("F32", [1], [0, 4], "x" * 10**6), bytes(4)),
    "NaN": tensors(lambda content: content[some(content)].fill_(torch.nan)),
    "infinity": tensors(lambda content: content[some(content)].fill_(torch.inf)),
    "another shape": tensors(lambda content: content.update({some(content): torch.zeros(3)})),
    "another type": tensors(lambda content: content.update({some(content): content[some(content)].double()})),
    "one missing": tensors(lambda content: content.pop(some(content))),
    "a pickle": lambda path: torch.save(Runs(path), path),
    "a pickle before it": prepend,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link that leaves the folder": linked_out,
}  # fmt: skip
CHECKPOINT = {
    "no random state": tensors(lambda content: content.pop("generator")),
    "random state of another size": tensors(
        lambda content: content.update(generator=torch.zeros(3, dtype=torch.uint8))
    ),
    "random state of numbers": tensors(lambda content: content.update(generator=torch.zeros(5056))),
    "passes are a list": tensors(lambda content: content.update(passes=torch.zeros(3, dtype=torch.int64))),
    "passes below zero": tensors(lambda content: content.update(passes=torch.tensor(-5))),
    "passes that were never made": tensors(lambda content: content.update(passes=torch.tensor(10**15))),
    "passes are a fraction": tensors(lambda content: content.update(passes=torch.tensor(1.5))),
    "no steps": tensors(lambda content: content.pop("steps")),
    "steps below zero": tensors(lambda content: content.update(steps=torch.tensor(-1))),
    "centres of another size": tensors(lambda content: content.update({"kept.centers": torch.ones(4, 99)})),
    "centres that are no bits": tensors(lambda content: content.update({"kept.centers": torch.full((4, 16), 0.5)})),
    "moments of another shape": tensors(
        lambda content: content.update({n: torch.zeros(2) for n in content if n.startswith("optimizer.exp_avg.")})
    ),
    "moments that are NaN": tensors(
        lambda content: [v.fill_(torch.nan) for n, v in content.items() if n.startswith("optimizer.exp_avg.")]
    ),
    "moments missing": tensors(
        lambda content: [content.pop(n) for n in list(content) if n.startswith("optimizer.exp_avg_sq.")]
    ),
}


def variants():
    made = [Variant("pth", name, change, name not in PTH_HARMLESS) for name, change in PTH.items()]
    for kind in ("safetensors weights", "safetensors checkpoint"):
        made += [Variant(kind, name, change) for name, change in SAFETENSORS.items()]
    made += [Variant("safetensors checkpoint", name, change) for name, change in CHECKPOINT.items()]
    for seed, kind in enumerate(("pth", "safetensors weights", "safetensors checkpoint")):
        made += truncated(kind, 12) + flipped(kind, 24, seed)
    return made
