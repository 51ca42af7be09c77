//! An app on an ordinary MQTT 5 client, rumqttc: switches lamps and prints what became of it at each.
//!
//! `cargo run -p bugle-examples --bin switch -- on floor3 [only=lamp-1,lamp-2 | except=lamp-3]`

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};

const ME: &str = "switch";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_else(|| "on".to_owned());
    let group = arguments.next().unwrap_or_else(|| "floor3".to_owned());
    let list = arguments.next().map(|list| format!("&{list}")).unwrap_or_default();

    let mut options = MqttOptions::new(ME, "127.0.0.1", 1883);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 16);
    // Receipts and refusals come here.
    client.subscribe(format!("sig/r/{ME}"), QoS::AtLeastOnce).await?;
    loop {
        match events.poll().await? {
            Event::Incoming(Packet::SubAck(_)) => {
                let topic = format!("sig/g/{group}?receipt=each&ttl=2000{list}");
                client.publish(topic, QoS::AtLeastOnce, false, command.clone()).await?;
            }
            Event::Incoming(Packet::Publish(receipt)) => {
                println!("{}", String::from_utf8_lossy(&receipt.payload));
                client.disconnect().await?;
            }
            Event::Outgoing(rumqttc::Outgoing::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}
