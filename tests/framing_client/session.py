"""The device's end of a session, after docs/protocol.md: bytes and times go in, bytes and events come out.

Owns the opening, numbers, acknowledgements, windows, handles, the estimate of the gateway's clock, and resume. It knows no
socket and no clock: `now` is the device's own time in whole milliseconds, from any beginning.

    session = Session("lamp-1", secret=b"...")
    session.connected(now)                  # a connection stands; then, for as long as it does:
    session.handle_bytes(data, now)         # what came
    session.handle_time(now)                # at session.next_time()
    session.take_output(now)                # what to write
    session.take_events()                   # what happened
    session.disconnected(now)               # the connection is gone
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Callable, Deque, Dict, List, Optional, Tuple, Union

from . import frames
from .frames import Mode, NameKind, Reason, Reference, Status

SAMPLE_EVERY = 60_000
NO_ANSWER = 10_000
NEVER_AGAIN = {Reason.TAKEN_OVER, Reason.KICKED, Reason.BANNED, Reason.NOT_AUTHORIZED, Reason.NOT_AUTHENTICATED,
               Reason.UNSUPPORTED_VERSION, Reason.BAD_NAME, Reason.BAD_OPTION, Reason.MALFORMED}  # fmt: skip


# -- Events ---------------------------------------------------------------------------------------------------------


@dataclass
class Welcomed:
    """A session stands. After one that isn't resumed, everything has to be joined and subscribed anew."""

    resumed: bool
    terms: frames.Welcome


@dataclass
class Accepted:
    request: int


@dataclass
class RefusedRequest:
    request: int
    reason: Reason
    retry_after: int
    text: str


@dataclass
class Unconfirmed:
    """The session ended before the answer; nobody knows what became of the request."""

    request: int


@dataclass
class ReceiptPart:
    request: int
    interim: bool
    more: bool
    duplicate: bool
    counts: Dict[Status, int]
    entries: List[Tuple[str, Status]]


@dataclass
class Delivered:
    """A signal. The application answers with `take` or `refuse`."""

    mode: Mode
    group: Optional[str]
    sender: str
    payload: bytes
    urgent: bool
    deadline: Optional[int]
    arrival: "Arrival" = field(repr=False, compare=False, default=None)


@dataclass
class MessageCame:
    topic: str
    payload: bytes
    at_least_once: bool
    retained: bool
    arrival: "Arrival" = field(repr=False, compare=False, default=None)


@dataclass
class TooLate:
    """A signal was dropped since it wasn't surely in time."""

    sender: str


@dataclass
class Ponged:
    token: Optional[int]


@dataclass
class Kicked:
    group: str


@dataclass
class GatewayError:
    reason: Reason
    text: str


@dataclass
class Ended:
    """The connection is over: close it. `by_gateway` tells whose BYE it was; `again` whether to reconnect (with back-off)."""

    by_gateway: bool
    reason: Optional[Reason]
    text: str
    again: bool


# -- Parts ----------------------------------------------------------------------------------------------------------


class Clock:
    """What the gateway's clock can be at most (section 10)."""

    def __init__(self) -> None:
        self.samples: List[Tuple[int, int, int]] = []  # (clock, asked at, answered at)

    def sample(self, clock: int, asked: int, answered: int) -> None:
        self.samples.append((clock, asked, answered))
        self.samples.sort(key=lambda sample: self.bound(sample, answered))
        del self.samples[8:]

    @staticmethod
    def bound(sample: Tuple[int, int, int], now: int) -> int:
        clock, asked, _ = sample
        drift = -(-(now - asked) // 5000)
        return clock + (now - asked) + drift + 1

    def latest(self, now: int) -> int:
        return min(self.bound(sample, now) for sample in self.samples)

    def is_in_time(self, deadline: int, now: int) -> bool:
        return bool(self.samples) and (deadline - self.latest(now)) & 0xFFFF_FFFF < 1 << 31


@dataclass
class Arrival:
    """A numbered frame of the gateway's, until it is acknowledged."""

    number: int
    takes_window: bool
    done: bool = False


@dataclass
class Sent:
    """A numbered frame of ours, until it is acknowledged."""

    number: int
    data: bytes
    takes_window: bool
    request: Optional[int] = None
    refused: bool = False
    announced: Optional[Tuple[int, NameKind, str]] = None


class Announced:
    """Our handles: which names the gateway's table holds. The least recently used makes room."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.by_name: "OrderedDict[Tuple[NameKind, str], int]" = OrderedDict()

    def find(self, kind: NameKind, name: str) -> Optional[int]:
        if (kind, name) in self.by_name:
            self.by_name.move_to_end((kind, name))
        return self.by_name.get((kind, name))

    def add(self, kind: NameKind, name: str, protected: set) -> Optional[int]:
        """A handle to announce; None if all are needed for the frame at hand."""
        if len(self.by_name) < self.size:
            handle = next(h for h in range(1, self.size + 1) if h not in self.by_name.values())
        else:
            victim = next((key for key in self.by_name if key not in protected), None)
            if victim is None:
                return None
            handle = self.by_name.pop(victim)
        self.by_name[kind, name] = handle
        return handle

    def forget(self, handle: int, kind: NameKind, name: str) -> None:
        if self.by_name.get((kind, name)) == handle:
            del self.by_name[kind, name]


Names = Callable[[NameKind, str], Reference]


@dataclass
class Request:
    """What the application wants; becomes a frame when the window lets it."""

    number: int
    build: Callable[[Names], frames.Frame]
    wants_receipt: bool = False


# -- The session ----------------------------------------------------------------------------------------------------


class Session:
    def __init__(
        self,
        client_id: str,
        secret: Optional[bytes] = None,
        *,
        keep_alive: int = 60,
        max_body: int = frames.GATEWAY_BODY_LIMIT,
        window: int = 32,
        names: int = 64,
        session_expiry: int = 0,
        will: Optional[Union[frames.Send, frames.Publish]] = None,
        announce: bool = True,
        first_token: int = 0,
    ) -> None:
        self.hello = frames.Hello(client_id, keep_alive, max_body, window, names, session_expiry, None, will)
        self.secret = secret
        self.announce = announce
        self.token = first_token
        self.requests_made = 0
        self.waiting: Deque[Request] = deque()
        self.events: List[object] = []
        self.terms: Optional[frames.Welcome] = None  # of the session, also between its connections
        self.state = "disconnected"  # opening, challenged, open, ended
        self.forget_session()
        self.reset_connection(0)

    def forget_session(self) -> None:
        self.terms = None
        self.sent_count = 0  # numbered frames of ours, from the session's beginning
        self.acknowledged = 0  # of these
        self.sent: Deque[Sent] = deque()
        self.received = 0  # numbered frames of the gateway's
        self.taken = 0  # of these, acknowledged by us
        self.arrived: Deque[Arrival] = deque()
        self.names_heard: Dict[int, Tuple[NameKind, str]] = {}
        self.announced = Announced(0)
        self.receipts: Dict[int, int] = {}  # number of a SEND -> request
        self.clock = Clock()

    def reset_connection(self, now: int) -> None:
        self.input = bytearray()
        self.output = bytearray()
        self.asked_at = now  # HELLO or PROOF
        self.heard_at = self.wrote_at = now
        self.pings: Deque[Tuple[Optional[int], int]] = deque()  # token and time of those unanswered
        self.sample_at: Optional[int] = None

    # -- What the driver calls --

    def connected(self, now: int) -> None:
        self.reset_connection(now)
        self.hello.resume = None
        if self.terms is not None:
            self.taken += self.pop_done()
            self.hello.resume = frames.Resume(
                self.terms.session, self.received & 0xFFFF_FFFF, self.taken & 0xFFFF_FFFF, self.acknowledged & 0xFFFF_FFFF
            )
        self.state = "opening"
        self.write(self.hello)

    def handle_bytes(self, data: bytes, now: int) -> None:
        if self.state in ("ended", "disconnected"):
            return
        self.heard_at = now
        self.input += data
        at = 0
        try:
            while self.state != "ended":
                found = frames.split(self.input, at, self.hello.max_body)
                if found is None:
                    break
                kind, body, at = found
                self.handle_frame(kind, body, now)
        except frames.FrameTooLarge as error:
            self.end(Reason.FRAME_TOO_LARGE, str(error))
        del self.input[:at]
        self.pump()

    def handle_time(self, now: int) -> None:
        if self.state in ("opening", "challenged") and now - self.asked_at >= NO_ANSWER:
            self.lost("no answer to HELLO or PROOF")
        if self.state != "open":
            return
        if self.pings and now - self.pings[0][1] >= NO_ANSWER:
            self.lost("no answer to PING")
        elif self.sample_at is not None and now >= self.sample_at:
            self.sample_at = now + SAMPLE_EVERY
            self.ping(now, token=True)
        elif self.terms.keep_alive and now - self.wrote_at >= self.terms.keep_alive * 800:
            self.ping(now)

    def next_time(self) -> Optional[int]:
        if self.state in ("opening", "challenged"):
            return self.asked_at + NO_ANSWER
        if self.state != "open":
            return None
        times = [self.sample_at, self.pings[0][1] + NO_ANSWER if self.pings else None]
        times.append(self.wrote_at + self.terms.keep_alive * 800 if self.terms.keep_alive else None)
        return min((time for time in times if time is not None), default=None)

    def take_output(self, now: int) -> bytes:
        if self.output:
            self.wrote_at = now
        out, self.output = bytes(self.output), bytearray()
        return out

    def take_events(self) -> List[object]:
        events, self.events = self.events, []
        return events

    def disconnected(self, now: int) -> None:
        """The connection is gone. Without a session expiry, so is the session."""
        self.state = "disconnected"
        if self.terms is not None and self.terms.session_expiry == 0:
            self.lose_session()

    def next_sample(self, now: int) -> None:
        """Asks for the gateway's clock at `now`."""
        self.sample_at = now

    # -- What the application calls; each returns the request's own number --

    def join(self, group: str) -> int:
        return self.request(lambda name: frames.Join(name(NameKind.GROUP, group)))

    def leave(self, group: str) -> int:
        return self.request(lambda name: frames.Leave(name(NameKind.GROUP, group)))

    def subscribe(self, topics: str, at_least_once: bool = False) -> int:
        return self.request(lambda name: frames.Subscribe(topics, at_least_once))

    def unsubscribe(self, topics: str) -> int:
        return self.request(lambda name: frames.Unsubscribe(topics))

    def publish(self, topic: str, payload: bytes, at_least_once: bool = True, retain: bool = False) -> int:
        return self.request(lambda name: frames.Publish(name(NameKind.TOPIC, topic), payload, at_least_once, retain))

    def send(
        self,
        payload: bytes,
        *,
        client: Optional[str] = None,
        group: Optional[str] = None,
        only: Optional[List[str]] = None,
        excepted: Optional[List[str]] = None,
        ttl: Optional[int] = None,
        id: Optional[str] = None,
        receipt: frames.ReceiptMode = frames.ReceiptMode.NONE,
        store: bool = False,
        echo: bool = False,
        urgent: bool = False,
    ) -> int:
        def listed(name: Names, names: Optional[List[str]]) -> Optional[List[Reference]]:
            return None if names is None else [name(NameKind.CLIENT, entry) for entry in names]

        def build(name: Names) -> frames.Send:
            target = name(NameKind.GROUP, group) if client is None else name(NameKind.CLIENT, client)
            only_list, except_list = listed(name, only), listed(name, excepted)
            return frames.Send(
                client is not None, target, payload, only_list, except_list, ttl, id, receipt, store, echo, urgent
            )

        return self.request(build, receipt is not frames.ReceiptMode.NONE)

    def take(self, event: Union[Delivered, MessageCame], now: int) -> bool:
        """The application takes a signal or message. False: it is past its deadline and must not be acted on."""
        if event.arrival.done:
            return False
        deadline = getattr(event, "deadline", None)
        if deadline is not None and not self.clock.is_in_time(deadline, now):
            self.refuse(event, Reason.EXPIRED)
            return False
        event.arrival.done = True
        self.pump()
        return True

    def refuse(self, event: Union[Delivered, MessageCame], reason: Reason, text: str = "") -> None:
        if not event.arrival.done:
            self.refuse_frame(event.arrival, reason, text)
            self.pump()

    def ping(self, now: int, token: bool = False) -> None:
        if self.state == "open":
            self.token = (self.token + token) & 0xFFFF_FFFF
            self.pings.append((self.token if token else None, now))
            self.write(frames.Ping(self.token if token else None))

    def bye(self) -> None:
        """Leaves on purpose; the will is not carried out."""
        if self.state == "open":
            self.end(Reason.NORMAL, "")

    # -- What we send --

    def write(self, frame: frames.Frame) -> None:
        self.output += frame.encode()

    def write_numbered(self, frame: frames.Frame, **known) -> None:
        data = frame.encode()
        self.sent.append(Sent(self.sent_count, data, frames.takes_window(frame.kind), **known))
        self.sent_count += 1
        if self.state == "open":
            self.output += data  # else it goes out when the session is resumed

    def request(self, build: Callable[[Names], frames.Frame], wants_receipt: bool = False) -> int:
        self.requests_made += 1
        self.waiting.append(Request(self.requests_made, build, wants_receipt))
        self.pump()
        return self.requests_made

    def pump(self) -> None:
        """Writes what may be written now: acknowledgements, and requests as far as the window lets them."""
        if self.state != "open":
            return
        done = self.pop_done()
        if done:
            self.taken += done
            self.write(frames.Ack(done))
        while self.waiting and sum(sent.takes_window for sent in self.sent) < self.terms.window:
            request = self.waiting.popleft()
            frame = self.build(request)
            if len(frame.body()) > self.terms.max_body:
                text = f"larger than the {self.terms.max_body} bytes that the gateway takes"
                self.events.append(RefusedRequest(request.number, Reason.TOO_LARGE, 0, text))
                continue
            if request.wants_receipt:
                self.receipts[self.sent_count] = request.number
            self.write_numbered(frame, request=request.number)

    def pop_done(self) -> int:
        done = 0
        while self.arrived and self.arrived[0].done:
            self.arrived.popleft()
            done += 1
        return done

    def build(self, request: Request) -> frames.Frame:
        """The frame, with the names that it needs announced before it."""
        used = set()

        def name(kind: NameKind, text: str) -> Reference:
            used.add((kind, text))
            handle = self.announced.find(kind, text)
            if handle is None and self.announce and frames.is_good(kind, text):
                handle = self.announced.add(kind, text, used)
                if handle is not None:
                    self.write_numbered(frames.Name(handle, kind, text), announced=(handle, kind, text))
            return text if handle is None else handle

        return request.build(name)

    def refuse_frame(self, arrival: Arrival, reason: Reason, text: str) -> None:
        self.write_numbered(frames.Refused(arrival.number & 0xFFFF, reason, 0, text))
        arrival.done = True

    def end(self, reason: Reason, text: str) -> None:
        self.write(frames.Bye(reason, text))
        self.state = "ended"
        self.events.append(Ended(False, reason, text, reason is not Reason.NORMAL))

    def lost(self, text: str) -> None:
        self.state = "ended"
        self.events.append(Ended(False, None, text, True))

    def lose_session(self) -> None:
        for sent in self.sent:
            if sent.request is not None and not sent.refused:
                self.events.append(Unconfirmed(sent.request))
        for arrival in self.arrived:
            arrival.done = True
        self.forget_session()

    # -- What the gateway sends --

    def handle_frame(self, kind: int, body: bytes, now: int) -> None:
        if self.state != "open":
            return self.handle_opening(kind, body, now)
        arrival = None
        if frames.is_numbered(kind):
            arrival = Arrival(self.received, frames.takes_window(kind))
            self.received += 1
            self.arrived.append(arrival)
            if arrival.takes_window and sum(other.takes_window for other in self.arrived) > self.hello.window:
                return self.end(Reason.WINDOW_EXCEEDED, f"more than {self.hello.window} unacknowledged frames")
        try:
            frame = frames.decode(kind, body)
        except frames.Malformed as error:
            if kind == frames.Name.kind:
                self.names_heard.pop(frames.announced_handle(body), None)
            if arrival is None or kind == frames.Refused.kind:
                return self.end(Reason.MALFORMED, str(error))
            return self.refuse_frame(arrival, Reason.MALFORMED, str(error))
        if arrival is None:
            self.handle_unnumbered(kind, frame, now)
        else:
            self.handle_numbered(arrival, frame, now)

    def handle_opening(self, kind: int, body: bytes, now: int) -> None:
        try:
            frame = frames.decode(kind, body)
        except frames.Malformed as error:
            return self.end(Reason.MALFORMED, str(error))
        if isinstance(frame, frames.Bye):
            self.handle_bye(frame)
        elif isinstance(frame, frames.Challenge) and self.state == "opening":
            if self.secret is None:
                self.end(Reason.NOT_AUTHENTICATED, "a proof is wanted, and there is no secret")
                return
            message = b"bugle-device-1" + frame.nonce + self.hello.client_id.encode()
            self.write(frames.Proof(hmac.new(self.secret, message, hashlib.sha256).digest()))
            self.state = "challenged"
            self.asked_at = now
        elif isinstance(frame, frames.Welcome):
            self.handle_welcome(frame, now)
        elif kind < 0x80:
            self.end(Reason.PROTOCOL_ERROR, f"a frame of kind {kind:02X} before WELCOME")

    def handle_welcome(self, welcome: frames.Welcome, now: int) -> None:
        if welcome.version != 1:
            return self.end(Reason.UNSUPPORTED_VERSION, "this is a client of version 1")
        if welcome.resumed:
            again = (welcome.received - self.acknowledged) & 0xFFFF_FFFF
            if self.hello.resume is None or welcome.session != self.terms.session or again > len(self.sent):
                return self.end(Reason.PROTOCOL_ERROR, "a session is resumed that there isn't")
            self.terms = welcome
        else:
            self.lose_session()
            self.terms = welcome
        self.announced.size = welcome.names
        self.clock.sample(welcome.clock, self.asked_at, now)
        self.state = "open"
        self.sample_at = now
        if welcome.resumed:
            for sent in list(self.sent)[again:]:
                self.output += sent.data
        self.events.append(Welcomed(welcome.resumed, welcome))

    def handle_bye(self, frame: frames.Bye) -> None:
        self.state = "ended"
        self.events.append(Ended(True, frame.reason, frame.text, frame.reason not in NEVER_AGAIN))

    def handle_unnumbered(self, kind: int, frame: Optional[frames.Frame], now: int) -> None:
        if isinstance(frame, frames.Ping):
            self.write(frames.Pong(frame.token))
        elif isinstance(frame, frames.Pong):
            if any(token == frame.token for token, _ in self.pings):
                token, asked = self.pings.popleft()
                while token != frame.token:  # one PONG may answer several
                    token, asked = self.pings.popleft()
                self.events.append(Ponged(frame.token))
                if frame.token is not None:
                    self.clock.sample(frame.clock, asked, now)
        elif isinstance(frame, frames.Ack):
            self.handle_ack(frame.frames)
        elif isinstance(frame, frames.Bye):
            self.handle_bye(frame)
        elif isinstance(frame, frames.Error):
            kicked = frame.reason is Reason.KICKED
            self.events.append(Kicked(frame.text) if kicked else GatewayError(frame.reason, frame.text))
        elif kind < 0x80:
            self.end(Reason.PROTOCOL_ERROR, f"a frame of kind {kind:02X} that doesn't belong here")

    def handle_ack(self, count: int) -> None:
        if count > len(self.sent):
            return self.end(Reason.PROTOCOL_ERROR, f"an ACK of {count} where {len(self.sent)} are unacknowledged")
        for _ in range(count):
            sent = self.sent.popleft()
            self.acknowledged += 1
            if sent.request is not None and not sent.refused:
                self.events.append(Accepted(sent.request))

    def handle_numbered(self, arrival: Arrival, frame: Optional[frames.Frame], now: int) -> None:
        if isinstance(frame, frames.Name):
            self.handle_name(arrival, frame)
        elif isinstance(frame, frames.Refused):
            arrival.done = True
            self.handle_refused(frame)
        elif isinstance(frame, frames.Receipt):
            self.handle_receipt(arrival, frame)
        elif isinstance(frame, frames.Delivery):
            self.handle_delivery(arrival, frame, now)
        elif isinstance(frame, frames.Message):
            topic = self.resolve(arrival, NameKind.TOPIC, frame.topic)
            if topic is not None:
                event = MessageCame(topic, frame.payload, frame.at_least_once, frame.retained, arrival)
                self.events.append(event)
        else:
            self.refuse_frame(arrival, Reason.UNSUPPORTED, "")

    def handle_name(self, arrival: Arrival, frame: frames.Name) -> None:
        self.names_heard.pop(frame.handle, None)
        if not 1 <= frame.handle <= self.hello.names:
            self.refuse_frame(arrival, Reason.TOO_MANY, f"{self.hello.names} handles")
        elif not frames.is_good(frame.names, frame.name):
            reason = Reason.BAD_TOPIC if frame.names is NameKind.TOPIC else Reason.BAD_NAME
            self.refuse_frame(arrival, reason, frame.name)
        else:
            self.names_heard[frame.handle] = (frame.names, frame.name)
            arrival.done = True

    def resolve(self, arrival: Arrival, kind: NameKind, name: Reference) -> Optional[str]:
        """The name itself. None: the frame is refused."""
        if isinstance(name, int):
            heard = self.names_heard.get(name)
            if heard is None or heard[0] is not kind:
                self.refuse_frame(arrival, Reason.UNKNOWN_HANDLE, f"handle {name}")
                return None
            return heard[1]
        if not frames.is_good(kind, name):
            self.refuse_frame(arrival, Reason.BAD_TOPIC if kind is NameKind.TOPIC else Reason.BAD_NAME, name)
            return None
        return name

    def full_number(self, low: int) -> int:
        """The latest number of ours with these low 16 bits."""
        last = self.sent_count - 1
        return last - ((last - low) & 0xFFFF)

    def handle_refused(self, frame: frames.Refused) -> None:
        number = self.full_number(frame.number)
        sent = next((sent for sent in self.sent if sent.number == number), None)
        if sent is None or sent.refused:
            return
        sent.refused = True
        self.receipts.pop(number, None)
        if sent.announced is not None:
            self.announced.forget(*sent.announced)
        if sent.request is not None:
            self.events.append(RefusedRequest(sent.request, frame.reason, frame.retry_after, frame.text))

    def handle_receipt(self, arrival: Arrival, frame: frames.Receipt) -> None:
        entries = []
        for client, status in frame.entries:
            name = self.resolve(arrival, NameKind.CLIENT, client)
            if name is None:
                return
            entries.append((name, status))
        arrival.done = True
        number = self.full_number(frame.number)
        request = self.receipts.get(number)
        if request is None:
            return
        if not frame.interim and not frame.more:
            del self.receipts[number]
        self.events.append(
            ReceiptPart(request, frame.interim, frame.more, frame.duplicate, frame.counts, entries)
        )

    def handle_delivery(self, arrival: Arrival, frame: frames.Delivery, now: int) -> None:
        group = None
        if frame.group is not None:
            group = self.resolve(arrival, NameKind.GROUP, frame.group)
            if group is None:
                return
        sender = self.resolve(arrival, NameKind.CLIENT, frame.sender)
        if sender is None:
            return
        if frame.deadline is not None and not self.clock.is_in_time(frame.deadline, now):
            self.refuse_frame(arrival, Reason.EXPIRED, "")
            self.events.append(TooLate(sender))
            return
        self.events.append(
            Delivered(frame.mode, group, sender, frame.payload, frame.urgent, frame.deadline, arrival)
        )
