"""What has no vector: the clock, handles, windows, and a session that goes on over a new connection."""

import unittest

from . import frames
from .frames import Mode, NameKind, Reason, ReceiptMode, Status
from .session import Accepted, Clock, Delivered, Ended, RefusedRequest, TooLate, Unconfirmed
from .test_vectors import opened, written


def delivery(payload, deadline=None):
    return frames.Delivery(Mode.ONE, None, "app-1", payload, deadline=deadline).encode()


def welcome(**changes):
    fields = dict(resumed=False, keep_alive=0, max_body=32768, window=32, names=256, session_expiry=300, session=7,
                  received=0, clock=1000)  # fmt: skip
    return frames.Welcome(**{**fields, **changes}).encode()


class TheClock(unittest.TestCase):
    def test_the_example_of_section_10(self):
        clock = Clock()
        clock.sample(3_600_125, 5000, 5040)
        self.assertEqual(clock.latest(5200), 3_600_327)
        deadline = 3_600_625 & 0xFFFF_FFFF
        self.assertTrue(clock.is_in_time(deadline, 5498))
        self.assertFalse(clock.is_in_time(deadline, 5499))

    def test_deadlines_wrap(self):
        clock = Clock()
        clock.sample((1 << 32) - 10, 0, 0)
        self.assertTrue(clock.is_in_time(20, 0))
        self.assertFalse(clock.is_in_time(20, 40))

    def test_a_delivery_that_is_late_when_the_application_looks_is_refused(self):
        session = opened()
        session.handle_bytes(delivery(b"a", 1100) + delivery(b"b", 1000), 50)
        kept, late = session.take_events()
        self.assertEqual((type(kept), type(late)), (Delivered, TooLate))
        self.assertFalse(session.take(kept, 200))
        refusals = written(session)
        self.assertEqual([frame.reason for frame in refusals[:2]], [Reason.EXPIRED] * 2)
        self.assertEqual(refusals[2:], [frames.Ack(2)])


class Handles(unittest.TestCase):
    def test_the_least_recently_used_handle_is_given_again_and_never_within_its_frame(self):
        session = opened()
        session.announced.size = 2
        for group in ("a", "b", "a", "c"):
            session.join(group)
        got = written(session)
        named = [(frame.handle, frame.name) for frame in got if isinstance(frame, frames.Name)]
        self.assertEqual(named, [(1, "a"), (2, "b"), (2, "c")])
        session.send(b"", group="a", only=["x", "y"])
        name, send = written(session)
        self.assertEqual((name.handle, name.name), (2, "x"))
        self.assertEqual((send.target, send.only), (1, [2, "y"]))

    def test_after_a_refused_name_the_handle_is_not_used(self):
        session = opened()
        session.join("a")
        session.take_output(0)
        session.handle_bytes(frames.Refused(0, Reason.TOO_MANY).encode(), 0)
        session.handle_bytes(frames.Refused(1, Reason.UNKNOWN_HANDLE).encode() + frames.Ack(2).encode(), 0)
        (refused,) = session.take_events()
        self.assertEqual(refused.reason, Reason.UNKNOWN_HANDLE)
        session.take_output(0)
        session.join("a")
        self.assertEqual([type(frame) for frame in written(session)], [frames.Name, frames.Join])

    def test_a_name_that_cannot_be_read_empties_its_handle(self):
        session = opened()
        session.handle_bytes(frames.Name(1, NameKind.CLIENT, "app-1").encode() + b"\x10\x03\x01\x01\xff", 0)
        session.handle_bytes(b"\x22\x02\x00\x01", 0)
        self.assertEqual([frame.reason for frame in written(session) if isinstance(frame, frames.Refused)],
                         [Reason.MALFORMED, Reason.UNKNOWN_HANDLE])  # fmt: skip


class Windows(unittest.TestCase):
    def test_requests_wait_for_the_window(self):
        session = opened(announce=False)
        sent = [session.join(f"g{n}") for n in range(40)]
        self.assertEqual(len(written(session)), 32)
        session.handle_bytes(frames.Ack(3).encode(), 0)
        self.assertEqual(session.take_events(), [Accepted(number) for number in sent[:3]])
        self.assertEqual(len(written(session)), 3)

    def test_a_gateway_over_the_window_is_told(self):
        session = opened(window=2)
        session.handle_bytes(delivery(b"") * 3, 0)
        self.assertEqual(written(session)[-1].reason, Reason.WINDOW_EXCEEDED)


class Resuming(unittest.TestCase):
    def lost(self):
        """A session with two sends out, of which the first came through, and three frames of the gateway's: one taken,
        one refused, one that the application has. Nothing of what the device did last arrived."""
        session = opened(session_expiry=300)
        session.terms.session_expiry, session.terms.session = 300, 7
        self.sends = [session.send(payload, client="app-1") for payload in (b"1", b"2")]
        session.take_output(0)
        session.handle_bytes(frames.Ack(1).encode(), 0)
        session.handle_bytes(delivery(b"taken") + delivery(b"no") + delivery(b"held"), 0)
        taken, no, self.held = session.take_events()
        session.take(taken, 0)
        session.refuse(no, Reason.BUSY)
        self.last = session.take_output(0)
        session.disconnected(10)
        session.connected(20)
        (hello,) = written(session)
        self.assertEqual(hello.resume, frames.Resume(7, received=3, taken=2, acknowledged=1))
        return session

    def test_what_did_not_arrive_is_sent_again_refusals_before_any_ack(self):
        session = self.lost()
        session.take(self.held, 30)  # before it is known whether the session goes on
        session.handle_bytes(welcome(resumed=True, received=2), 40)
        send, refused, ack = written(session)
        self.assertEqual((send.payload, refused.reason, refused.number, ack), (b"2", Reason.BUSY, 1, frames.Ack(1)))
        session.handle_bytes(frames.Ack(3).encode(), 50)
        self.assertEqual(session.take_events()[1:], [Accepted(number) for number in self.sends])

    def test_a_new_session_tells_what_nobody_knows(self):
        session = self.lost()
        session.handle_bytes(welcome(session=8), 40)
        self.assertEqual(session.take_events()[:2], [Unconfirmed(number) for number in self.sends])
        session.take(self.held, 50)
        self.assertEqual(written(session), [], "what it had of the old session is nobody's affair")
        session.join("g")
        self.assertEqual([type(frame) for frame in written(session)], [frames.Name, frames.Join])

    def test_a_resume_that_lies_is_a_protocol_error(self):
        for changes in (dict(session=8), dict(received=5), dict(received=0)):
            session = self.lost()
            session.handle_bytes(welcome(**{"resumed": True, "received": 2, **changes}), 40)
            (bye,) = written(session)
            self.assertEqual(bye.reason, Reason.PROTOCOL_ERROR, changes)
        session = opened()
        session.connected(0)
        session.hello.resume = None
        session.take_output(0)
        session.handle_bytes(welcome(resumed=True), 0)
        self.assertEqual(written(session)[0].reason, Reason.PROTOCOL_ERROR)


class Endings(unittest.TestCase):
    def test_silence_is_pinged_into_and_no_answer_is_an_end(self):
        session = opened()
        session.terms.keep_alive = 60
        session.handle_time(0)
        self.assertIsInstance(written(session)[0], frames.Ping)
        self.assertEqual(session.next_time(), 10_000)
        session.handle_bytes(frames.Pong(1, 1000).encode(), 5)
        session.take_events()
        self.assertEqual(session.next_time(), 48_000)
        session.handle_time(48_000)
        self.assertIsInstance(written(session, 48_000)[0], frames.Ping)
        session.handle_time(session.next_time())
        (end,) = session.take_events()
        self.assertEqual((end.by_gateway, end.reason, end.again), (False, None, True))

    def test_one_pong_may_answer_several_pings(self):
        session = opened()
        session.ping(0)
        session.ping(0, token=True)
        session.handle_bytes(frames.Pong(1, 1000).encode(), 0)
        self.assertFalse(session.pings)

    def test_who_was_taken_over_does_not_come_again(self):
        for reason, again in ((Reason.TAKEN_OVER, False), (Reason.SHUTTING_DOWN, True)):
            session = opened()
            session.handle_bytes(frames.Bye(reason).encode() + frames.Ping().encode(), 0)
            self.assertEqual(session.take_events(), [Ended(True, reason, "", again)])
            self.assertEqual(session.take_output(0), b"")

    def test_parts_of_a_receipt_and_a_refusal(self):
        session = opened()
        send = session.send(b"", group="g", receipt=ReceiptMode.EACH)
        counts = {Status.OFFLINE: 2}
        parts = [frames.Receipt(1, more=more, counts=counts, entries=[(client, Status.OFFLINE)])
                 for client, more in (("a", True), ("b", False))]  # fmt: skip
        session.handle_bytes(b"".join(part.encode() for part in parts), 0)
        self.assertEqual([(part.request, part.more) for part in session.take_events()], [(send, True), (send, False)])
        session.handle_bytes(parts[0].encode(), 0)
        self.assertEqual(session.take_events(), [], "of nothing that is open")
        session.handle_bytes(frames.Refused(9, Reason.BUSY).encode(), 0)
        self.assertEqual(session.take_events(), [], "of a frame that there isn't")
        send = session.send(b"", group="g", receipt=ReceiptMode.EACH)
        session.handle_bytes(frames.Refused(2, Reason.RATE_LIMITED, 10, "slower").encode() + frames.Ack(3).encode(), 0)
        events = session.take_events()
        self.assertIn(RefusedRequest(send, Reason.RATE_LIMITED, 10, "slower"), events)
        self.assertNotIn(Accepted(send), events)


if __name__ == "__main__":
    unittest.main()
