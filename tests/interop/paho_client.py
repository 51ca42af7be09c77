"""A client on paho-mqtt whose every step waits for the broker's answer, for the scripts here. Their first arguments are the port, the
version of MQTT (3 or 5), and the transport (tcp or websockets)."""

import queue
import socket
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 10
PORT, VERSION, TRANSPORT = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
IS_5 = VERSION == 5
# Several runs may share a broker.
HERE = f"paho/{VERSION}/{TRANSPORT}"


def name(part):
    return f"paho-{VERSION}-{TRANSPORT}-{part}"


def properties(packet, **values):
    if not IS_5:
        return None
    made = Properties(packet)
    for key, value in values.items():
        setattr(made, key, value)
    return made


class Client:
    """A connected client, whose every step waits for the broker's answer."""

    def __init__(self, part, will=None, will_properties=None, expiry=0, clean=True):
        self.events = {kind: queue.SimpleQueue() for kind in ("connected", "subscribed", "published", "message", "lost")}
        kept = {} if IS_5 else {"clean_session": clean and not expiry}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=name(part),
            protocol=mqtt.MQTTv5 if IS_5 else mqtt.MQTTv311,
            transport=TRANSPORT,
            reconnect_on_failure=False,
            **kept,
        )
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.events["connected"].put((flags, reason))
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.events["lost"].put(reason)
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.events["subscribed"].put(reasons)
        self.client.on_publish = lambda _c, _u, _m, reason, more: self.events["published"].put((reason, more))
        self.client.on_message = lambda _c, _u, message: self.events["message"].put(message)
        if will:
            self.client.will_set(*will, properties=will_properties)
        how = {}
        if IS_5:
            how = {"clean_start": clean, "properties": properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry)}
        self.client.connect("127.0.0.1", PORT, keepalive=30, **how)
        self.client.loop_start()
        flags, reason = self.wait("connected")
        assert not reason.is_failure, reason
        self.session_present = flags.session_present

    def wait(self, kind):
        try:
            return self.events[kind].get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"{kind} didn't come") from None

    def subscribe(self, topic, qos=1, **options):
        if IS_5:
            more = {"SubscriptionIdentifier": options.pop("identifier")} if "identifier" in options else {}
            how = {"properties": properties(PacketTypes.SUBSCRIBE, **more)}
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options), **how)
        else:
            self.client.subscribe(topic, qos)
        return self.wait("subscribed")[0]

    def publish(self, topic, payload, qos=1, retain=False, **more):
        self.client.publish(topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **more))
        return self.wait("published")

    def message(self):
        return self.wait("message")

    def text(self):
        return self.message().payload.decode()

    def texts(self, count):
        return [self.text() for _ in range(count)]

    def cut(self):
        """Ends the connection without a DISCONNECT."""
        stream = self.client.socket()
        getattr(stream, "_socket", stream).shutdown(socket.SHUT_RDWR)
        self.wait("lost")
        self.client.loop_stop()

    def leave(self, **how):
        self.client.disconnect(**how)
        self.client.loop_stop()
