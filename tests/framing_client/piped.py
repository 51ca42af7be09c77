"""Sessions for a program at the other end of two pipes, which has the sockets and the clock: the gateway's own tests.

Each line in is a JSON object that asks one thing of one client; each is answered by a line with the bytes to write, what
happened, and the request's number. Bytes are in hex. A fault of this program ends it, with the reason on standard error.

    {"client": 1, "do": "connect", "now": 1000, "id": "lamp-1", ...}      {"bytes": "0B12...", "events": []}
"""

from __future__ import annotations

import json
import sys
from typing import Dict, List, Optional

from . import frames, session
from .session import Session


def send_options(asked: dict) -> dict:
    return {
        "only": asked["only"], "excepted": asked["except"], "ttl": asked["ttl"], "id": asked["id"],
        "receipt": frames.ReceiptMode[asked["receipt"].upper()],
        "store": asked["store"], "echo": asked["echo"], "urgent": asked["urgent"],
    }  # fmt: skip


class Client:
    """One session, and an application that takes what comes, or leaves it lying (`acks` false)."""

    def __init__(self, asked: dict) -> None:
        will = None
        if "send" in asked:
            will = frames.Send(asked["send"]["to_client"], asked["send"]["name"], bytes.fromhex(asked["send"]["payload"]),
                               **send_options(asked["send"]))  # fmt: skip
        elif "publish" in asked:
            will = frames.Publish(asked["publish"]["topic"], bytes.fromhex(asked["publish"]["payload"]), True)
        handles = not asked["inline"]
        self.session = Session(
            asked["id"], asked["id"].encode(), keep_alive=asked["keep_alive"], max_body=asked["max_body"],
            window=asked["window"], names=64 if handles else 0, session_expiry=asked["session_expiry"], will=will,
            announce=handles,
        )  # fmt: skip
        self.acks = asked["acks"]
        self.lying: List[session.Delivered] = []
        self.receipts: Dict[int, dict] = {}
        self.session.connected(asked["now"])

    def do(self, asked: dict) -> Optional[int]:
        what, now = asked["do"], asked["now"]
        if what == "bytes":
            data = bytes.fromhex(asked["bytes"])
            if data and self.session.state == "ended":
                raise AssertionError("the gateway writes after BYE")
            self.session.handle_bytes(data, now)
        elif what == "send":
            target = {"client" if asked["to_client"] else "group": asked["name"]}
            return self.session.send(bytes.fromhex(asked["payload"]), **target, **send_options(asked))
        elif what == "publish":
            return self.session.publish(asked["topic"], bytes.fromhex(asked["payload"]), retain=asked["retain"])
        elif what == "subscribe":
            return self.session.subscribe(asked["filter"], asked["at_least_once"])
        elif what in ("join", "leave", "unsubscribe"):
            return getattr(self.session, what)(asked["name"])
        elif what == "ping":
            self.session.ping(now, token=True)
        elif what == "bye":
            self.session.bye()
        elif what == "reconnect":
            self.session.disconnected(now)
            self.session.connected(now)
        elif what == "ack_again":
            self.acks = True
            for event in self.lying:
                self.session.take(event, now)
            self.lying.clear()
        elif what != "connect":
            raise ValueError(what)

    def told(self, now: int) -> List[list]:
        """What happened, in the words of the program at the other end."""
        told = []
        for event in self.session.take_events():
            if isinstance(event, (session.Delivered, session.MessageCame)):
                if self.acks:
                    if not self.session.take(event, now):
                        raise AssertionError("late between arriving and being taken, though no time passed")
                else:
                    self.lying.append(event)
            if isinstance(event, session.Welcomed):
                told.append(["connected", event.resumed])
            elif isinstance(event, session.Accepted):
                told.append(["outcome", event.request, "ACCEPTED", 0])
            elif isinstance(event, session.RefusedRequest):
                told.append(["outcome", event.request, event.reason.name, event.retry_after])
            elif isinstance(event, session.Unconfirmed):
                told.append(["outcome", event.request, "UNCONFIRMED", 0])
            elif isinstance(event, session.Ponged):
                told.append(["pong"])
            elif isinstance(event, session.Delivered):
                mode = event.mode.name.lower()
                told.append(["delivery", event.group, event.sender, mode, event.deadline, event.payload.hex()])
            elif isinstance(event, session.MessageCame):
                told.append(["message", event.topic, event.payload.hex()])
            elif isinstance(event, session.ReceiptPart):
                self.add_receipt(event, told)
            elif isinstance(event, session.Ended):
                told.append(["end", event.reason.name if event.by_gateway else f"by itself: {event.reason} {event.text}"])
            elif isinstance(event, session.Kicked):
                told.append(["ended", event.group])
            elif isinstance(event, session.GatewayError):
                told.append(["ended", event.text.split(": ")[0]])
            elif isinstance(event, session.TooLate):
                told.append(["too late"])
            else:
                told.append(["other", repr(event)])
        return told

    def add_receipt(self, part: session.ReceiptPart, told: List[list]) -> None:
        whole = self.receipts.setdefault(part.request, {"counts": part.counts, "each": {}})
        assert whole["counts"] == part.counts, "every part has the counts of the whole"
        for client, status in part.entries:
            assert client not in whole["each"], "a recipient has one status"
            whole["each"][client] = status.name
        if not part.more:
            del self.receipts[part.request]
            counts = {status.name: count for status, count in part.counts.items()}
            told.append(["receipt", part.request, counts, whole["each"], part.duplicate, part.interim])


def main() -> None:
    clients: Dict[int, Client] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        number = asked["client"]
        if asked["do"] == "forget":
            del clients[number]
            continue
        if asked["do"] == "connect":
            clients[number] = Client(asked)
        client = clients[number]
        ticket = client.do(asked)
        told = client.told(asked["now"])
        answer = {"bytes": client.session.take_output(asked["now"]).hex(), "events": told, "ticket": ticket}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
