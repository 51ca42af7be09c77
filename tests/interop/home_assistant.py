"""A light that Home Assistant discovers over MQTT, with both played as they talk: retained configuration, state and availability, a
birth message and wills. Home Assistant's own client is paho-mqtt, too.

    python3 home_assistant.py PORT VERSION TRANSPORT
"""

import json

from paho_client import Client, name

CONFIG = f"homeassistant/light/{name('lamp')}/config"
LAMP = f"lamps/{name('lamp')}"
STATUS = "homeassistant/status"


class HomeAssistant:
    """Learns of lights, subscribes to what they name, and commands them."""

    def __init__(self):
        self.client = Client("home-assistant", will=(STATUS, "offline", 0, False))
        self.client.subscribe("homeassistant/+/+/config", 0)
        self.client.publish(STATUS, "online", 0)
        self.lights, self.state = {}, {}

    def until(self, topic, payload):
        """Takes what comes until this does."""
        while self.state.get(topic) != payload:
            message = self.client.message()
            text = message.payload.decode()
            self.state[message.topic] = text
            if message.topic.endswith("/config"):
                light = self.lights[message.topic] = json.loads(text) if text else None
                if light:
                    self.client.subscribe(light["availability_topic"], 0)
                    self.client.subscribe(light["state_topic"], 0)

    def turn(self, state):
        self.client.publish(self.lights[CONFIG]["command_topic"], state, 0)


class Lamp:
    """A light in firmware as it is common: it says how it is to be found, and all of that is retained."""

    def __init__(self):
        self.client = Client("lamp", will=(f"{LAMP}/available", "offline", 1, True))
        self.client.subscribe(f"{LAMP}/set", 1)
        self.client.subscribe(STATUS, 1)
        self.announce()
        self.client.publish(f"{LAMP}/available", "online", 1, True)
        self.report("OFF")

    def announce(self):
        config = {
            "name": "Lamp",
            "unique_id": name("lamp"),
            "command_topic": f"{LAMP}/set",
            "state_topic": f"{LAMP}/state",
            "availability_topic": f"{LAMP}/available",
        }
        self.client.publish(CONFIG, json.dumps(config), 1, True)

    def report(self, state):
        self.client.publish(f"{LAMP}/state", state, 1, True)

    def obey(self):
        message = self.client.message()
        assert (message.topic, message.retain) == (f"{LAMP}/set", False), message.topic
        self.report(message.payload.decode())

    def hear_of_home_assistant(self):
        message = self.client.message()
        assert message.topic == STATUS, message.topic
        return message.payload.decode()


# The light was there first: Home Assistant finds it, and how it is.
lamp = Lamp()
home = HomeAssistant()
home.until(f"{LAMP}/state", "OFF")
home.until(f"{LAMP}/available", "online")
assert lamp.hear_of_home_assistant() == "online"
print("ok discovered")

for state in "ON", "OFF", "ON":
    home.turn(state)
    lamp.obey()
    home.until(f"{LAMP}/state", state)
print("ok commanded")

# Home Assistant is lost, and comes back: everything is as it was left, without a word of the light's.
home.client.cut()
assert lamp.hear_of_home_assistant() == "offline"
home = HomeAssistant()
home.until(f"{LAMP}/state", "ON")
home.until(f"{LAMP}/available", "online")
assert lamp.hear_of_home_assistant() == "online"
lamp.announce()
home.turn("OFF")
lamp.obey()
home.until(f"{LAMP}/state", "OFF")
print("ok found again")

# The light is lost: now, and for a Home Assistant that comes later.
lamp.client.cut()
home.until(f"{LAMP}/available", "offline")
home.client.leave()
home = HomeAssistant()
home.until(f"{LAMP}/available", "offline")
lamp = Lamp()
home.until(f"{LAMP}/available", "online")
print("ok unavailable")

# It is removed: its retained messages are cleared, and nobody finds it any more.
for topic in CONFIG, f"{LAMP}/state", f"{LAMP}/available":
    lamp.client.publish(topic, b"", 1, True)
home.until(CONFIG, "")
home.client.leave()
late = Client("late")
late.subscribe("homeassistant/+/+/config", 1)
late.subscribe(f"{LAMP}/#", 1)
late.publish(f"{LAMP}/end", "end")
assert late.text() == "end"
late.leave()
lamp.client.leave()
print("ok removed")
