//! The look at the first packet, by which a connection finds its shard: what it says of any bytes doesn't change when more
//! come, and the session, which reads them again in full, takes them for the same client.
#![no_main]

use std::sync::Arc;

use bugle_core::model::{Command, Identity, Instant, Limits};
use bugle_core::session::{FirstPacket, Session, SessionConfig, first_packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { max_packet: 512, ..Limits::default() };
    let whole = first_packet(input, &limits);
    let mut decided = false;
    for cut in 0..input.len().min(600) {
        match first_packet(&input[..cut], &limits) {
            FirstPacket::Partial => assert!(!decided, "it knew more from {cut} bytes less one"),
            early => {
                decided = true;
                assert_eq!(early, whole, "by {cut} of {} bytes", input.len());
            }
        }
    }
    let FirstPacket::Client { protocol, client_id } = whole else { return };
    let config = SessionConfig { prefix: "sig".into(), limits: Arc::new(limits) };
    let mut session = Session::new(protocol, Arc::new(config), Instant::from_millis(1000));
    let mut rest = input;
    let identity = match session.handle_bytes(&mut rest, Instant::from_millis(1000)) {
        Some(Command::Connect(request)) => request.identity,
        Some(other) => panic!("the first command is {other:?}"),
        // The session has said what is wrong.
        None => return assert!(session.is_closing(), "neither in nor out"),
    };
    assert_eq!(
        identity,
        client_id.map(|id| Identity::new(&id)),
        "the owner of another client has the session"
    );
});
