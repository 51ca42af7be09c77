// MQTT.js in Node: `node mqtt_js_node.mjs URL VERSION CASE...`, where VERSION is 3 or 5. The cases are in mqtt_js_suite.mjs.

import mqtt from "mqtt";
import { run } from "./mqtt_js_suite.mjs";

const [url, version, ...cases] = process.argv.slice(2);
try {
  await run(mqtt, url, Number(version), `node/${version}/${new URL(url).protocol.replace(":", "")}`, cases, console.log);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
process.exit(0);
