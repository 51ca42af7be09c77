"""Bytes to frames and back: sections 3, 13, 14 and 15 of docs/protocol.md.

Owns what a well-formed frame is. Whether one is allowed at its time, and whether a text is a good name, is the
session's business. A name reference is an int (a handle) or a str (the name itself).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import ClassVar, Dict, List, Optional, Tuple, Type, Union

Reference = Union[int, str]

PAYLOAD_LIMIT = 8192
LIST_LIMIT = 128
TEXT_LIMIT = 1024
GATEWAY_BODY_LIMIT = 32768


class Malformed(Exception):
    """The bytes are not what the frame's kind demands."""


class FrameTooLarge(Exception):
    """A length over the limit, or in a form that isn't allowed: the next frame can't be found."""


class Reason(enum.IntEnum):
    MALFORMED = 1
    UNSUPPORTED_VERSION = 2
    UNSUPPORTED = 3
    PROTOCOL_ERROR = 4
    FRAME_TOO_LARGE = 5
    WINDOW_EXCEEDED = 6
    NOT_AUTHENTICATED = 7
    NOT_AUTHORIZED = 8
    TAKEN_OVER = 9
    KEEP_ALIVE_TIMEOUT = 10
    SHUTTING_DOWN = 11
    NORMAL = 12
    TOO_LARGE = 16
    LIST_TOO_LONG = 17
    NO_RECIPIENT = 18
    RATE_LIMITED = 19
    BAD_NAME = 20
    UNKNOWN_HANDLE = 21
    BAD_OPTION = 22
    BAD_TOPIC = 23
    OVERFLOW = 24
    TOO_MANY = 25
    BUSY = 26
    EXPIRED = 27
    RETAIN_REFUSED = 28
    INTERNAL = 29
    KICKED = 30
    MUTED = 31
    BANNED = 32


class Status(enum.IntEnum):
    DELIVERED = 0
    UNCONFIRMED = 1
    QUEUED = 2
    OFFLINE = 3
    NOT_MEMBER = 4
    DENIED = 5
    EXPIRED = 6
    OVERFLOW = 7


class NameKind(enum.IntEnum):
    CLIENT = 1
    GROUP = 2
    TOPIC = 3


class Mode(enum.IntEnum):
    ONE = 0
    ALL = 1
    ONLY = 2
    EXCEPT = 3


class ReceiptMode(enum.IntEnum):
    NONE = 0
    SUMMARY = 1
    EACH = 2


def is_numbered(kind: int) -> bool:
    return 0x10 <= kind <= 0x7F


def takes_window(kind: int) -> bool:
    return is_numbered(kind) and kind not in (0x10, 0x20, 0x21)


def is_name(text: str) -> bool:
    """A client id, group name or message id."""
    return re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", text) is not None


def is_topic(text: str) -> bool:
    return 0 < len(text.encode()) <= TEXT_LIMIT and not set(text) & set("+#\0")


def is_good(kind: NameKind, text: str) -> bool:
    return is_topic(text) if kind is NameKind.TOPIC else is_name(text)


# -- Fields ---------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{value} is no varint")
    out = bytearray()
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint16(value: int) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"{value} is no varint16")
    return varint(value)


def text(value: str) -> bytes:
    encoded = value.encode()
    return varint(len(encoded)) + encoded


def reference(value: Reference) -> bytes:
    if isinstance(value, str):
        return b"\0" + text(value)
    if value == 0:
        raise ValueError("0 is no handle")
    return varint16(value)


def references(values: List[Reference]) -> bytes:
    return varint(len(values)) + b"".join(map(reference, values))


def read_varint(data: bytes, at: int) -> Optional[Tuple[int, int]]:
    """The value and where it ends; None if more bytes are needed."""
    value = 0
    for i in range(5):
        if at + i >= len(data):
            return None
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if (byte == 0 and i > 0) or value >= 1 << 32:
                raise Malformed("a varint in a form that isn't allowed")
            return value, at + i + 1
    raise Malformed("a varint of more than 5 bytes")


class Reader:
    """Takes the fields of one body, in order."""

    def __init__(self, body: bytes):
        self.body = body
        self.at = 0

    def left(self) -> int:
        return len(self.body) - self.at

    def bytes(self, count: int) -> bytes:
        if self.left() < count:
            raise Malformed("the body ends before its last field")
        self.at += count
        return bytes(self.body[self.at - count : self.at])

    def unsigned(self, count: int) -> int:
        return int.from_bytes(self.bytes(count), "big")

    def u8(self) -> int:
        return self.unsigned(1)

    def u16(self) -> int:
        return self.unsigned(2)

    def u32(self) -> int:
        return self.unsigned(4)

    def u64(self) -> int:
        return self.unsigned(8)

    def flags(self, known: int) -> int:
        flags = self.u8()
        if flags & ~known:
            raise Malformed("a reserved flag is set")
        return flags

    def varint(self) -> int:
        found = read_varint(self.body, self.at)
        if found is None:
            raise Malformed("the body ends within a varint")
        value, self.at = found
        return value

    def varint16(self) -> int:
        value = self.varint()
        if value > 0xFFFF:
            raise Malformed("a number over 65535")
        return value

    @staticmethod
    def utf8(data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Malformed("a text that isn't UTF-8") from None

    def text(self) -> str:
        return self.utf8(self.bytes(self.varint()))

    def rest(self) -> bytes:
        return self.bytes(self.left())

    def rest_of_text(self) -> str:
        return self.utf8(self.rest())

    def reference(self) -> Reference:
        handle = self.varint16()
        if handle:
            return handle
        length = self.varint()
        if length > TEXT_LIMIT:
            raise Malformed("an inline name of more than 1024 bytes")
        return self.utf8(self.bytes(length))

    def references(self) -> List[Reference]:
        return [self.reference() for _ in range(self.varint())]

    def end(self) -> None:
        if self.left():
            raise Malformed("bytes after the last field")


def read_enum(kind, value: int):
    try:
        return kind(value)
    except ValueError:
        raise Malformed(f"{value} is no {kind.__name__}") from None


def read_reason(value: int) -> Reason:
    """Reasons may be added within version 1; one that isn't known stands for INTERNAL (section 17)."""
    try:
        return Reason(value)
    except ValueError:
        return Reason.INTERNAL


# -- Frames ---------------------------------------------------------------------------------------------------------

KINDS: Dict[int, Type["Frame"]] = {}


class Frame:
    kind: ClassVar[int]

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    def body(self) -> bytes:
        raise NotImplementedError

    @classmethod
    def read(cls, reader: Reader) -> "Frame":
        raise NotImplementedError

    def encode(self) -> bytes:
        body = self.body()
        return bytes([self.kind]) + varint(len(body)) + body


@dataclass
class Ping(Frame):
    kind = 0x01
    token: Optional[int] = None

    def body(self):
        return b"" if self.token is None else self.token.to_bytes(4, "big")

    @classmethod
    def read(cls, reader):
        return cls(reader.u32() if reader.left() else None)


@dataclass
class Pong(Frame):
    kind = 0x02
    token: Optional[int] = None
    clock: int = 0

    def body(self):
        return b"" if self.token is None else self.token.to_bytes(4, "big") + self.clock.to_bytes(8, "big")

    @classmethod
    def read(cls, reader):
        return cls(reader.u32(), reader.u64()) if reader.left() else cls()


@dataclass
class Ack(Frame):
    kind = 0x03
    frames: int

    def body(self):
        return varint(self.frames)

    @classmethod
    def read(cls, reader):
        frames = reader.varint()
        if frames == 0:
            raise Malformed("an ACK of 0")
        return cls(frames)


@dataclass
class ReasonAndText(Frame):
    reason: Reason
    text: str = ""

    def body(self):
        return bytes([self.reason]) + self.text.encode()

    @classmethod
    def read(cls, reader):
        return cls(read_reason(reader.u8()), reader.rest_of_text())


class Bye(ReasonAndText):
    kind = 0x04


class Error(ReasonAndText):
    kind = 0x05


@dataclass
class Resume:
    session: int
    received: int
    taken: int
    acknowledged: int


@dataclass
class Hello(Frame):
    kind = 0x0B
    client_id: str
    keep_alive: int = 60
    max_body: int = 512
    window: int = 4
    names: int = 8
    session_expiry: int = 0
    resume: Optional[Resume] = None
    will: Optional[Union["Send", "Publish"]] = None

    def body(self):
        out = b"BG\x01" + bytes([(self.resume is not None) | (self.will is not None) << 1])
        out += self.keep_alive.to_bytes(2, "big") + self.max_body.to_bytes(2, "big")
        out += varint16(self.window) + varint16(self.names) + varint(self.session_expiry) + text(self.client_id)
        if self.resume is not None:
            out += self.resume.session.to_bytes(8, "big")
            for count in (self.resume.received, self.resume.taken, self.resume.acknowledged):
                out += count.to_bytes(4, "big")
        return out + (self.will.encode() if self.will is not None else b"")

    @classmethod
    def read(cls, reader):
        if reader.bytes(2) != b"BG" or reader.u8() != 1:
            raise Malformed("not a HELLO of version 1")
        flags = reader.flags(0b11)
        keep_alive, max_body = reader.u16(), reader.u16()
        window, names, expiry = reader.varint16(), reader.varint16(), reader.varint()
        hello = cls(reader.text(), keep_alive, max_body, window, names, expiry)
        if flags & 1:
            hello.resume = Resume(reader.u64(), reader.u32(), reader.u32(), reader.u32())
        if flags & 2:
            kind, length = reader.u8(), reader.varint()
            if kind not in (Send.kind, Publish.kind):
                raise Malformed("a will is a SEND or PUBLISH")
            hello.will = decode(kind, reader.bytes(length))
        return hello


@dataclass
class Welcome(Frame):
    kind = 0x0C
    resumed: bool
    keep_alive: int
    max_body: int
    window: int
    names: int
    session_expiry: int
    session: int
    received: int
    clock: int
    version: int = 1

    def body(self):
        out = bytes([self.version, self.resumed]) + self.keep_alive.to_bytes(2, "big") + self.max_body.to_bytes(2, "big")
        out += varint16(self.window) + varint16(self.names) + varint(self.session_expiry)
        return out + self.session.to_bytes(8, "big") + self.received.to_bytes(4, "big") + self.clock.to_bytes(8, "big")

    @classmethod
    def read(cls, reader):
        version = reader.u8()
        return cls(
            bool(reader.flags(1)), reader.u16(), reader.u16(), reader.varint16(), reader.varint16(), reader.varint(),
            reader.u64(), reader.u32(), reader.u64(), version,
        )  # fmt: skip


@dataclass
class Challenge(Frame):
    kind = 0x0D
    nonce: bytes

    def body(self):
        return self.nonce

    @classmethod
    def read(cls, reader):
        return cls(reader.bytes(32))


@dataclass
class Proof(Frame):
    kind = 0x0E
    proof: bytes

    def body(self):
        return self.proof

    @classmethod
    def read(cls, reader):
        return cls(reader.bytes(32))


@dataclass
class Name(Frame):
    kind = 0x10
    handle: int
    names: NameKind
    name: str

    def body(self):
        return varint16(self.handle) + bytes([self.names]) + self.name.encode()

    @classmethod
    def read(cls, reader):
        return cls(reader.varint16(), read_enum(NameKind, reader.u8()), reader.rest_of_text())


@dataclass
class GroupFrame(Frame):
    group: Reference

    def body(self):
        return reference(self.group)

    @classmethod
    def read(cls, reader):
        return cls(reader.reference())


class Join(GroupFrame):
    kind = 0x11


class Leave(GroupFrame):
    kind = 0x12


@dataclass
class Send(Frame):
    kind = 0x13
    to_client: bool
    target: Reference
    payload: bytes
    only: Optional[List[Reference]] = None
    excepted: Optional[List[Reference]] = None
    ttl: Optional[int] = None
    id: Optional[str] = None
    receipt: ReceiptMode = ReceiptMode.NONE
    store: bool = False
    echo: bool = False
    urgent: bool = False

    def body(self):
        options = self.receipt | self.store << 2 | self.echo << 3 | self.urgent << 4
        fields = [
            None if self.only is None else references(self.only),
            None if self.excepted is None else references(self.excepted),
            None if self.ttl is None else varint(self.ttl),
            None if self.id is None else text(self.id),
            bytes([options]) if options else None,
        ]
        flags = int(self.to_client)
        for bit, given in enumerate(fields, 1):
            flags |= (given is not None) << bit
        return bytes([flags]) + reference(self.target) + b"".join(f for f in fields if f is not None) + self.payload

    @classmethod
    def read(cls, reader):
        flags = reader.flags(0x3F)
        if flags & 1 and flags & 0b110:
            raise Malformed("lists with a single client")
        send = cls(bool(flags & 1), reader.reference(), b"")
        if flags & 2:
            send.only = reader.references()
        if flags & 4:
            send.excepted = reader.references()
        if flags & 8:
            send.ttl = reader.varint()
        if flags & 16:
            send.id = reader.text()
        if flags & 32:
            options = reader.flags(0x1F)
            send.receipt = read_enum(ReceiptMode, options & 3)
            send.store, send.echo, send.urgent = bool(options & 4), bool(options & 8), bool(options & 16)
        send.payload = reader.rest()
        return send


@dataclass
class Publish(Frame):
    kind = 0x14
    topic: Reference
    payload: bytes
    at_least_once: bool = False
    retain: bool = False

    def body(self):
        return bytes([self.at_least_once | self.retain << 1]) + reference(self.topic) + self.payload

    @classmethod
    def read(cls, reader):
        flags = reader.flags(3)
        return cls(reader.reference(), reader.rest(), bool(flags & 1), bool(flags & 2))


@dataclass
class Subscribe(Frame):
    kind = 0x15
    filter: str
    at_least_once: bool = False

    def body(self):
        return bytes([self.at_least_once]) + self.filter.encode()

    @classmethod
    def read(cls, reader):
        flags = reader.flags(1)
        return cls(reader.rest_of_text(), bool(flags))


@dataclass
class Unsubscribe(Frame):
    kind = 0x16
    filter: str

    def body(self):
        return self.filter.encode()

    @classmethod
    def read(cls, reader):
        return cls(reader.rest_of_text())


@dataclass
class Refused(Frame):
    kind = 0x20
    number: int
    reason: Reason
    retry_after: int = 0
    text: str = ""

    def body(self):
        return self.number.to_bytes(2, "big") + bytes([self.reason]) + varint(self.retry_after) + self.text.encode()

    @classmethod
    def read(cls, reader):
        return cls(reader.u16(), read_reason(reader.u8()), reader.varint(), reader.rest_of_text())


@dataclass
class Receipt(Frame):
    kind = 0x21
    number: int
    interim: bool = False
    more: bool = False
    duplicate: bool = False
    counts: Dict[Status, int] = field(default_factory=dict)
    entries: List[Tuple[Reference, Status]] = field(default_factory=list)

    def body(self):
        out = self.number.to_bytes(2, "big") + bytes([self.interim | self.more << 1 | self.duplicate << 2])
        out += bytes([sum(1 << status for status in self.counts)])
        out += b"".join(varint(self.counts[status]) for status in sorted(self.counts))
        return out + b"".join(reference(client) + bytes([status]) for client, status in self.entries)

    @classmethod
    def read(cls, reader):
        number, flags, present = reader.u16(), reader.flags(7), reader.u8()
        receipt = cls(number, bool(flags & 1), bool(flags & 2), bool(flags & 4))
        for status in Status:
            count = reader.varint() if present >> status & 1 else 0
            if count:
                receipt.counts[status] = count
        while reader.left():
            receipt.entries.append((reader.reference(), read_enum(Status, reader.u8())))
        return receipt


@dataclass
class Delivery(Frame):
    kind = 0x22
    mode: Mode
    group: Optional[Reference]
    sender: Reference
    payload: bytes
    urgent: bool = False
    deadline: Optional[int] = None

    def body(self):
        out = bytes([self.mode | self.urgent << 2 | (self.deadline is not None) << 3])
        out += b"" if self.group is None else reference(self.group)
        out += reference(self.sender)
        out += b"" if self.deadline is None else self.deadline.to_bytes(4, "big")
        return out + self.payload

    @classmethod
    def read(cls, reader):
        flags = reader.flags(15)
        mode = Mode(flags & 3)
        group = reader.reference() if mode is not Mode.ONE else None
        sender = reader.reference()
        deadline = reader.u32() if flags & 8 else None
        return cls(mode, group, sender, reader.rest(), bool(flags & 4), deadline)


@dataclass
class Message(Frame):
    kind = 0x23
    topic: Reference
    payload: bytes
    at_least_once: bool = False
    retained: bool = False

    def body(self):
        return bytes([self.at_least_once | self.retained << 1]) + reference(self.topic) + self.payload

    @classmethod
    def read(cls, reader):
        flags = reader.flags(3)
        return cls(reader.reference(), reader.rest(), bool(flags & 1), bool(flags & 2))


def announced_handle(body: bytes) -> Optional[int]:
    """The handle of a NAME that may be malformed behind it."""
    try:
        return Reader(body).varint16()
    except Malformed:
        return None


def decode(kind: int, body: bytes) -> Optional[Frame]:
    """The frame; None if the kind isn't known. Raises Malformed."""
    if kind not in KINDS:
        return None
    reader = Reader(body)
    frame = KINDS[kind].read(reader)
    reader.end()
    return frame


def split(data: bytes, at: int, max_body: int) -> Optional[Tuple[int, bytes, int]]:
    """Kind and body of the frame that begins at `at`, and where it ends; None if it isn't whole yet.

    Raises FrameTooLarge as soon as the length is read."""
    if at >= len(data):
        return None
    try:
        found = read_varint(data, at + 1)
    except Malformed:
        raise FrameTooLarge("a length in a form that isn't allowed") from None
    if found is None:
        return None
    length, start = found
    if length > max_body:
        raise FrameTooLarge(f"a body of {length} bytes; {max_body} are allowed")
    if len(data) < start + length:
        return None
    return data[at], bytes(data[start : start + length]), start + length
