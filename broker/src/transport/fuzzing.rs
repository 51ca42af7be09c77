//! Any bytes as a connection's beginning, through HTTP and a WebSocket to the first packet.

use std::sync::Arc;

use bugle_core::model::Limits;

use super::TransportSettings;
use super::greeting::{Admission, Greeting, Protocols};
use super::upgrade::Origins;
use crate::metrics::{EarlyClose, ProcessCounters};

/// How a beginning ended: not yet, with a client, or closed; and all that was said to it.
#[derive(Debug, PartialEq)]
enum End {
    Partial,
    Client(Option<String>, Vec<u8>),
    Closed(EarlyClose),
}

fn greet(input: &[u8], step: usize) -> (End, Vec<u8>) {
    let limits = Limits { max_packet: 512, ..Limits::default() };
    let counters = Arc::new(ProcessCounters::default());
    let settings = TransportSettings::new(Origins::Local, limits.max_packet, None, counters);
    let admission = Admission { in_clear: Protocols::ALL, in_tls: Protocols::IN_TLS, tls: None };
    let mut greeting = Greeting::new(Arc::new(admission), Arc::new(settings));
    let mut reply = Vec::new();
    for chunk in input.chunks(step) {
        let had = reply.len();
        match greeting.handle_bytes(chunk, &limits, &mut reply) {
            Ok(None) => {}
            Ok(Some(first)) => return (End::Client(first.client_id, first.bytes), reply),
            Err(why) => {
                assert!(reply.len() < had + 1024, "it says {} bytes", reply.len() - had);
                return (End::Closed(why), reply);
            }
        }
    }
    (End::Partial, reply)
}

/// Whatever it is, cut anywhere it comes to the same.
pub fn beginning(input: &[u8], step: usize) {
    let (whole, said) = greet(input, input.len().max(1));
    let (pieces, said_to_pieces) = greet(input, step.max(1));
    match (&whole, &pieces) {
        // What has come behind the first packet isn't the first packet's.
        (End::Client(one, more), End::Client(other, bytes)) => {
            assert_eq!(one, other);
            assert!(more.starts_with(bytes), "{more:?} {bytes:?}");
        }
        // Something wrong behind a first packet may come too late to be seen with it, and of two faults either may be the first.
        (End::Closed(_), End::Client(..) | End::Closed(_)) => {}
        _ => {
            assert_eq!(whole, pieces);
            assert_eq!(said, said_to_pieces);
        }
    }
}
