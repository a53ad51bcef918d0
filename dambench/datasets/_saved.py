"""What `torch.save` wrote, read without running anything in it and without torch's own loader.

Such a file is a pickle, and the bytes of its tensors: members of a zip archive since torch 1.6, one after the other
before. A pickle is a program. Of its instructions only those are followed that build lists, dicts, texts, numbers and
tensors, and of the functions that it may call only those of `_KNOWN`, which are ours. A tensor is first no more than
what the file says of it, `Stored`; its bytes are read when asked for, once what is said fits what is there.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dambench.core import units
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import _archive, free_bytes

MAGIC = 0x1950A86A20F9469CFC6C
"""What files before torch 1.6 begin with, as a pickle."""

MOST_KEY = 2**31
MOST_INSTRUCTIONS = 3_000_000
"""Limit of a pickle: ten times what a file of ten experts has. It takes some seconds to follow them."""
MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class Storage:
    """Numbers that lie in a file one after the other. Tensors are views of it."""

    content: Callable[["Storage"], bytes]
    """Reads its bytes, all that it says it has."""
    dtype: torch.dtype
    key: str
    count: int
    start: int = 0
    """Position of its first number, among those that lie under the key."""

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class Stored:
    """A tensor that is not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return prod(list(self.shape))

    @property
    def size(self) -> int:
        """Bytes that it will take."""
        return self.numbers * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """
        Raises:
            ValueError: the file does not have what it says; nothing was reserved.
        """
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        # A tensor of many numbers may be a view of few: those are nobody's set, and could be of any size.
        if self.numbers > self.storage.count or (self.numbers and reach >= self.storage.count):
            raise ValueError(f"a tensor of shape {self.shape} claims more numbers than the {self.storage.count} stored")
        if not self.numbers:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        flat = torch.frombuffer(bytearray(self.storage.content(self.storage)), dtype=self.storage.dtype)
        return flat.as_strided(self.shape, self.stride, self.offset).clone(memory_format=torch.contiguous_format)


class Other:
    """Stands for a value that is not needed, such as the attributes of a tensor."""


@dataclass
class NumberType(Other):
    """A type of NumPy's scalars, such as the accuracies that the code of DC saves beside the images."""

    code: str
    """As NumPy writes it: `f8`."""
    order: str = "<"


@contextmanager
def opened(path: Path, most: int) -> Iterator[Any]:
    """What was saved: lists, tuples, dicts, texts, numbers, and `Stored` tensors, to be read inside of the block.

    Args:
        most: bytes that the file may have, unpacked.

    Raises:
        BadInput: it holds what is neither of these, or is no such file.
        Exception: there are many kinds for files that are damaged or hostile.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        yield _before_zip(path)
        return
    with _archive.opened(path, most) as (archive, members):
        (program,) = [name for name in members if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1]
        root = program.removesuffix("data.pkl")
        if (order := members.get(f"{root}byteorder")) and _archive.read(archive, order) != b"little":
            raise ValueError("it was written on a machine with another order of bytes")

        def content(storage: Storage) -> bytes:
            member = members[f"{root}data/{storage.key}"]
            if member.file_size != storage.size:
                raise ValueError(f"a tensor claims {storage.size} bytes, of which {member.file_size} are there")
            return _archive.read(archive, member)

        def storage(reference: Any) -> Storage:
            word, dtype, key, _, count = reference
            return _storage(content, word, dtype, key, count)

        yield _follow(io.BytesIO(_archive.read(archive, members[program])), storage)


def _before_zip(path: Path) -> Any:
    if (size := path.stat().st_size) > free_bytes():
        raise BadInput(
            f"It has {units.size(size)}, more than there is memory, and was saved before torch 1.6: save it again."
        )
    file = io.BytesIO(path.read_bytes())
    begins = _first(file)
    if begins != MAGIC:
        raise BadInput("It is not what torch.save writes.")
    if _follow(file, _none) != 1001:
        raise ValueError("it is of a version of torch that is not known")
    if _follow(file, _none).get("little_endian") is not True:
        raise ValueError("it was written on a machine with another order of bytes")
    storages: dict[str, Storage] = {}
    places: dict[str, int] = {}

    def content(storage: Storage) -> bytes:
        first = places[storage.key] + storage.start * storage.dtype.itemsize
        return file.getvalue()[first : first + storage.size]

    def storage(reference: Any) -> Storage:
        word, dtype, key, _, count, view = reference
        whole = storages.setdefault(key, _storage(content, word, dtype, key, count))
        if view is None:
            return whole
        _, start, part = view
        if not _whole(start) or not _whole(part) or start + part > whole.count:
            raise ValueError("a storage is said to reach beyond another")
        return Storage(content, dtype, key, part, start)

    saved = _follow(file, storage)
    for key in _follow(file, _none):
        count, size = int.from_bytes(file.read(8), "little", signed=True), storages[key].size
        if count != storages[key].count or file.tell() + size > len(file.getbuffer()):
            raise ValueError(f"a tensor claims {size} bytes, which are not there")
        places[key] = file.tell()
        file.seek(size, io.SEEK_CUR)
    return saved


def _first(file: io.BytesIO) -> Any:
    try:
        return _follow(file, _none)
    except (ValueError, IndexError):
        return None


def _none(reference: Any) -> Storage:
    raise ValueError("it has a tensor where none belongs")


def _whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _storage(content: Callable[[Storage], bytes], word: Any, dtype: Any, key: Any, count: Any) -> Storage:
    typed = isinstance(dtype, torch.dtype) and isinstance(key, str | int) and _whole(count)
    if word not in ("storage", b"storage") or not typed:
        raise ValueError("it has a tensor whose place is not known")
    return Storage(content, dtype, f"{key}", count)


# What a pickle may call.


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> Stored:
    fits = isinstance(storage, Storage) and len(shape) == len(stride) <= MOST_DIMENSIONS
    if not fits or not all(map(_whole, (offset, *shape, *stride))):
        raise ValueError("it has a tensor whose shape makes no sense")
    return Stored(storage, offset, tuple(shape), tuple(stride))


def _parameter(data: Any, *more: Any) -> Any:
    return data


def _of_class(make: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, which are not needed."""
    return _called(make, arguments)


def _size(numbers: Any = ()) -> tuple[Any, ...]:
    return tuple(numbers)


def _dict() -> dict[Any, Any]:
    return {}


def _number_type(code: Any, *more: Any) -> Other:
    return NumberType(code) if code in _NUMBERS else Other()


def _bytes(text: Any, encoding: Any = "latin1") -> Any:
    """Bytes that a pickle before protocol 3 has as a text."""
    short = isinstance(text, str) and len(text) <= 8 and encoding == "latin1"
    return text.encode("latin1") if short and all(character <= "\xff" for character in text) else Other()


def _number(kind: Any, content: Any) -> Any:
    """A scalar of NumPy's as a number of Python's; of a type that no accuracy has, it is not needed."""
    if not isinstance(kind, NumberType) or not isinstance(content, bytes):
        return Other()
    form = f"{'>' if kind.order == '>' else '<'}{_NUMBERS[kind.code]}"
    return struct.unpack(form, content)[0] if len(content) == struct.calcsize(form) else Other()


_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}
"""Types of NumPy's scalars, as `struct` calls them."""

_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}

_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    "torch.Tensor": Other(),
    "torch.Size": _size,
    "collections.OrderedDict": _dict,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "numpy.dtype": _number_type,
    "_codecs.encode": _bytes,
    **{f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()},
}
_CALLABLE = (_tensor, _parameter, _of_class, _size, _dict, _number, _number_type, _bytes)


def _called(function: Any, arguments: Any) -> Any:
    if function not in _CALLABLE or not isinstance(arguments, tuple):
        raise ValueError("it calls what is no function")
    return function(*arguments)


def _named(module: Any, member: Any) -> Any:
    if not isinstance(module, str) or not isinstance(member, str):
        raise ValueError("it calls what has no name")
    name = f"{module}.{member}"
    if name in _KNOWN:
        return _KNOWN[name]
    if "_meta_tensor" in name:
        raise BadInput("It holds a meta tensor, which has a shape and no values.")
    if name.endswith("multiarray._reconstruct"):
        raise BadInput("It holds NumPy's arrays: save tensors, or an .npz.")
    if name.startswith("torch._utils._rebuild_"):
        raise BadInput(f"It holds {display(name, 80)}: of tensors, only plain ones are read.")
    raise BadInput(f"It holds {display(name, 80)}, which is neither a tensor nor a number and could run code.")


# The machine.

_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def _follow(file: io.BytesIO, storage: Callable[[Any], Storage]) -> Any:
    """What the pickle at this place of the file builds.

    Args:
        storage: of what the file says of one.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}
    instruction: tuple[pickletools.OpcodeInfo, Any, int | None]
    for number, instruction in enumerate(pickletools.genops(file)):
        code, argument, _ = instruction
        if number > MOST_INSTRUCTIONS:
            raise ValueError("it has more instructions than tensors need")
        name = code.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in _VALUES:
            stack.append(_VALUES[name])
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marked.append(stack)
            stack = []
        elif name in _TUPLES:
            parts = tuple(stack[-_TUPLES[name] :])
            del stack[-_TUPLES[name] :]
            stack.append(parts)
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marked.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "APPENDS":
                _extend(stack[-1], items)
            else:
                _set_items(stack[-1], items)
        elif name == "APPEND":
            item = stack.pop()
            _extend(stack[-1], [item])
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            member, module = stack.pop(), stack.pop()
            stack.append(_named(module, member))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], dict | Other):
                raise ValueError("it sets attributes of what has none")
            if isinstance(stack[-1], NumberType) and isinstance(state, tuple) and len(state) > 1:
                stack[-1].order = str(state[1])[:1]
        elif name == "BINPERSID":
            stack.append(storage(stack.pop()))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the instruction {name}, which saving tensors never needs")
    raise ValueError("it is cut off")


def _extend(whole: Any, items: list[Any]) -> None:
    if type(whole) is not list:
        raise ValueError("it appends to what is no list")
    whole += items


def _set_items(whole: Any, items: list[Any]) -> None:
    """Keys are texts and small numbers: to hash others can take for ever, or all of the stack."""
    keys = items[::2]
    if type(whole) is not dict or not all(isinstance(key, str) or (_whole(key) and key < MOST_KEY) for key in keys):
        raise ValueError("it has a dict of other than names")
    whole.update(zip(keys, items[1::2], strict=True))
