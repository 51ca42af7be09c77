//! The outbox in flash, whose power is cut at each word written and each page erased: against a gateway of a few lines.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bugle_device::flash_outbox::{FlashOutbox, Next, OutboxError};
use bugle_device::protocol::{Frame, Kind, Welcome, split};
use bugle_device::*;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_adapters::tokio_1::FromTokio;
use embedded_storage_async::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PAGE: usize = 256;
const PAGES: usize = 5;
const RANGE: std::ops::Range<u32> = 0..(PAGE * PAGES) as u32;

/// A NOR flash: erased bytes are 0xFF, and a write only clears bits. Its power goes after some words and erasures: before,
/// in the middle of, or just after one.
struct Flash {
    bytes: Vec<u8>,
    /// Operations until then.
    power: usize,
    is_off: bool,
    /// How much of the last one is done, in halves.
    halves: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PowerCut;

impl NorFlashError for PowerCut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Flash {
    fn erased() -> Self {
        Self { bytes: vec![0xFF; PAGE * PAGES], power: usize::MAX, is_off: false, halves: 0 }
    }

    fn restore(&mut self, power: usize) {
        (self.power, self.is_off) = (power, false);
    }

    /// How much of an operation on so many bytes is done.
    fn spend(&mut self, length: usize) -> (usize, Result<(), PowerCut>) {
        if self.is_off {
            return (0, Err(PowerCut));
        }
        self.is_off = self.power == 0;
        self.power = self.power.saturating_sub(1);
        if self.is_off { (length * self.halves / 2, Err(PowerCut)) } else { (length, Ok(())) }
    }
}

impl ErrorType for Flash {
    type Error = PowerCut;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 4;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerCut> {
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        if self.is_off { Err(PowerCut) } else { Ok(()) }
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerCut> {
        for page in (from as usize..to as usize).step_by(PAGE) {
            let (length, result) = self.spend(PAGE);
            self.bytes[page..page + length].fill(0xFF);
            result?;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerCut> {
        for (word, at) in bytes.chunks(4).zip((offset as usize..).step_by(4)) {
            let (length, result) = self.spend(4);
            for (old, new) in self.bytes[at..].iter_mut().zip(&word[..length]) {
                *old &= new;
            }
            result?;
        }
        Ok(())
    }
}

impl MultiwriteNorFlash for Flash {}

struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        tokio::time::sleep(Duration::from_nanos(nanoseconds.into())).await;
    }
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// A gateway that takes everything, notes it, and acknowledges all signals but those in `unanswered`.
async fn gateway(mut stream: DuplexStream, came: Rc<RefCell<Vec<String>>>, unanswered: &str) {
    let mut input = Vec::new();
    loop {
        let Some(raw) = split(&input, usize::MAX).unwrap() else {
            let mut chunk = [0; 1000];
            match stream.read(&mut chunk).await {
                Ok(length @ 1..) => input.extend_from_slice(&chunk[..length]),
                _ => return,
            }
            continue;
        };
        let kind = raw.kind;
        let answer = match raw.decode().unwrap() {
            Frame::Hello(_) => Some(Frame::Challenge { nonce: &[3; 32] }),
            Frame::Proof { .. } => Some(Frame::Welcome(Welcome {
                version: protocol::VERSION,
                resumed: false,
                keep_alive: 30,
                max_body: 9000,
                window: 4,
                names: 8,
                session_expiry: 0,
                session: 1,
                received: 0,
                clock: 5_000,
            })),
            Frame::Ping { token: Some(token) } => Some(Frame::Pong { clock: Some((token, 5_000)) }),
            Frame::Send(send) => {
                let text = String::from_utf8(send.payload.to_vec()).unwrap();
                came.borrow_mut().push(text.clone());
                if text == unanswered {
                    // The connection ends without a word.
                    return;
                }
                Some(Frame::Ack { frames: 1 })
            }
            _ if kind == Kind::NAME => Some(Frame::Ack { frames: 1 }),
            _ => None,
        };
        let length = raw.length;
        if let Some(answer) = answer {
            let mut bytes = vec![0; answer.encoded_len()];
            answer.encode(&mut bytes).unwrap();
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
        input.drain(..length);
    }
}

#[derive(Default)]
struct Story {
    /// What push said is stored.
    stored: Vec<String>,
    came: Rc<RefCell<Vec<String>>>,
    accepted: Vec<String>,
    unconfirmed: Vec<String>,
}

/// From boot until all is settled, or the power is gone: pushes these while it sends. Whether the power lasted.
async fn boot(flash: &mut Flash, texts: &[String], unanswered: &str, story: &mut Story) -> bool {
    let mut buffer = [0; 256];
    let outbox = match FlashOutbox::<NoopRawMutex, _>::open(&mut *flash, RANGE, &mut buffer).await {
        Ok(outbox) => outbox,
        Err(error) => {
            assert_eq!(error, OutboxError::Flash(PowerCut), "it opens again");
            return false;
        }
    };
    let mut config = Config::new("lamp-1", b"secret", 7);
    (config.backoff_base, config.session_expiry) = (1, 0);
    let mut state = State::<NoopRawMutex>::new();
    let (client, mut runner) = new(&mut state, config, now).unwrap();
    let came = &story.came;
    let mut connect = async || {
        let (here, there) = tokio::io::duplex(4096);
        tokio::task::spawn_local(gateway(there, came.clone(), &*String::from(unanswered).leak()));
        Ok::<_, ()>(FromTokio::new(here))
    };
    let stored = &mut story.stored;
    let (accepted, unconfirmed) = (&mut story.accepted, &mut story.unconfirmed);
    let push = async {
        for (number, text) in texts.iter().enumerate() {
            // The first few at once, the others while some are under way.
            for _ in 0..number.saturating_sub(2) * 4 {
                tokio::task::yield_now().await;
            }
            let options = SendOptions { ttl: Some(5_000), ..SendOptions::default() };
            let target = Target::group("floor3").except(&["lamp-2"]);
            loop {
                match outbox.push_signal(target, text.as_bytes(), &options).await {
                    Ok(_) => break stored.push(text.clone()),
                    Err(OutboxError::Full) => tokio::task::yield_now().await,
                    Err(error) => return assert_eq!(error, OutboxError::Flash(PowerCut)),
                }
            }
        }
        while !matches!(outbox.is_empty().await, Ok(true) | Err(_)) {
            tokio::task::yield_now().await;
        }
    };
    let settle = |settled: &flash_outbox::Settled<'_>| {
        let text = String::from_utf8(settled.message.payload().to_vec()).unwrap();
        assert_eq!(settled.message.name(), "floor3");
        match settled.outcome {
            Ok(Accepted) => accepted.push(text),
            Err(SendError::Unconfirmed) => unconfirmed.push(text),
            Err(error) => panic!("{error}"),
        }
        Next::Remove
    };
    let (mut here, mut there) = (Sleep, Sleep);
    let run = outbox.run(client, &mut here, settle);
    let all = async {
        tokio::select! {
            _ = runner.run(&mut connect, &mut there) => unreachable!(),
            error = run => assert_eq!(error, OutboxError::Flash(PowerCut)),
            () = push => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("all settled, or the power gone");
    drop(outbox);
    !flash.is_off
}

fn texts(of: &str) -> Vec<String> {
    (0..8).map(|number| format!("{of}{number}")).collect()
}

fn is_in_order(texts: &[String], story: &[String]) -> bool {
    let places: Vec<_> = story.iter().map(|text| texts.iter().position(|one| one == text)).collect();
    places.iter().all(Option::is_some) && places.windows(2).all(|pair| pair[0] < pair[1])
}

/// Cuts the power at each place, and in the boot after it once more at another.
async fn cut_everywhere(unanswered: &'static str, halves: usize) {
    let mut cuts = 0;
    for cut in 0.. {
        let mut flash = Flash { halves, ..Flash::erased() };
        let mut before = Story::default();
        // So that pages are used up, and erased, after the cut's beginning.
        assert!(boot(&mut flash, &texts("before"), "", &mut before).await);
        let mut story = Story::default();
        flash.restore(cut);
        let lasted = boot(&mut flash, &texts("a"), unanswered, &mut story).await;
        flash.restore(cut * 7 % 40);
        boot(&mut flash, &texts("b"), unanswered, &mut story).await;
        flash.restore(usize::MAX);
        assert!(boot(&mut flash, &texts("c"), unanswered, &mut story).await, "cut {cut}");

        let pushed: Vec<_> = ["a", "b", "c"].into_iter().flat_map(texts).collect();
        let came = story.came.borrow();
        assert!(is_in_order(&pushed, &came), "cut {cut}: none twice, and in order: {came:?}");
        assert!(is_in_order(&pushed, &story.accepted), "cut {cut}: {:?}", story.accepted);
        for text in &story.stored {
            let is_known = came.contains(text) || story.unconfirmed.contains(text);
            assert!(is_known, "cut {cut}: {text} is lost: {came:?}, unconfirmed {:?}", story.unconfirmed);
            let is_told = story.accepted.contains(text) || story.unconfirmed.contains(text);
            assert!(is_told, "cut {cut}: nobody heard of {text}");
        }
        assert!(story.accepted.iter().all(|text| came.contains(text)), "cut {cut}");
        if lasted {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 100, "only {cuts} places to cut");
}

#[tokio::test]
async fn a_power_cut_at_any_word_loses_nothing_and_repeats_nothing() {
    for halves in 0..=2 {
        tokio::task::LocalSet::new().run_until(cut_everywhere("", halves)).await;
    }
}

#[tokio::test]
async fn s12_what_is_not_answered_is_unconfirmed_wherever_the_power_is_cut() {
    for halves in 0..=2 {
        tokio::task::LocalSet::new().run_until(cut_everywhere("a3", halves)).await;
    }
}

#[tokio::test]
async fn a_full_flash_and_what_does_not_fit_are_refused() {
    let mut flash = Flash::erased();
    let mut buffer = [0; 256];
    let outbox = FlashOutbox::<NoopRawMutex, _>::open(&mut flash, RANGE, &mut buffer).await.unwrap();
    let options = SendOptions::default();
    let push = async |payload: &[u8]| outbox.push_signal(Target::client("hub"), payload, &options).await;
    assert_eq!(push(&[b'x'; 120]).await, Err(OutboxError::TooLarge));
    let many = ["lamp-2"; 17];
    assert_eq!(
        outbox.push_signal(Target::group("g").except(&many), b"", &options).await,
        Err(OutboxError::BadMessage(SendError::ListTooLong))
    );
    let mut count = 0;
    while push(&[b'x'; 90]).await.inspect_err(|error| assert_eq!(*error, OutboxError::Full)).is_ok() {
        count += 1;
    }
    assert_eq!((count, outbox.len().await), (6, Ok(6)));
    drop(outbox);
    // Numbers go on, and what is there is there.
    let outbox = FlashOutbox::<NoopRawMutex, _>::open(&mut flash, RANGE, &mut buffer).await.unwrap();
    assert_eq!(outbox.len().await, Ok(6));
    drop(outbox);
    for (start, end) in [(0, 512), (0, 1300), (4, 1028), (512, 0)] {
        let range = start..end;
        let opened = FlashOutbox::<NoopRawMutex, _>::open(&mut flash, range, &mut buffer).await;
        assert_eq!(opened.err(), Some(OutboxError::BadRange));
    }
}
