//! rumqttd with the configuration of a file, and otherwise as it comes: `rumqttd-peer FILE.toml`. Errors end it with 1.
#![forbid(unsafe_code)]

use std::error::Error;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: rumqttd-peer FILE.toml")?;
    let config: rumqttd::Config = toml::from_str(&fs::read_to_string(&file)?)?;
    rumqttd::Broker::new(config).start()?;
    Ok(())
}
