# SPDX-License-Identifier: Apache-2.0
"""Calls as no sane client makes them: every member by its introspected signature, and beside it."""

import contextlib
import os
import socket
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from gpuwarden.bus.framing import FrameReader
from gpuwarden.bus.library import Message, MessageType, SignatureTree, SignatureType, Variant
from gpuwarden.bus.wire import parse_body, parse_header
from gpuwarden.names import BUS_NAME

ANSWER_SECONDS = 60.0  # to tell a hang from a busy machine
PROPERTIES = "org.freedesktop.DBus.Properties"
DAEMON, DAEMON_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
# What an answer may be called; anything else would be a fault of ours.
ERROR_NAMES = (f"{BUS_NAME}.Error.", "org.freedesktop.DBus.Error.")
# Words that only a fault's own text has.
LEAKS = ("Traceback", 'File "', ".py", "object at 0x", "Error(", "Exception")

ODD_TEXTS = (
    "",
    "\u202e\ufeff",
    "../../../etc/passwd",
    "medgemma-worker@0.service; reboot",
    "$(reboot)",
    "%s%n%d{0}",
    "alert\n",
    "ALERT",
    "\x7f\x01\x1b[2J",
    "a" * 65_536,
    "\U0010ffff" * 500,
    "org.gpuwarden1.Manager",
    "/org/gpuwarden1",
)
KNOWN_TEXTS = ("alert", "critical", "debug", "LogLevel", "State", "org.gpuwarden1.Worker")
RANGES = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
WORTH_TRYING = (0, 1, -1, 2, 7, 86_400, 86_401, 3600, 2**31, 2**32 - 1)


@dataclass(frozen=True)
class Target:
    """A method of an object, and that object's properties: interface, name, type."""

    path: str
    interface: str
    member: str
    signature: str
    properties: tuple[tuple[str, str, str], ...]


def targets_of(path: str, xml: str) -> list[Target]:
    """Every method of an object, from its introspection."""
    found = []
    interfaces = list(ET.fromstring(xml).iter("interface"))
    properties = tuple(
        (interface.get("name", ""), each.get("name", ""), each.get("type", ""))
        for interface in interfaces
        for each in interface.iter("property")
    )
    for interface in interfaces:
        for method in interface.iter("method"):
            inputs = [a.get("type", "") for a in method.iter("arg") if a.get("direction") == "in"]
            name, member = interface.get("name", ""), method.get("name", "")
            found.append(Target(path, name, member, "".join(inputs), properties))
    return found


# What is sent

texts = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(KNOWN_TEXTS),
    # The bus refuses NUL and surrogates, and hangs up: those are sent now and then.
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
)
nuls = st.sampled_from(("\0", "alert\0", "a\0b"))
paths = st.sampled_from(("/", "/org/gpuwarden1", "/org/gpuwarden1/gpu/0", "/" + "x" * 200, "/a_1"))
ELSEWHERE = ("/", "/org/gpuwarden1/gpu/99", "/org/gpuwarden1/worker/x", "/org/gpuwarden1/worker")
basic_types = st.sampled_from("ybnqiuxtdsog")
single_types = st.recursive(
    basic_types | st.just("v"),
    lambda inner: st.one_of(
        inner.map(lambda each: f"a{each}"),
        st.lists(inner, min_size=1, max_size=4).map(lambda each: f"({''.join(each)})"),
        st.tuples(basic_types, inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    ),
    max_leaves=8,
)
signatures = st.lists(single_types, max_size=4).map("".join)


def values(type_: SignatureType) -> st.SearchStrategy[Any]:
    """Values of one complete type."""
    token = type_.token
    if token in RANGES:
        low, high = RANGES[token]
        worth = [each for each in WORTH_TRYING if low <= each <= high]
        return st.sampled_from([low, high, *worth]) | st.integers(low, high)
    if token == "(":
        return st.tuples(*(values(each) for each in type_.children)).map(list)
    if token == "a":
        return arrays(type_.children[0])
    plain: dict[str, st.SearchStrategy[Any]] = {
        "b": st.booleans(),
        "d": st.floats(),
        "s": texts,
        "o": paths,
        "g": signatures,
        "v": variants(),
    }
    return plain[token]


def arrays(child: SignatureType) -> st.SearchStrategy[Any]:
    """Arrays and dictionaries: empty, short, or longer than a call may be."""
    if child.token == "{":
        key, item = child.children
        return st.dictionaries(values(key), values(item), max_size=4)
    if child.token == "y":
        return st.binary(max_size=20) | st.sampled_from((1_000, 60_000, 100_000)).map(bytes)
    short = st.lists(values(child), max_size=4)
    if child.token not in RANGES:
        return short  # long ones of these would be multiplied where they are nested
    high = RANGES[child.token][1]
    return short | st.sampled_from((100, 5_000, 30_000)).map(lambda count: [high] * count)


@st.composite
def variants(draw: st.DrawFn) -> Variant:
    """A variant, nested up to the deepest that D-Bus allows, and beyond."""
    signature = draw(st.sampled_from(("s", "u", "as", "a{sv}", "(us)", "ay", "d", "b")))
    (type_,) = SignatureTree._get(signature).types
    depth = draw(st.sampled_from((0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 20, 50, 60, 65)))
    value = Variant(signature, draw(values(type_)) if signature != "a{sv}" else {})
    for _ in range(depth):
        value = Variant("v", value)
    return value


@st.composite
def of_property(draw: st.DrawFn, target: Target, body: list[Any]) -> list[Any]:
    """The arguments of Get, GetAll or Set, with a property that is there; its type or another."""
    interface, name, signature = draw(st.sampled_from(target.properties))
    found: list[Any] = [interface, name, *body[2:]][: len(body)]
    if len(found) == 3 and draw(st.booleans()):
        (type_,) = SignatureTree._get(signature).types
        found[2] = Variant(signature, draw(values(type_)))
    return found


@st.composite
def calls(draw: st.DrawFn, targets: list[Target]) -> Message:
    """One call: mostly what is there with its own types, else something beside it."""
    target = draw(st.sampled_from(targets))
    path, interface, member = target.path, target.interface, target.member
    signature = target.signature
    match draw(st.integers(0, 9)):
        case 0:
            path = draw(st.sampled_from(ELSEWHERE))
        case 1:
            interface = draw(st.sampled_from((BUS_NAME, f"{BUS_NAME}.Nonsense", PROPERTIES)))
        case 2:
            member = draw(st.sampled_from(("Nonsense", "__init__", "Set", "x" * 200)))
        case 3 | 4:
            signature = draw(signatures)
    types = SignatureTree._get(signature).types
    body = [draw(values(each)) for each in types]
    if target.interface == PROPERTIES and signature == target.signature and draw(st.integers(0, 3)):
        body = draw(of_property(target, body))
    if signature and draw(st.integers(0, 60)) == 60:
        pairs = zip(types, body, strict=True)
        body = [draw(nuls) if each.token == "s" else one for each, one in pairs]
    # Not through the constructor's checks: what the bus lets pass is for the bus to say.
    message = Message(path="/", member="X", destination=BUS_NAME)
    message.path, message.interface, message.member = path, interface, member
    message.signature, message.signature_tree = signature, SignatureTree._get(signature)
    message.body = body
    return message


# How it is sent


@dataclass(frozen=True)
class Answer:
    """What came back; ``error`` is empty for an answer."""

    error: str
    text: str


class FuzzClient:
    """A client that is thrown out by the bus now and then, and comes back."""

    def __init__(self, address: str) -> None:
        self._address = address.removeprefix("unix:path=")
        self._socket: socket.socket | None = None
        self._serial = 0
        self.thrown_out = 0

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, message: Message) -> Answer | None:
        """The answer; None where the bus itself hung up on us for what we sent.

        Raises TimeoutError if there is none, ValueError if it can't even be written.
        """
        connection = self._connected()
        self._serial += 1
        message.serial = self._serial
        data = bytes(message._marshall())
        try:
            connection.sendall(data)
            return self._answer(connection, self._serial)
        except (ConnectionError, EOFError):
            self.close()
            self.thrown_out += 1
            return None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.connect(self._address)
            uid = str(os.getuid()).encode().hex().encode()
            self._socket.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
            assert self._socket.recv(4096).startswith(b"OK")
            self._socket.sendall(b"BEGIN\r\n")
            self._frames = FrameReader()
            self._serial = 1
            hello = Message(destination=DAEMON, path=DAEMON_PATH, interface=DAEMON, member="Hello")
            hello.serial = 1
            self._socket.sendall(bytes(hello._marshall()))
            self._answer(self._socket, 1)
        return self._socket

    def _answer(self, connection: socket.socket, serial: int) -> Answer:
        while True:
            data = connection.recv(1 << 20)
            if not data:
                raise EOFError
            for frame in self._frames.feed(data):
                message = parse_header(frame)
                if message.reply_serial != serial:
                    continue
                if message.message_type is not MessageType.ERROR:
                    return Answer("", "")
                text = parse_body(frame, message)
                return Answer(message.error_name or "", str(text[0]) if text else "")


def fault_of(answer: Answer | None) -> str:
    """What is wrong with an answer, in words; empty where nothing is."""
    if answer is None or not answer.error:
        return ""
    if not answer.error.startswith(ERROR_NAMES):
        return f"an error called {answer.error}"
    leaks = [each for each in LEAKS if each in answer.text]
    return f"{answer.error} tells of the inside: {answer.text[:200]}" if leaks else ""


def is_writable(message: Message) -> bool:
    """Whether the library can put it on the wire at all (it can't nest for ever)."""
    with contextlib.suppress(Exception):
        message.serial = 1
        message._marshall()
        return True
    return False
