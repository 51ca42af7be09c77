"""The golden vectors, both ways; and what a device answers to bytes that are no frame.

    python3 -m unittest discover -s tests -t tests      in the repository's root
"""

import unittest
from pathlib import Path

from . import frames
from .frames import Mode, NameKind, Reason, ReceiptMode, Status
from .session import Accepted, Session

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"


def vectors(path):
    """As the README beside the vectors gives it."""
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith("#")]
        vector = {key.strip(): value.strip() for key, value in (line.split("=", 1) for line in lines)}
        if vector:
            yield vector


def all_vectors():
    for path in sorted(VECTORS.glob("*.txt")):
        yield from vectors(path)


def reference(text):
    what, _, value = text.partition(" ")
    return int(value) if what == "handle" else value


def references(text):
    if text.startswith("handles "):
        first, last = map(int, text[8:].split("-"))
        return list(range(first, last + 1))
    return [] if text == "empty" else [reference(entry) for entry in text.split(", ")]


def payload(text):
    what, _, value = (text or "text ").partition(" ")
    return bytes.fromhex(value) if what == "hex" else value.encode()


class Fields:
    """The fields of a vector; tells at the end which nobody asked for."""

    PASSED_OVER = {"name", "hex", "from", "note", "frame", "canonical", "answer"}

    def __init__(self, vector):
        self.left = {key: value for key, value in vector.items() if key not in self.PASSED_OVER}

    def __call__(self, key, read=str, default=None):
        return read(self.left.pop(key)) if key in self.left else default

    def flag(self, key):
        return self(key) == "yes"


def counts(text):
    pairs = (pair.split(" ") for pair in text.split(", "))
    return {Status[status]: int(count) for status, count in pairs}


def entries(text):
    pairs = (entry.rsplit(" ", 1) for entry in text.split(", "))
    return [(reference(client), Status[status]) for client, status in pairs]


def frame_of(kind, f):
    """The frame that the fields describe."""
    if kind == "PING":
        return frames.Ping(f("token", int))
    if kind == "PONG":
        return frames.Pong(f("token", int), f("clock", int, 0))
    if kind == "ACK":
        return frames.Ack(f("frames", int))
    if kind in ("BYE", "ERROR"):
        return frames.KINDS[4 if kind == "BYE" else 5](Reason[f("reason")], f("text", default=""))
    if kind == "HELLO":
        assert f("version") == "1"
        hello = frames.Hello(f("client_id"), *(f(key, int) for key in
                             ("keep_alive", "max_body", "window", "names", "session_expiry")))  # fmt: skip
        if "resume.session" in f.left:
            hello.resume = frames.Resume(*(f(f"resume.{key}", int) for key in
                                           ("session", "received", "taken", "acknowledged")))  # fmt: skip
        if "will.frame" in f.left:
            will = {key[5:]: f(key) for key in list(f.left) if key.startswith("will.")}
            kind = will.pop("frame")
            fields = Fields(will)
            hello.will = frame_of(kind, fields)
            assert not fields.left
        return hello
    if kind == "WELCOME":
        names = ("keep_alive", "max_body", "window", "names", "session_expiry", "session", "received", "clock")
        return frames.Welcome(f.flag("resumed"), *(f(key, int) for key in names), version=f("version", int))
    if kind == "CHALLENGE":
        return frames.Challenge(f("nonce", bytes.fromhex))
    if kind == "PROOF":
        f("secret"), f("nonce"), f("client_id")  # test_proof
        return frames.Proof(f("proof", bytes.fromhex))
    if kind == "NAME":
        return frames.Name(f("handle", int), NameKind[f("kind").upper()], f("text", default=""))
    if kind in ("JOIN", "LEAVE"):
        return frames.KINDS[0x11 if kind == "JOIN" else 0x12](f("group", reference))
    if kind == "SEND":
        to_client = "client" in f.left
        send = frames.Send(to_client, f("client" if to_client else "group", reference), f("payload", payload, b""))
        send.only, send.excepted = f("only", references), f("except", references)
        send.ttl, send.id = f("ttl", int), f("id")
        send.receipt = ReceiptMode[f("receipt", default="none").upper()]
        send.store, send.echo, send.urgent = f.flag("store"), f.flag("echo"), f.flag("urgent")
        return send
    if kind == "PUBLISH":
        flags = f.flag("at_least_once"), f.flag("retain")
        return frames.Publish(f("topic", reference), f("payload", payload, b""), *flags)
    if kind == "SUBSCRIBE":
        return frames.Subscribe(f("filter"), f.flag("at_least_once"))
    if kind == "UNSUBSCRIBE":
        return frames.Unsubscribe(f("filter"))
    if kind == "REFUSED":
        return frames.Refused(f("number", int), Reason[f("reason")], f("retry_after", int), f("text", default=""))
    if kind == "RECEIPT":
        flags = f.flag("interim"), f.flag("more"), f.flag("duplicate")
        return frames.Receipt(f("number", int), *flags, f("counts", counts, {}), f("entries", entries, []))
    if kind == "DELIVERY":
        mode = Mode[f("mode").upper()]
        group, sender = f("group", reference), f("sender", reference)
        return frames.Delivery(mode, group, sender, f("payload", payload, b""), f.flag("urgent"), f("deadline", int))
    assert kind == "MESSAGE", kind
    flags = f.flag("at_least_once"), f.flag("retained")
    return frames.Message(f("topic", reference), f("payload", payload, b""), *flags)


def opened(**options):
    """A session that was let in, and the bytes it wrote taken."""
    session = Session("lamp-1", b"secret", **options)
    session.connected(0)
    session.handle_bytes(frames.Welcome(False, 0, 32768, 32, 256, 0, 1, 0, 1000).encode(), 0)
    session.take_output(0)
    session.take_events()
    return session


def written(session, now=0):
    """The frames that it wrote."""
    data, at, found = session.take_output(now), 0, []
    while at < len(data):
        kind, body, at = frames.split(data, at, 1 << 20)
        found.append(frames.decode(kind, body))
    return found


class GoldenVectors(unittest.TestCase):
    def test_frames_decode_to_their_fields_and_encode_to_their_bytes(self):
        seen = set()
        for vector in all_vectors():
            if "frame" not in vector or vector["name"] == "hello-of-version-2":
                continue
            with self.subTest(vector["name"]):
                data, fields = bytes.fromhex(vector["hex"]), Fields(vector)
                frame = frame_of(vector["frame"], fields)
                self.assertEqual(fields.left, {}, "fields that were passed over")
                kind, body, end = frames.split(data, 0, frames.GATEWAY_BODY_LIMIT)
                self.assertEqual(end, len(data))
                decoded = frames.decode(kind, body)
                self.assertEqual(decoded, frame)
                if vector.get("canonical") != "no":
                    self.assertEqual(frame.encode(), data)
                for length in range(len(data)):
                    self.assertIsNone(frames.split(data[:length], 0, frames.GATEWAY_BODY_LIMIT))
                seen.add(kind)
        self.assertEqual(seen, set(frames.KINDS), "a vector of every kind")

    def test_the_proof(self):
        found = {vector["name"]: vector for vector in vectors(VECTORS / "hello.txt")}
        proof = found["proof"]
        session = Session(proof["client_id"], proof["secret"].encode())
        session.connected(0)
        session.take_output(0)
        session.handle_bytes(bytes.fromhex(found["challenge"]["hex"]), 0)
        self.assertEqual(session.take_output(0), bytes.fromhex(proof["hex"]))

    def test_bytes_that_are_no_frame(self):
        errors = {"MALFORMED": frames.Malformed, "FRAME_TOO_LARGE": frames.FrameTooLarge}
        for vector in vectors(VECTORS / "bad.txt"):
            with self.subTest(vector["name"]):
                data, error = bytes.fromhex(vector["hex"]), vector["error"]
                limit = int(vector.get("max_body", frames.GATEWAY_BODY_LIMIT))

                def read():
                    found = frames.split(data, 0, limit)
                    return found if found is None else frames.decode(*found[:2])

                if error in errors:
                    self.assertRaises(errors[error], read)
                else:  # not whole, or of an unknown kind
                    self.assertIsNone(read())

    def test_what_a_device_answers(self):
        for vector in all_vectors():
            if "answer" not in vector or vector["from"] == "device":
                continue
            with self.subTest(vector["name"]):
                opens = vector["name"].startswith(("bad-welcome", "bad-challenge"))
                session = opened()
                if opens:
                    session = Session("lamp-1", b"secret")
                    session.connected(0)
                    session.take_output(0)
                session.handle_bytes(bytes.fromhex(vector["hex"]), 0)
                answer, _, reason = vector["answer"].partition(" ")
                got = written(session)
                if answer == "BYE":
                    self.assertEqual([(type(frame), frame.reason) for frame in got], [(frames.Bye, Reason[reason])])
                elif answer == "REFUSED":
                    refused, ack = got
                    self.assertEqual((refused.number, refused.reason, ack), (0, Reason[reason], frames.Ack(1)))
                else:
                    self.assertEqual(got, [])
                if answer != "BYE":
                    self.assertEqual(session.state, "open")


class SessionInBytes(unittest.TestCase):
    """Section 1 of the document: what the device says there is what this one says."""

    def test_the_session_of_section_1(self):
        found = {vector["name"]: bytes.fromhex(vector["hex"]) for vector in all_vectors()}
        secret = b"correct horse battery staple"
        session = Session("lamp-1", secret, keep_alive=60, max_body=512, window=4, names=8)
        session.connected(1000)
        self.assertEqual(session.take_output(1000), found["hello"])
        session.handle_bytes(found["challenge"], 1010)
        self.assertEqual(session.take_output(1010), found["proof"])
        session.handle_bytes(found["welcome"], 1020)
        join = session.join("floor3")
        self.assertEqual(session.take_output(1020), found["name-floor3"] + found["join"])
        session.handle_bytes(found["ack-2"], 1030)
        self.assertIn(Accepted(join), session.take_events())
        session.handle_bytes(found["name-floor3"] + found["name-app-1"] + found["delivery-deadline"], 1040)
        self.assertEqual(session.take_output(1040), found["ack-2"], "both names")
        (delivery,) = session.take_events()
        self.assertEqual((delivery.group, delivery.sender, delivery.payload), ("floor3", "app-1", b"on"))
        self.assertTrue(session.take(delivery, 1050))
        send = session.send(b"on", group="floor3", receipt=ReceiptMode.SUMMARY)
        self.assertEqual(session.take_output(1050), found["ack-1"] + found["send-receipt-summary"])
        session.handle_bytes(found["ack-1"] + found["receipt-summary"], 1060)
        accepted, receipt = session.take_events()
        self.assertEqual(accepted, Accepted(send))
        self.assertEqual(receipt.counts, {Status.DELIVERED: 7, Status.OFFLINE: 1})
        session.ping(1060)
        self.assertEqual(session.take_output(1060), found["ack-1"] + found["ping"])
        session.handle_bytes(found["pong"], 1070)
        session.bye()
        self.assertEqual(session.take_output(1070), found["bye-normal"])


if __name__ == "__main__":
    unittest.main()
