//! Switches lamps and says what became of it at each: MQTT 3.1.1 (which has version number 4) with rumqttc.
//!
//! `cargo run -p bugle-examples --bin switch-v4 -- on floor3 [only=lamp-1,lamp-2] [except=lamp-3]`
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use bugle_examples::{Ended, Order, PATIENCE, process_notice};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(order) = Order::from_command_line() else { return Ended::Misused.report() };
    let mut options = MqttOptions::new(&order.id, &order.host, order.port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = AsyncClient::new(options, 16);
    let ended = tokio::time::timeout(PATIENCE, switch(&order, &client, &mut connection)).await;
    if matches!(ended, Ok(Ended::Reached | Ended::Missed | Ended::Refused(..))) {
        // Without a DISCONNECT the gateway would take us for lost.
        let _ = client.disconnect().await;
        while !matches!(connection.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
    }
    ended.unwrap_or(Ended::NoAnswer).report()
}

async fn switch(order: &Order, client: &AsyncClient, connection: &mut EventLoop) -> Ended {
    // The queue has room for these few requests; they leave when the connection is polled.
    if let Err(error) = client.subscribe(format!("sig/r/{}", order.id), QoS::AtLeastOnce).await {
        return Ended::Unreachable(error.to_string());
    }
    loop {
        let packet = match connection.poll().await {
            Ok(Event::Incoming(packet)) => packet,
            Ok(Event::Outgoing(_)) => continue,
            // rumqttc would connect again if it were polled again.
            Err(error) => return Ended::Unreachable(error.to_string()),
        };
        match packet {
            // Only now: a receipt that comes before we are subscribed is lost.
            Packet::SubAck(ack) => {
                if !matches!(ack.return_codes[..], [SubscribeReasonCode::Success(_)]) {
                    return Ended::Refused(
                        format!("{:?}", ack.return_codes),
                        "no receipts for us".to_owned(),
                    );
                }
                let command = order.command.clone();
                if let Err(error) = client.publish(&order.topic, QoS::AtLeastOnce, false, command).await {
                    return Ended::Unreachable(error.to_string());
                }
            }
            // A PUBACK of 3.1.1 can't refuse: the refusal comes here, like the receipt.
            Packet::Publish(notice) => {
                if let Some(ended) = process_notice(&notice.payload) {
                    return ended;
                }
            }
            _ => {}
        }
    }
}
