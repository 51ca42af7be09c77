#!/usr/bin/env python3
"""Switches lamps and says what became of it at each: MQTT 5 with paho-mqtt.

    python3 switch.py on floor3 [only=lamp-1,lamp-2] [except=lamp-3]

BUGLE_SERVER is the gateway, 127.0.0.1:1883 unless set. Exit codes: 0 every lamp has it, 1 refused, 2 wrong command line,
3 no connection, 4 no answer in time, 5 at least one lamp doesn't have it.
"""

import json
import os
import queue
import secrets
import sys
import time

import paho.mqtt.client as mqtt

# How long all of it may take, in seconds. The receipt comes within the ttl of two; the rest is for connecting.
PATIENCE = 4


class Ended(Exception):
    """It is over, with this exit code."""

    def __init__(self, code, words=None):
        super().__init__(words)
        self.code, self.words = code, words


def switch(server, topic, command):
    # The client id is who we are to the gateway, and receipts come to it: two programs that run at the same time
    # mustn't have the same.
    me = f"switch-{secrets.token_hex(8)}"
    events = queue.SimpleQueue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=me, protocol=mqtt.MQTTv5)
    # paho calls these from its own thread; they only hand over what happened.
    client.on_connect = lambda _c, _u, _flags, reason, _p: events.put(("connected", reason))
    client.on_disconnect = lambda _c, _u, _flags, reason, _p: events.put(("lost", reason))
    client.on_subscribe = lambda _c, _u, _mid, reasons, _p: events.put(("subscribed", reasons[0]))
    client.on_publish = lambda _c, _u, _mid, reason, properties: events.put(("published", (reason, properties)))
    client.on_message = lambda _c, _u, message: events.put(("notice", message.payload))

    host, _, port = server.rpartition(":")
    try:
        client.connect(host, int(port), keepalive=30)
    except OSError as error:
        raise Ended(3, f"no connection to the gateway: {error}; is it running (bugle serve)?") from error
    client.loop_start()
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                event, what = events.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise Ended(4, f"no answer within {PATIENCE} s") from None
            if event == "connected" and what.is_failure or event == "lost":
                raise Ended(3, f"no connection to the gateway: {what}")
            elif event == "connected":
                client.subscribe(f"sig/r/{me}", qos=1)
            elif event == "subscribed":
                if what.is_failure:
                    raise Ended(1, f"refused: {what}: no receipts for us")
                # Only now: a receipt that comes before we are subscribed is lost.
                client.publish(topic, command, qos=1)
            elif event == "published":
                reason, properties = what
                if reason.is_failure:
                    # The reason code is MQTT's; Bugle's own, which says more, is the user property "code".
                    code = dict(getattr(properties, "UserProperty", [])).get("code", str(reason))
                    raise Ended(1, f"refused: {code}: {getattr(properties, 'ReasonString', '')}")
            elif event == "notice":
                process_notice(json.loads(what))
    finally:
        client.disconnect()
        client.loop_stop()


def process_notice(notice):
    """Prints what a receipt says. With more than one send under way, give each an `id=` and look for it here."""
    if notice["type"] == "refusal":
        # With MQTT 3.1.1, whose PUBACK can't refuse, this is the only word of it.
        raise Ended(1, f"refused: {notice['code']}: {notice['reason']}")
    if notice["type"] != "receipt":
        return  # of a kind that will be known some day
    for lamp, status in notice.get("statuses", {}).items():
        print(lamp, status)
    # Long lists come in parts, and lamps for which the message is stored get a second receipt.
    if notice["part"] != notice["parts"] or not notice["final"]:
        return
    # Above 128 recipients those that have it aren't named, so the counts decide.
    counts = notice["counts"]
    print(", ".join(f"{count} {status}" for status, count in counts.items()) or "nobody is there")
    raise Ended(0 if list(counts) == ["delivered"] else 5)


def main(arguments):
    lists = arguments[2:]
    topic = "&".join([f"sig/g/{arguments[1]}?receipt=each&ttl=2000", *lists]) if len(arguments) > 1 else ""
    # No topic of a publish may hold + or #.
    if not topic or set("+#") & set(topic) or not all(each.startswith(("only=", "except=")) for each in lists):
        print("usage: switch.py COMMAND GROUP [only=ID,ID..] [except=ID,ID..]", file=sys.stderr)
        return 2
    try:
        switch(os.environ.get("BUGLE_SERVER", "127.0.0.1:1883"), topic, arguments[0])
    except Ended as ended:
        if ended.words:
            print(ended.words, file=sys.stderr)
        return ended.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
