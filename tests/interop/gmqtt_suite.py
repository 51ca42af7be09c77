"""What an MQTT broker has to do for gmqtt, which shares no code with paho-mqtt.

    python3 gmqtt_suite.py PORT VERSION CASE...

VERSION is 3 or 5. A case prints `ok CASE`; the first that fails ends the program with 1. `signals` is Bugle's; all others are those of
any broker, and pass with Mosquitto.
"""

import asyncio
import json
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

PATIENCE = 10
PORT, VERSION = int(sys.argv[1]), int(sys.argv[2])
IS_5 = VERSION == 5
# Several runs may share a broker.
HERE = f"gmqtt/{VERSION}"


def name(part):
    return f"gmqtt-{VERSION}-{part}"


class Client:
    """A connected client, whose every step waits for the broker's answer."""

    @classmethod
    async def connect(cls, part, will=None, expiry=0):
        self = cls()
        self.messages, self.sessions, self.granted, self.lost = (asyncio.Queue() for _ in range(4))
        more = {"session_expiry_interval": expiry} if IS_5 else {}
        self.client = gmqtt.Client(name(part), clean_session=not expiry, will_message=will, **more)
        # It connects again by itself, at once.
        self.client.set_config({"reconnect_delay": 0, "reconnect_retries": 3})
        self.client.on_connect = lambda _c, flags, _rc, _p: self.sessions.put_nowait(flags & 1)
        self.client.on_disconnect = lambda _c, _packet, exc=None: self.lost.put_nowait(exc)
        self.client.on_subscribe = lambda _c, _mid, granted, _p: self.granted.put_nowait(granted[0])
        self.client.on_message = self.on_message
        version = MQTTv50 if IS_5 else MQTTv311
        await asyncio.wait_for(self.client.connect("127.0.0.1", PORT, keepalive=30, version=version), PATIENCE)
        self.session_present = await self.next(self.sessions)
        return self

    async def on_message(self, _client, topic, payload, qos, properties):
        self.messages.put_nowait((topic, payload, qos, properties))
        return 0

    async def next(self, queue):
        return await asyncio.wait_for(queue.get(), PATIENCE)

    async def subscribe(self, topic, qos=1, **more):
        self.client.subscribe(topic, qos, **more)
        return await self.next(self.granted)

    async def publish(self, topic, payload, qos=1, **more):
        self.client.publish(topic, payload, qos, **more)
        await asyncio.wait_for(self.client._persistent_storage.wait_empty(), PATIENCE)

    async def message(self):
        return await self.next(self.messages)

    async def text(self):
        return (await self.message())[1].decode()

    async def texts(self, count):
        return [await self.text() for _ in range(count)]

    async def cut(self, comes_back=False):
        """Ends the connection without a DISCONNECT."""
        if not comes_back:
            # Its stop_reconnect() would let it try once more.
            self.client._is_active = False
        self.client._connection._transport.abort()
        await self.next(self.lost)

    async def leave(self):
        await asyncio.wait_for(self.client.disconnect(), PATIENCE)


async def qos():
    """Each QoS of a publish to each of a subscription: the lower one holds, in order."""
    publisher = await Client.connect("publisher")
    for granted in 0, 1, 2:
        subscriber = await Client.connect(f"subscriber-{granted}")
        assert await subscriber.subscribe(f"{HERE}/qos/#", granted) == granted
        for sent in 0, 1, 2:
            for payload in b"", bytes(range(256)), b"y" * 100_000:
                await publisher.publish(f"{HERE}/qos/{sent}", payload, sent)
                topic, got, level, properties = await subscriber.message()
                assert (topic, got, level) == (f"{HERE}/qos/{sent}", payload, min(sent, granted))
                assert (properties["retain"], properties["dup"]) == (0, 0)
        many = [f"{number}" for number in range(200)]
        for text in many:
            publisher.client.publish(f"{HERE}/qos/many", text, granted)
        assert await subscriber.texts(len(many)) == many
        await subscriber.leave()
    await publisher.leave()


async def will():
    """Published when the connection is lost, not when the client leaves."""
    witness = await Client.connect("witness")
    await witness.subscribe(f"{HERE}/will/#", 2)
    for level in 0, 1, 2:
        more = {"user_property": ("why", "lost")} if IS_5 else {}
        mortal = await Client.connect("mortal", gmqtt.Message(f"{HERE}/will/{level}", "gone", level, **more))
        await mortal.cut()
        topic, payload, got, properties = await witness.message()
        assert (topic, payload, got) == (f"{HERE}/will/{level}", b"gone", level)
        assert not IS_5 or properties["user_property"] == [("why", "lost")], properties
    await (await Client.connect("mortal", gmqtt.Message(f"{HERE}/will/left", "never", 1))).leave()
    await witness.publish(f"{HERE}/will/end", "end")
    assert await witness.text() == "end"
    await witness.leave()


async def retained():
    """Kept for later subscribers, and cleared by an empty one."""
    publisher = await Client.connect("publisher")
    for level in 0, 1, 2:
        await publisher.publish(f"{HERE}/retained", f"at {level}", level, retain=True)
        # At QoS 0 nothing says that it is there: the next publish of the same client comes after it.
        await publisher.publish(f"{HERE}/fence", "x", 1)
        late = await Client.connect("late")
        await late.subscribe(f"{HERE}/retained", 2)
        _, payload, got, properties = await late.message()
        assert (payload, got, properties["retain"]) == (f"at {level}".encode(), level, 1)
        await late.leave()
    await publisher.publish(f"{HERE}/retained", b"", 1, retain=True)
    late = await Client.connect("late")
    await late.subscribe(f"{HERE}/retained")
    await publisher.publish(f"{HERE}/retained", "end")
    assert await late.text() == "end", "what was cleared is gone"
    await late.leave()
    await publisher.leave()


async def resume():
    """The client comes back by itself after a cut, and gets what came for it, in order and once."""
    publisher = await Client.connect("publisher")
    await (await Client.connect("sleeper")).leave()  # no session of an earlier run
    sleeper = await Client.connect("sleeper", expiry=60)
    assert not sleeper.session_present
    for level in 1, 2:
        await sleeper.subscribe(f"{HERE}/resume/{level}", level)
    for _ in range(2):
        await sleeper.cut(comes_back=True)
        texts = [f"{number}" for number in range(50)]
        for number, text in enumerate(texts):
            await publisher.publish(f"{HERE}/resume/{1 + number % 2}", text, 2)
        assert await sleeper.next(sleeper.sessions) == 1, "the session is there"
        assert sorted(await sleeper.texts(len(texts)), key=int) == texts
    await sleeper.leave()
    await publisher.leave()


async def signals():
    """A group, a receipt, a refusal."""
    group = name("floor")
    lamps = [await Client.connect(f"lamp-{number}") for number in range(3)]
    ids = [name(f"lamp-{number}") for number in range(3)]
    for lamp in lamps:
        await lamp.subscribe(f"sig/g/{group}/+", 2)
    app = await Client.connect("app")
    await app.subscribe(f"sig/r/{name('app')}")
    for level in 1, 2:
        await app.publish(f"sig/g/{group}?receipt=each&only={ids[0]},{ids[1]}", "on", level)
        receipt = json.loads(await app.text())
        assert receipt["statuses"] == {ids[0]: "DELIVERED", ids[1]: "DELIVERED"}, receipt
        for lamp in lamps[:2]:
            topic, payload, got, properties = await lamp.message()
            assert (topic, payload, got) == (f"sig/g/{group}/{name('app')}", b"on", level)
            assert not IS_5 or ("mode", "only") in properties["user_property"], properties
    await app.publish(f"sig/g/{group}?except={ids[0]},{ids[1]}", "except")
    assert await lamps[2].text() == "except", "it got nothing before"
    await app.publish(f"sig/g/{group}?only=", "x")
    assert json.loads(await app.text())["code"] == "NO_RECIPIENT"
    for client in app, *lamps:
        await client.leave()


async def main():
    for case in sys.argv[3:]:
        await globals()[case]()
        print("ok", case)


asyncio.run(main())
