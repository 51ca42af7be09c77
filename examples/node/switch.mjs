// Switches lamps and says what became of it at each: MQTT 5 with MQTT.js.
//
//     npm ci && node switch.mjs on floor3 [only=lamp-1,lamp-2] [except=lamp-3]
//
// BUGLE_SERVER is the gateway, 127.0.0.1:1883 unless set. Exit codes: 0 every lamp has it, 1 refused, 2 wrong command line,
// 3 no connection, 4 no answer in time, 5 at least one lamp doesn't have it.

import { randomBytes } from "node:crypto";
import mqtt from "mqtt";

// How long all of it may take, in milliseconds. The receipt comes within the ttl of 2000; the rest is for connecting.
const PATIENCE = 4000;

const [command, group, ...lists] = process.argv.slice(2);
const topic = [`sig/g/${group}?receipt=each&ttl=2000`, ...lists].join("&");
// No topic of a publish may hold + or #.
if (!group || /[+#]/.test(topic) || !lists.every((list) => /^(only|except)=/.test(list))) {
  console.error("usage: switch.mjs COMMAND GROUP [only=ID,ID..] [except=ID,ID..]");
  process.exit(2);
}

// The client id is who we are to the gateway, and receipts come to it: two programs that run at the same time mustn't
// have the same.
const me = `switch-${randomBytes(8).toString("hex")}`;
const client = mqtt.connect(`mqtt://${process.env.BUGLE_SERVER ?? "127.0.0.1:1883"}`, {
  protocolVersion: 5,
  clientId: me,
  reconnectPeriod: 0, // one try: whoever runs this is waiting for an answer
});
setTimeout(() => end(4, `no answer within ${PATIENCE / 1000} s`), PATIENCE);
client.on("error", (error) => end(3, `no connection to the gateway: ${error.message || error.code}; is it running (bugle serve)?`));
client.on("close", () => end(3, "no connection to the gateway: it was lost"));
client.on("message", (_topic, payload) => processNotice(JSON.parse(payload)));

client.subscribe(`sig/r/${me}`, { qos: 1 }, (error) => {
  if (error) return end(1, `refused: ${error.message}: no receipts for us`);
  // Only now: a receipt that comes before we are subscribed is lost.
  client.publish(topic, command, { qos: 1 }, (error, ack) => {
    if (!error) return;
    // The reason code is MQTT's; Bugle's own, which says more, is the user property "code".
    const { userProperties, reasonString } = ack?.properties ?? {};
    end(1, `refused: ${userProperties?.code ?? error.message}: ${reasonString ?? ""}`);
  });
});

// Prints what a receipt says. With more than one send under way, give each an `id=` and look for it here.
function processNotice(notice) {
  // With MQTT 3.1.1, whose PUBACK can't refuse, this is the only word of it.
  if (notice.type === "refusal") end(1, `refused: ${notice.code}: ${notice.reason}`);
  if (notice.type !== "receipt") return; // of a kind that will be known some day
  for (const [lamp, status] of Object.entries(notice.statuses ?? {})) console.log(`${lamp} ${status}`);
  // Long lists come in parts, and lamps for which the message is stored get a second receipt.
  if (notice.part !== notice.parts || !notice.final) return;
  // Above 128 recipients those that have it aren't named, so the counts decide.
  const counts = Object.entries(notice.counts).map(([status, count]) => `${count} ${status}`);
  console.log(counts.join(", ") || "nobody is there");
  end(Object.keys(notice.counts).join() === "delivered" ? 0 : 5);
}

function end(code, words) {
  if (process.exitCode !== undefined) return; // it has ended already, and this is the connection closing
  process.exitCode = code;
  if (words) console.error(words);
  if (client.connected) client.end(false, () => process.exit());
  else process.exit();
}
