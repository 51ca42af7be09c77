"""A command line for the client, and its sockets (asyncio).

    python3 -m framing_client watch --as lamp-1 --group floor3
    python3 -m framing_client send --as app-1 --group floor3 --only lamp-1 --receipt each on
    python3 -m framing_client publish --as lamp-1 --retain home/lamp-1/state on
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import ssl
import sys
import time
from typing import List, Optional

from . import session as events
from .frames import ReceiptMode
from .session import Session


def milliseconds() -> int:
    return time.monotonic_ns() // 1_000_000


class Connection:
    """Runs a session over a socket: `async for event in connection`. `flush` after asking the session for something."""

    def __init__(self, session: Session, host: str, port: int, tls: Optional[ssl.SSLContext] = None):
        self.session, self.host, self.port, self.tls = session, host, port, tls

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session.connected(milliseconds())
        await self.flush()
        return self

    async def __aexit__(self, *_) -> None:
        await self.flush()
        self.writer.close()
        self.session.disconnected(milliseconds())

    async def flush(self) -> None:
        self.writer.write(self.session.take_output(milliseconds()))
        await self.writer.drain()

    async def __aiter__(self):
        reading = None
        over = False
        while True:
            for event in self.session.take_events():
                yield event
                over = over or isinstance(event, events.Ended)
            await self.flush()
            if over:
                break
            if self.session.events:
                continue
            due = self.session.next_time()
            reading = reading or asyncio.ensure_future(self.reader.read(65536))
            timeout = None if due is None else max(0, due - milliseconds()) / 1000
            done, _ = await asyncio.wait([reading], timeout=timeout)
            if done:
                data, reading = await reading, None
                if data:
                    self.session.handle_bytes(data, milliseconds())
                else:
                    yield events.Ended(True, None, "the gateway closed the connection", True)
                    break
            self.session.handle_time(milliseconds())
        if reading is not None:
            reading.cancel()


def describe(event: object) -> Optional[str]:
    if isinstance(event, events.Delivered):
        way = event.mode.name.lower() + (f" {event.group}" if event.group else "") + (" urgent" if event.urgent else "")
        return f"{event.sender} ({way}): {event.payload.decode(errors='replace')}"
    if isinstance(event, events.MessageCame):
        return f"{event.topic}{' (retained)' if event.retained else ''}: {event.payload.decode(errors='replace')}"
    if isinstance(event, events.ReceiptPart):
        counts = ", ".join(f"{count} {status.name}" for status, count in sorted(event.counts.items()))
        entries = "".join(f"\n  {client} {status.name}" for client, status in sorted(event.entries))
        return f"receipt: {counts or 'no recipients'}{entries}"
    if isinstance(event, events.RefusedRequest):
        again = f", again after {event.retry_after} ms" if event.retry_after else ""
        return f"refused: {event.reason.name}{again}: {event.text}"
    if isinstance(event, events.Ended):
        return f"ended: {event.reason.name if event.reason else 'lost'} {event.text}".rstrip()
    return repr(event) if isinstance(event, (events.Kicked, events.GatewayError)) else None


async def watch(options, session: Session) -> int:
    """Joins, subscribes, prints what comes; connects again as the document says."""
    failures = 0
    while True:
        try:
            async with Connection(session, options.host, options.port, options.tls) as connection:
                async for event in connection:
                    if isinstance(event, events.Welcomed):
                        failures = 0
                        if not event.resumed:
                            for group in options.group:
                                session.join(group)
                            for topics in options.topic:
                                session.subscribe(topics, at_least_once=True)
                    elif isinstance(event, events.Accepted):
                        if not session.sent and not session.waiting:
                            print("ready", flush=True)
                    elif isinstance(event, (events.Delivered, events.MessageCame)):
                        if session.take(event, milliseconds()):
                            print(describe(event), flush=True)
                    elif describe(event):
                        print(describe(event), file=sys.stderr, flush=True)
                    if isinstance(event, events.Ended) and not event.again:
                        return 1
        except OSError as error:
            print(error, file=sys.stderr)
        failures += 1
        await asyncio.sleep(random.uniform(0, min(60, 0.5 * 2**failures)))


async def once(options, session: Session, ask, wants_receipt: bool) -> int:
    """One request; ends when its answer, and its receipt if one is wanted, are there."""
    status, answered = 1, False
    async with Connection(session, options.host, options.port, options.tls) as connection:
        async for event in connection:
            if isinstance(event, events.Welcomed):
                ask(session)
            elif isinstance(event, (events.Delivered, events.MessageCame)):
                session.take(event, milliseconds())
            elif isinstance(event, events.Accepted):
                status, answered = 0, True
            elif isinstance(event, events.ReceiptPart):
                print(describe(event))
                wants_receipt = wants_receipt and (event.interim or event.more)
            elif isinstance(event, events.RefusedRequest):
                print(describe(event), file=sys.stderr)
                status, answered, wants_receipt = 1, True, False
            elif isinstance(event, events.Ended) and event.by_gateway:
                print(describe(event), file=sys.stderr)
            if answered and not wants_receipt:
                session.bye()
    return status


def names(text: str) -> List[str]:
    return [entry for entry in text.split(",") if entry]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="framing_client", description="A client of Bugle's compact framing.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--cafile", help="speak TLS, and trust the certificates in this file")
    parser.add_argument("--secret", help="proves who this is (or BUGLE_SECRET in the environment)")
    commands = parser.add_subparsers(dest="command", required=True)

    watcher = commands.add_parser("watch", help="print what comes")
    watcher.add_argument("--group", action="append", default=[])
    watcher.add_argument("--topic", action="append", default=[])

    sender = commands.add_parser("send", help="send a signal")
    target = sender.add_mutually_exclusive_group(required=True)
    target.add_argument("--group")
    target.add_argument("--client")
    sender.add_argument("--only", type=names)
    sender.add_argument("--except", type=names, dest="excepted")
    sender.add_argument("--ttl", type=int)
    sender.add_argument("--id")
    sender.add_argument("--receipt", choices=["none", "summary", "each"], default="none")
    for option in ("store", "echo", "urgent"):
        sender.add_argument(f"--{option}", action="store_true")
    sender.add_argument("payload")

    publisher = commands.add_parser("publish", help="publish to a plain topic")
    publisher.add_argument("--retain", action="store_true")
    publisher.add_argument("topic")
    publisher.add_argument("payload")

    for command in (watcher, sender, publisher):
        command.add_argument("--as", dest="client_id", default=f"python-{os.getpid()}")
    return parser


async def run(options) -> int:
    secret = options.secret or os.environ.get("BUGLE_SECRET")
    options.tls = ssl.create_default_context(cafile=options.cafile) if options.cafile else None
    session = Session(options.client_id, secret.encode() if secret else None, first_token=random.getrandbits(32))
    if options.command == "watch":
        return await watch(options, session)
    if options.command == "publish":
        return await once(
            options, session, lambda s: s.publish(options.topic, options.payload.encode(), retain=options.retain), False
        )
    receipt = ReceiptMode[options.receipt.upper()]
    return await once(
        options, session,
        lambda s: s.send(
            options.payload.encode(), client=options.client, group=options.group, only=options.only,
            excepted=options.excepted, ttl=options.ttl, id=options.id, receipt=receipt,
            store=options.store, echo=options.echo, urgent=options.urgent,
        ),
        receipt is not ReceiptMode.NONE,
    )  # fmt: skip


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(arguments().parse_args())))
    except KeyboardInterrupt:
        sys.exit(130)
