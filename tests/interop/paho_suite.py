"""What an MQTT broker has to do for paho-mqtt.

    python3 paho_suite.py PORT VERSION TRANSPORT CASE...

VERSION is 3 or 5, TRANSPORT tcp or websockets. A case prints `ok CASE`; the first that fails ends the program with 1.
`told_of_takeover` and `signals` are Bugle's; all others are those of any broker, and pass with Mosquitto.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from paho_client import HERE, IS_5, PATIENCE, Client, name, properties


def qos():
    """Each QoS of a publish to each of a subscription: the lower one holds, whatever the payload, in order."""
    publisher = Client("publisher")
    payloads = [b"", b"x", bytes(range(256)), b"y" * 100_000]
    for granted in 0, 1, 2:
        subscriber = Client(f"subscriber-{granted}")
        assert subscriber.subscribe(f"{HERE}/qos/#", granted).value == granted
        for sent in 0, 1, 2:
            for payload in payloads:
                publisher.publish(f"{HERE}/qos/{sent}", payload, sent)
            for payload in payloads:
                message = subscriber.message()
                assert (message.topic, message.payload) == (f"{HERE}/qos/{sent}", payload)
                assert (message.qos, message.retain, message.dup) == (min(sent, granted), False, False)
        many = [f"{number}" for number in range(200)]
        for text in many:
            publisher.client.publish(f"{HERE}/qos/many", text, granted)
        assert subscriber.texts(len(many)) == many
        for _ in many:
            publisher.wait("published")
        subscriber.leave()
    publisher.leave()


def wildcards():
    """`+` and `#`, and that a subscription ends."""
    subscriber, publisher = Client("subscriber"), Client("publisher")
    subscriber.subscribe(f"{HERE}/w/+/state")
    subscriber.subscribe(f"{HERE}/w/deep/#")
    for topic in "w/lamp/state", "w/lamp/other", "w/deep", "w/deep/er/still", "w/a/b/state", "w/fan/state":
        publisher.publish(f"{HERE}/{topic}", topic)
    assert subscriber.texts(4) == ["w/lamp/state", "w/deep", "w/deep/er/still", "w/fan/state"]
    unsubscribed = queue.SimpleQueue()
    subscriber.client.on_unsubscribe = lambda *_: unsubscribed.put(True)
    subscriber.client.unsubscribe(f"{HERE}/w/+/state")
    unsubscribed.get(timeout=PATIENCE)
    publisher.publish(f"{HERE}/w/lamp/state", "no more")
    publisher.publish(f"{HERE}/w/deep", "end")
    assert subscriber.text() == "end"
    subscriber.leave()
    publisher.leave()


def will():
    """Published when the connection is lost, not when the client leaves."""
    witness = Client("witness")
    witness.subscribe(f"{HERE}/will/#", 2)
    for level in 0, 1, 2:
        more = properties(PacketTypes.WILLMESSAGE, UserProperty=[("why", "lost")], ContentType="text/plain")
        Client("mortal", (f"{HERE}/will/{level}", "gone", level, False), more).cut()
        message = witness.message()
        assert (message.topic, message.payload, message.qos) == (f"{HERE}/will/{level}", b"gone", level)
        if IS_5:
            assert message.properties.UserProperty == [("why", "lost")]
            assert message.properties.ContentType == "text/plain"
    Client("mortal", (f"{HERE}/will/left", "never", 1, False)).leave()
    if IS_5:
        # 0x04 asks for the will although it leaves.
        mortal = Client("mortal", (f"{HERE}/will/asked", "asked for", 1, False))
        mortal.leave(reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
        assert witness.text() == "asked for"
        # A delay that a new connection cuts short.
        delayed = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=60)
        Client("mortal", (f"{HERE}/will/delayed", "never", 1, False), delayed, expiry=60).cut()
        Client("mortal", expiry=60, clean=False).leave()
        witness.publish(f"{HERE}/will/end", "end")
        assert witness.text() == "end"
    witness.leave()


def retained_will():
    """Kept for whoever asks later."""
    witness = Client("witness")
    witness.subscribe(f"{HERE}/will/kept")
    Client("mortal", (f"{HERE}/will/kept", "retained", 1, True)).cut()
    assert not witness.message().retain
    late = Client("late")
    late.subscribe(f"{HERE}/will/kept")
    message = late.message()
    assert (message.payload, message.retain) == (b"retained", True)
    late.publish(f"{HERE}/will/kept", b"", 1, True)
    late.leave()
    witness.leave()


def retained():
    """Kept for later subscribers, replaced, and cleared by an empty one."""
    publisher, present = Client("publisher"), Client("present")
    topic = f"{HERE}/retained/lamp"
    present.subscribe(f"{HERE}/retained/#", 2)
    for level in 0, 1, 2:
        publisher.publish(topic, f"at {level}", level, True)
        message = present.message()
        assert (message.payload, message.retain) == (f"at {level}".encode(), False), "no retain flag for those present"
        late = Client("late")
        late.subscribe(f"{HERE}/+/lamp", 2)
        message = late.message()
        assert (message.payload, message.retain, message.qos) == (f"at {level}".encode(), True, level)
        late.leave()
    if IS_5:
        subscriber = Client("subscriber")
        subscriber.subscribe(topic, 1, retainHandling=2)
        subscriber.subscribe(topic, 1, retainHandling=1)
        publisher.publish(topic, "for all", 1, True)
        assert subscriber.text() == "for all", "nothing came that was retained before"
        subscriber.leave()
        subscriber = Client("subscriber")
        subscriber.subscribe(topic, 1, retainHandling=1, retainAsPublished=True)
        assert subscriber.message().retain
        publisher.publish(topic, "as published", 1, True)
        assert subscriber.message().retain
        subscriber.leave()
        assert present.texts(2) == ["for all", "as published"]
    publisher.publish(topic, b"", 1, True)
    assert present.message().payload == b""
    late = Client("late")
    late.subscribe(f"{HERE}/retained/#")
    publisher.publish(f"{HERE}/retained/end", "end")
    message = late.message()
    assert (message.payload, message.retain) == (b"end", False), "what was cleared is gone"
    for client in late, publisher, present:
        client.leave()


def resume():
    """A session goes on after a cut: its subscriptions, and what came for it, in order and once."""
    publisher = Client("publisher")
    Client("sleeper").leave()  # no session of an earlier run
    sleeper = Client("sleeper", expiry=60, clean=False)
    assert not sleeper.session_present
    for level in 0, 1, 2:
        sleeper.subscribe(f"{HERE}/resume/{level}", level)
    for _ in range(2):
        sleeper.cut()
        texts = [f"{number}" for number in range(50)]
        for number, text in enumerate(texts):
            publisher.publish(f"{HERE}/resume/{1 + number % 2}", text, 2)
        sleeper = Client("sleeper", expiry=60, clean=False)
        assert sleeper.session_present
        assert sorted(sleeper.texts(len(texts)), key=int) == texts
        publisher.publish(f"{HERE}/resume/0", "awake")
        assert sleeper.text() == "awake"
    sleeper.leave()
    fresh = Client("sleeper")
    assert not fresh.session_present, "a clean start ends the session"
    publisher.publish(f"{HERE}/resume/1", "for nobody")
    fresh.subscribe(f"{HERE}/resume/end")
    publisher.publish(f"{HERE}/resume/end", "end")
    assert fresh.text() == "end"
    fresh.leave()
    publisher.leave()


def takeover():
    """A newer connection of the same id ends the older."""
    old = Client("twin")
    new = Client("twin")
    reason = old.wait("lost")
    old.client.loop_stop()
    new.leave()
    return reason


def told_of_takeover():
    """And in MQTT 5 it is told why, which Mosquitto 2.0 doesn't do."""
    assert takeover().value == 0x8E


def properties_of_5():
    """What only MQTT 5 has."""
    subscriber, publisher = Client("subscriber"), Client("publisher")
    topic = f"{HERE}/five"
    subscriber.subscribe(f"{topic}/#", 1, identifier=268_435_455, noLocal=True)
    more = {
        "UserProperty": [("colour", "red"), ("colour", "blue"), ("", "")],
        "ContentType": "text/plain",
        "ResponseTopic": "answers",
        "CorrelationData": b"\x00\xff",
        "PayloadFormatIndicator": 1,
        "MessageExpiryInterval": 100,
    }
    publisher.publish(f"{topic}/all", "all", 1, **more)
    got = subscriber.message().properties
    for key, value in more.items():
        assert getattr(got, key) == value or key == "MessageExpiryInterval", (key, getattr(got, key))
    assert 0 < got.MessageExpiryInterval <= 100
    assert got.SubscriptionIdentifier == [268_435_455]
    subscriber.publish(f"{topic}/own", "not for itself")
    # The topic once, then its alias alone.
    publisher.publish(f"{topic}/alias", "named", 1, TopicAlias=1)
    publisher.client.publish("", "by alias", 1, False, properties(PacketTypes.PUBLISH, TopicAlias=1))
    publisher.wait("published")
    assert [(message.topic, message.payload) for message in (subscriber.message(), subscriber.message())] == [
        (f"{topic}/alias", b"named"),
        (f"{topic}/alias", b"by alias"),
    ]
    # Nobody there isn't an error.
    reason, _ = publisher.publish(f"{HERE}/nobody", "x")
    assert reason.value in (0, 0x10), reason
    subscriber.leave()
    publisher.leave()


def shared():
    """A shared subscription: each message to one of them."""
    publisher = Client("publisher")
    workers = [Client(f"worker-{number}") for number in range(2)]
    for worker in workers:
        assert worker.subscribe(f"$share/crew/{HERE}/shared", 1).value == 1
        worker.subscribe(f"{HERE}/shared-end", 1)
    texts = {f"{number}" for number in range(40)}
    for text in texts:
        publisher.publish(f"{HERE}/shared", text)
    publisher.publish(f"{HERE}/shared-end", "end")
    got = [list(iter(worker.text, "end")) for worker in workers]
    assert sorted(got[0] + got[1]) == sorted(texts), got
    assert all(got), "both have work"
    for client in publisher, *workers:
        client.leave()


def signals():
    """A group, a receipt, a refusal."""
    group = name("floor")
    lamps = [Client(f"lamp-{number}") for number in range(3)]
    ids = [name(f"lamp-{number}") for number in range(3)]
    for lamp in lamps:
        assert lamp.subscribe(f"sig/g/{group}").value == 1
    app = Client("app")
    app.subscribe(f"sig/r/{name('app')}")
    for level in 1, 2:
        app.publish(f"sig/g/{group}?receipt=each&except={ids[2]}", "on", level)
        receipt = json.loads(app.text())
        assert receipt["statuses"] == {ids[0]: "DELIVERED", ids[1]: "DELIVERED"}, receipt
        for lamp in lamps[:2]:
            message = lamp.message()
            assert (message.topic, message.payload) == (f"sig/g/{group}", b"on")
            if IS_5:
                assert ("from", name("app")) in message.properties.UserProperty
                assert ("mode", "except") in message.properties.UserProperty
    app.publish(f"sig/g/{group}?only={ids[2]}", "only", 1)
    assert lamps[2].text() == "only", "it got nothing before"
    reason, more = app.publish(f"sig/g/{group}?only=", "x", 1)
    if IS_5:
        assert (reason.value, more.UserProperty) == (0x83, [("code", "NO_RECIPIENT")])
    refusal = json.loads(app.text())
    assert (refusal["type"], refusal["code"]) == ("refusal", "NO_RECIPIENT")
    # A member that is away stays one, and a signal isn't kept for it.
    away = Client("away", expiry=60, clean=False)
    away.subscribe(f"sig/g/{group}")
    away.cut()
    app.publish(f"sig/g/{group}?receipt=each&only={name('away')}", "not kept", 1)
    assert json.loads(app.text())["statuses"] == {name("away"): "OFFLINE"}
    away = Client("away", expiry=60, clean=False)
    assert away.session_present
    app.publish(f"sig/g/{group}?only={name('away')}", "back", 1)
    assert away.text() == "back"
    away.leave()
    for client in app, *lamps:
        client.leave()


for case in sys.argv[4:]:
    globals()[case]()
    print("ok", case)
