//! What a device costs that has nothing to say: an hour of it, as docs/device-sdk.md has it.

use super::*;

const PAGE: &str = include_str!("../../../../docs/device-sdk.md");
const HOUR: u64 = 3_600_000;
/// A segment's headers of IPv4 and TCP.
const HEADERS: usize = 40;

/// Pings in an hour, and bytes both ways: of frames, and with three segments each (ping, pong, and TCP's acknowledgement of it).
fn an_idle_hour(keep_alive: u16, clock_sync: u16) -> (usize, usize, usize) {
    let mut config = Config::new("lamp-1", b"secret", 1);
    (config.keep_alive, config.clock_sync) = (keep_alive, clock_sync);
    let mut script = Script::with(1024, 512, config);
    script.welcomed(Welcome { keep_alive, ..welcome() });
    script.gateway(&Frame::Pong { clock: Some((script.now as u32, script.now + script.offset)) });
    let end = script.now + HOUR;
    let (mut pings, mut bytes) = (0, 0);
    while let Some(due) = script.device.poll_deadline(script.now).filter(|due| *due < end) {
        script.now = due.max(script.now);
        let written = script.bytes();
        assert!(!written.is_empty(), "a deadline with nothing to do");
        for frame in frames(&written) {
            let Frame::Ping { token } = frame else { panic!("{frame:?}") };
            let pong = Frame::Pong { clock: token.map(|token| (token, script.now + script.offset)) };
            pings += 1;
            bytes += frame.encoded_len() + pong.encoded_len();
            script.gateway(&pong);
        }
    }
    assert_eq!(script.closed(), None);
    (pings, bytes, bytes + pings * 3 * HEADERS)
}

#[test]
fn the_page_says_what_an_idle_hour_costs() {
    for (keep_alive, clock_sync) in [(60, 60), (300, 300), (1200, 1200), (1200, 0)] {
        let (pings, bytes, on_the_wire) = an_idle_hour(keep_alive, clock_sync);
        let row = std::format!("| {keep_alive} s | {clock_sync} s | {pings} | {bytes} | {on_the_wire} |");
        assert!(PAGE.contains(&row), "docs/device-sdk.md has no row {row}");
    }
}
