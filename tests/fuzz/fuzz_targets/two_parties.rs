//! An MQTT client that subscribes and misbehaves, one that publishes, and one that watches. The second bit of the input's
//! first byte says the stranger's version.
#![no_main]

use bugle_core::mqtt::Version;
use bugle_fuzz::mqtt_stranger::MqttStranger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let is_5 = input.first().is_some_and(|flags| flags & 2 != 0);
    let version = if is_5 { Version::V5 } else { Version::V311 };
    bugle_fuzz::parties::run(input, &mut MqttStranger::new(version));
});
