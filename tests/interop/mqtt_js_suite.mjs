// What an MQTT broker has to do for MQTT.js, in Node and in a browser: nothing here is of one of them alone.
//
// `run` throws where a case fails. `signals` and `toldOfTakeover` are Bugle's; all others are those of any broker, and pass with
// Mosquitto.

const PATIENCE = 10_000;

function check(isTrue, what) {
  if (!isTrue) throw new Error(typeof what === "string" ? what : JSON.stringify(what));
}

function same(seen, wanted) {
  const [left, right] = [JSON.stringify(seen), JSON.stringify(wanted)];
  check(left === right, `${left} is not ${right}`);
}

async function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${what} didn't come`)), PATIENCE)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Things that come, for whoever waits for them. */
class Queue {
  #items = [];
  #waiting = [];

  put(item) {
    const next = this.#waiting.shift();
    if (next) next(item);
    else this.#items.push(item);
  }

  next(what) {
    return soon(what, this.#items.length ? this.#items.shift() : new Promise((resolve) => this.#waiting.push(resolve)));
  }
}

/**
 * Runs cases by their names. `here` names this run in topics and client ids, since several may share a broker; `say` is told of
 * each case that passed.
 */
export async function run(mqtt, url, version, here, cases, say) {
  const suite = new Suite(mqtt, url, version, here);
  for (const name of cases) {
    try {
      await suite[name]();
    } catch (error) {
      throw new Error(`${name}: ${error.message}\n${error.stack}`);
    }
    say(`ok ${name}`);
  }
}

/** A connected client, whose every step waits for the broker's answer. */
class Client {
  messages = new Queue();
  connected = new Queue();
  disconnected = new Queue();
  closed = new Queue();

  static async connect(suite, part, options = {}) {
    const client = new Client();
    client.suite = suite;
    const { expiry = 0, ...rest } = options;
    client.client = suite.mqtt.connect(suite.url, {
      clientId: suite.id(part),
      protocolVersion: suite.is5 ? 5 : 4,
      keepalive: 30,
      reconnectPeriod: 0,
      resubscribe: false,
      ...(suite.is5 && { properties: { sessionExpiryInterval: expiry } }),
      ...rest,
    });
    client.client.on("message", (topic, payload, packet) => client.messages.put({ topic, payload, packet }));
    client.client.on("connect", (ack) => client.connected.put(ack));
    client.client.on("disconnect", (packet) => client.disconnected.put(packet));
    client.client.on("close", () => client.closed.put(true));
    client.client.on("error", (error) => client.connected.put(error));
    await client.#online();
    return client;
  }

  async #online() {
    const ack = await this.connected.next("the CONNACK");
    if (ack instanceof Error) throw ack;
    this.sessionPresent = ack.sessionPresent;
  }

  async subscribe(filter, qos = 1, options = {}) {
    const granted = await soon("the SUBACK", this.client.subscribeAsync(filter, { qos, ...options }));
    return granted[0]?.qos;
  }

  publish(topic, payload, qos = 1, options = {}) {
    return soon("the end of the publish", this.client.publishAsync(topic, payload, { qos, ...options }));
  }

  message() {
    return this.messages.next("a message");
  }

  async text() {
    return new TextDecoder().decode((await this.message()).payload);
  }

  async texts(count) {
    const texts = [];
    while (texts.length < count) texts.push(await this.text());
    return texts;
  }

  /** Ends the connection without a DISCONNECT. */
  async cut() {
    this.client.stream.destroy();
    await this.closed.next("the end of the connection");
  }

  /** The same client connects again, with what it had not got rid of. */
  async reconnect() {
    const { incomingStore, outgoingStore } = this.client;
    this.client.reconnect({ incomingStore, outgoingStore });
    await this.#online();
  }

  leave(options) {
    return soon("the end", this.client.endAsync(false, options));
  }
}

class Suite {
  constructor(mqtt, url, version, here) {
    Object.assign(this, { mqtt, url, here, is5: version === 5 });
  }

  id(part) {
    return `${this.here}-${part}`.replaceAll("/", "-");
  }

  client(part, options) {
    return Client.connect(this, part, options);
  }

  /** Each QoS of a publish to each of a subscription: the lower one holds, whatever the payload, in order. */
  async qos() {
    const publisher = await this.client("publisher");
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    const payloads = ["", "x", bytes, "y".repeat(100_000)].map((each) => (typeof each === "string" ? new TextEncoder().encode(each) : each));
    // MQTT.js wants its own Buffer, of which the browser's bundle has one; text it takes everywhere.
    const send = (payload) => (payload === bytes && globalThis.Buffer ? globalThis.Buffer.from(bytes) : new TextDecoder("latin1").decode(payload));
    for (const granted of [0, 1, 2]) {
      const subscriber = await this.client(`subscriber-${granted}`);
      same(await subscriber.subscribe(`${this.here}/qos/#`, granted), granted);
      for (const sent of [0, 1, 2]) {
        const used = payloads.filter((payload) => payload !== bytes || globalThis.Buffer);
        for (const payload of used) await publisher.publish(`${this.here}/qos/${sent}`, send(payload), sent);
        for (const payload of used) {
          const { topic, payload: got, packet } = await subscriber.message();
          same([topic, got.length, packet.qos, packet.retain], [`${this.here}/qos/${sent}`, payload.length, Math.min(sent, granted), false]);
          check(got.every((byte, index) => byte === payload[index]), "other bytes");
        }
      }
      const many = Array.from({ length: 200 }, (_, index) => `${index}`);
      const published = many.map((text) => publisher.publish(`${this.here}/qos/many`, text, granted));
      same(await subscriber.texts(many.length), many);
      await Promise.all(published);
      await subscriber.leave();
    }
    await publisher.leave();
  }

  /** `+` and `#`, and that a subscription ends. */
  async wildcards() {
    const [subscriber, publisher] = [await this.client("subscriber"), await this.client("publisher")];
    await subscriber.subscribe(`${this.here}/w/+/state`);
    await subscriber.subscribe(`${this.here}/w/deep/#`);
    for (const topic of ["w/lamp/state", "w/lamp/other", "w/deep", "w/deep/er/still", "w/a/b/state", "w/fan/state"]) {
      await publisher.publish(`${this.here}/${topic}`, topic);
    }
    same(await subscriber.texts(4), ["w/lamp/state", "w/deep", "w/deep/er/still", "w/fan/state"]);
    await soon("the UNSUBACK", subscriber.client.unsubscribeAsync(`${this.here}/w/+/state`));
    await publisher.publish(`${this.here}/w/lamp/state`, "no more");
    await publisher.publish(`${this.here}/w/deep`, "end");
    same(await subscriber.text(), "end");
    await subscriber.leave();
    await publisher.leave();
  }

  /** Published when the connection is lost, not when the client leaves. */
  async will() {
    const witness = await this.client("witness");
    await witness.subscribe(`${this.here}/will/#`, 2);
    for (const qos of [0, 1, 2]) {
      const will = { topic: `${this.here}/will/${qos}`, payload: "gone", qos, retain: false };
      if (this.is5) will.properties = { userProperties: { why: "lost" }, contentType: "text/plain" };
      await (await this.client("mortal", { will })).cut();
      const { topic, packet } = await witness.message();
      same([topic, packet.qos], [will.topic, qos]);
      if (this.is5) same([packet.properties.userProperties.why, packet.properties.contentType], ["lost", "text/plain"]);
    }
    const will = { topic: `${this.here}/will/left`, payload: "never", qos: 1, retain: false };
    await (await this.client("mortal", { will })).leave();
    if (this.is5) {
      // 0x04 asks for the will although it leaves.
      const asked = { topic: `${this.here}/will/asked`, payload: "asked for", qos: 1, retain: false };
      await (await this.client("mortal", { will: asked })).leave({ reasonCode: 4 });
      same(await witness.text(), "asked for");
      // A delay that a new connection cuts short.
      const delayed = { ...will, topic: `${this.here}/will/delayed`, properties: { willDelayInterval: 60 } };
      await (await this.client("mortal", { will: delayed, expiry: 60, clean: false })).cut();
      await (await this.client("mortal", { expiry: 0, clean: false })).leave();
    }
    await witness.publish(`${this.here}/will/end`, "end");
    same(await witness.text(), "end");
    await witness.leave();
  }

  /** Kept for later subscribers, replaced, and cleared by an empty one. */
  async retained() {
    const [publisher, present] = [await this.client("publisher"), await this.client("present")];
    const topic = `${this.here}/retained/lamp`;
    await present.subscribe(`${this.here}/retained/#`, 2);
    for (const qos of [0, 1, 2]) {
      await publisher.publish(topic, `at ${qos}`, qos, { retain: true });
      check(!(await present.message()).packet.retain, "no retain flag for those present");
      const late = await this.client("late");
      await late.subscribe(`${this.here}/+/lamp`, 2);
      const { payload, packet } = await late.message();
      same([new TextDecoder().decode(payload), packet.retain, packet.qos], [`at ${qos}`, true, qos]);
      await late.leave();
    }
    if (this.is5) {
      const subscriber = await this.client("subscriber");
      await subscriber.subscribe(topic, 1, { rh: 2, rap: true });
      await publisher.publish(topic, "as published", 1, { retain: true });
      const { payload, packet } = await subscriber.message();
      same([new TextDecoder().decode(payload), packet.retain], ["as published", true]);
      await subscriber.leave();
      await present.message();
    }
    await publisher.publish(topic, "", 1, { retain: true });
    same(await present.text(), "");
    const late = await this.client("late");
    await late.subscribe(`${this.here}/retained/#`);
    await publisher.publish(`${this.here}/retained/end`, "end");
    same(await late.text(), "end");
    for (const client of [late, publisher, present]) await client.leave();
  }

  /** A will that is kept for whoever asks later. */
  async retainedWill() {
    const witness = await this.client("witness");
    const topic = `${this.here}/will/kept`;
    await witness.subscribe(topic);
    await (await this.client("mortal", { will: { topic, payload: "retained", qos: 1, retain: true } })).cut();
    check(!(await witness.message()).packet.retain, "no retain flag for those present");
    const late = await this.client("late");
    await late.subscribe(topic);
    check((await late.message()).packet.retain, "it is retained");
    await late.publish(topic, "", 1, { retain: true });
    await late.leave();
    await witness.leave();
  }

  /** A session goes on after a cut: its subscriptions, and what came for it, in order and once. */
  async resume() {
    const publisher = await this.client("publisher");
    await (await this.client("sleeper")).leave(); // no session of an earlier run
    const sleeper = await this.client("sleeper", { clean: false, expiry: 60 });
    check(!sleeper.sessionPresent, "there is none yet");
    for (const qos of [0, 1, 2]) await sleeper.subscribe(`${this.here}/resume/${qos}`, qos);
    for (let round = 0; round < 2; round++) {
      await sleeper.cut();
      const texts = Array.from({ length: 50 }, (_, index) => `${index}`);
      for (const text of texts) await publisher.publish(`${this.here}/resume/${1 + (text % 2)}`, text, 2);
      await sleeper.reconnect();
      check(sleeper.sessionPresent, "the session is there");
      same((await sleeper.texts(texts.length)).sort((a, b) => a - b), texts);
      await publisher.publish(`${this.here}/resume/0`, "awake");
      same(await sleeper.text(), "awake");
    }
    // What it publishes while it is away goes out when it is back.
    await publisher.subscribe(`${this.here}/resume/from-sleeper`, 2);
    await sleeper.cut();
    const published = [1, 2].map((qos) => sleeper.client.publishAsync(`${this.here}/resume/from-sleeper`, `slept ${qos}`, { qos }));
    await sleeper.reconnect();
    await soon("the acknowledgements", Promise.all(published));
    same((await publisher.texts(2)).sort(), ["slept 1", "slept 2"]);
    await sleeper.leave();
    const fresh = await this.client("sleeper");
    check(!fresh.sessionPresent, "a clean start ends the session");
    await publisher.publish(`${this.here}/resume/1`, "for nobody");
    await fresh.subscribe(`${this.here}/resume/end`);
    await publisher.publish(`${this.here}/resume/end`, "end");
    same(await fresh.text(), "end");
    await fresh.leave();
    await publisher.leave();
  }

  /** A newer connection of the same id ends the older. */
  async takeover() {
    const old = await this.client("twin");
    const twin = await this.client("twin");
    await old.closed.next("the end of the older connection");
    await twin.leave();
    return old;
  }

  /** And in MQTT 5 it is told why, which Mosquitto 2.0 doesn't do. */
  async toldOfTakeover() {
    same((await (await this.takeover()).disconnected.next("the DISCONNECT")).reasonCode, 0x8e);
  }

  /** What only MQTT 5 has. */
  async propertiesOf5() {
    const [subscriber, publisher] = [await this.client("subscriber"), await this.client("publisher")];
    const topic = `${this.here}/five`;
    await subscriber.subscribe(`${topic}/#`, 1, { nl: true, properties: { subscriptionIdentifier: 268_435_455 } });
    const properties = {
      userProperties: { colour: ["red", "blue"] },
      contentType: "text/plain",
      responseTopic: "answers",
      payloadFormatIndicator: true,
      messageExpiryInterval: 100,
    };
    await publisher.publish(`${topic}/all`, "all", 1, { properties });
    const got = (await subscriber.message()).packet.properties;
    for (const key of ["userProperties", "contentType", "responseTopic", "payloadFormatIndicator"]) same(got[key], properties[key]);
    check(got.messageExpiryInterval > 0 && got.messageExpiryInterval <= 100, got);
    same(got.subscriptionIdentifier, 268_435_455);
    await subscriber.publish(`${topic}/own`, "not for itself");
    await publisher.publish(`${topic}/end`, "end");
    same(await subscriber.text(), "end");
    await subscriber.leave();
    await publisher.leave();
  }

  /** A shared subscription: each message to one of them. */
  async shared() {
    const publisher = await this.client("publisher");
    const workers = [await this.client("worker-0"), await this.client("worker-1")];
    for (const worker of workers) {
      await worker.subscribe(`$share/crew/${this.here}/shared`, 1);
      await worker.subscribe(`${this.here}/shared-end`, 1);
    }
    const texts = Array.from({ length: 40 }, (_, index) => `${index}`);
    for (const text of texts) await publisher.publish(`${this.here}/shared`, text);
    await publisher.publish(`${this.here}/shared-end`, "end");
    const got = [];
    for (const worker of workers) {
      let own = 0;
      for (let text; (text = await worker.text()) !== "end"; own++) got.push(text);
      check(own > 0, "both have work");
    }
    same(got.sort((a, b) => a - b), texts);
    for (const client of [publisher, ...workers]) await client.leave();
  }

  /** A group, a receipt, a refusal. */
  async signals() {
    const group = this.id("floor");
    const lamps = [];
    for (const number of [0, 1, 2]) {
      lamps.push(await this.client(`lamp-${number}`));
      await lamps[number].subscribe(`sig/g/${group}`);
    }
    const ids = [0, 1, 2].map((number) => this.id(`lamp-${number}`));
    const app = await this.client("app");
    await app.subscribe(`sig/r/${this.id("app")}`);
    for (const qos of [1, 2]) {
      await app.publish(`sig/g/${group}?receipt=each&except=${ids[2]}`, "on", qos);
      const receipt = JSON.parse(await app.text());
      same(receipt.statuses, { [ids[0]]: "DELIVERED", [ids[1]]: "DELIVERED" });
      for (const lamp of lamps.slice(0, 2)) {
        const { topic, packet } = await lamp.message();
        same(topic, `sig/g/${group}`);
        if (this.is5) same([packet.properties.userProperties.from, packet.properties.userProperties.mode], [this.id("app"), "except"]);
      }
    }
    await app.publish(`sig/g/${group}?only=${ids[2]}`, "only");
    same(await lamps[2].text(), "only");
    const refused = await app.publish(`sig/g/${group}?only=`, "x").then(() => 0, (error) => error.code);
    same(refused, this.is5 ? 0x83 : 0);
    const refusal = JSON.parse(await app.text());
    same([refusal.type, refusal.code], ["refusal", "NO_RECIPIENT"]);
    for (const client of [app, ...lamps]) await client.leave();
  }
}
