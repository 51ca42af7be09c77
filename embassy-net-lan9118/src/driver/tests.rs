//! The driver on a controller of a few lines, which behaves as the data sheet says.

use core::cell::RefCell;
use core::task::{Context, Waker};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;
use std::vec;
use std::vec::Vec;

use super::*;

/// The controller. An access that a real one would not bear panics.
struct Simulated(RefCell<Inside>);

struct Inside {
    registers: HashMap<usize, u32>,
    mac: HashMap<u32, u32>,
    phy: HashMap<u32, u32>,
    /// Frames that wait, with their status.
    incoming: VecDeque<(u32, Vec<u8>)>,
    /// Words left of the frame that is being read.
    reading: VecDeque<u32>,
    /// Words of the frame that is being sent.
    writing: Vec<u32>,
    sent: Vec<Vec<u8>>,
    statuses: u32,
    room: u32,
    resets: u32,
    stays_in_reset: bool,
    mac_is_stuck: bool,
}

const OWN: [u8; 6] = [2, 1, 2, 3, 4, 5];
const FALLBACK: [u8; 6] = [6, 0, 0, 0, 0, 1];

impl Simulated {
    fn new() -> Self {
        Self(RefCell::new(Inside {
            registers: HashMap::from([(Register::ByteTest as usize, 0x8765_4321)]),
            mac: HashMap::from([(2, 0x0504), (3, 0x0302_0102)]),
            phy: HashMap::from([(1, 1 << 2)]),
            incoming: VecDeque::new(),
            reading: VecDeque::new(),
            writing: Vec::new(),
            sent: Vec::new(),
            statuses: 0,
            room: 5120,
            resets: 0,
            stays_in_reset: false,
            mac_is_stuck: false,
        }))
    }

    /// A frame arrives, whole.
    fn arrive(&self, frame: &[u8]) {
        self.arrive_with(frame, 0);
    }

    fn arrive_with(&self, frame: &[u8], flags: u32) {
        let mut inside = self.0.borrow_mut();
        let mut bytes = frame.to_vec();
        bytes.extend([0xCC; 4]);
        inside.incoming.push_back(((bytes.len() as u32) << 16 | flags, bytes));
        *inside.registers.entry(Register::InterruptStatus as usize).or_default() |= interrupt::RECEIVED;
    }

    /// The cable is put in or out.
    fn link(&self, is_up: bool) {
        let mut inside = self.0.borrow_mut();
        inside.phy.insert(1, if is_up { 1 << 2 } else { 0 });
        *inside.registers.entry(Register::InterruptStatus as usize).or_default() |= interrupt::PHY;
    }

    fn set_room(&self, room: u32) {
        self.0.borrow_mut().room = room;
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.borrow_mut().sent)
    }

    /// Whether the line to the processor is raised.
    fn interrupts(&self) -> bool {
        self.read(Register::InterruptStatus) & self.read(Register::InterruptEnable) != 0
    }
}

impl Bus for Simulated {
    fn read(&self, register: Register) -> u32 {
        let mut inside = self.0.borrow_mut();
        let inside = &mut *inside;
        match register {
            Register::ReceiveFifo => (inside.incoming.len() as u32) << 16,
            Register::ReceiveStatus => {
                assert!(inside.reading.is_empty(), "the frame before was not read to its end");
                let (status, bytes) = inside.incoming.pop_front().expect("a frame waits");
                let word = |bytes: &[u8]| {
                    let mut word = [0xEE; 4];
                    word[..bytes.len()].copy_from_slice(bytes);
                    u32::from_le_bytes(word)
                };
                inside.reading.extend(bytes.chunks(4).map(word));
                status
            }
            Register::ReceiveData => inside.reading.pop_front().expect("not beyond the frame's end"),
            Register::TransmitFifo => inside.statuses << 16 | inside.room,
            Register::TransmitStatus => {
                inside.statuses = inside.statuses.checked_sub(1).expect("a status waits");
                0
            }
            Register::HardwareConfig if inside.stays_in_reset => 1,
            Register::MacCommand if inside.mac_is_stuck => 1 << 31,
            other => inside.registers.get(&(other as usize)).copied().unwrap_or(0),
        }
    }

    fn write(&self, register: Register, value: u32) {
        let mut inside = self.0.borrow_mut();
        let inside = &mut *inside;
        match register {
            Register::HardwareConfig if value & 1 != 0 => inside.resets += 1,
            Register::InterruptStatus => {
                *inside.registers.entry(register as usize).or_default() &= !value;
            }
            Register::MacCommand => {
                assert!(value & 1 << 31 != 0);
                let (index, data) = (value & 0xFF, Register::MacData as usize);
                if value & 1 << 30 != 0 {
                    let read = inside.mac.get(&index).copied().unwrap_or(0);
                    inside.registers.insert(data, read);
                    return;
                }
                let written = inside.registers.get(&data).copied().unwrap_or(0);
                if index != 6 {
                    inside.mac.insert(index, written);
                    return;
                }
                assert_eq!(written >> 11 & 31, 1, "the internal PHY's address");
                let phy = written >> 6 & 31;
                if written & 2 != 0 {
                    inside.phy.insert(phy, inside.mac[&7]);
                } else {
                    inside.mac.insert(7, inside.phy.get(&phy).copied().unwrap_or(0));
                }
                inside.mac.insert(6, written & !1);
            }
            Register::TransmitData => {
                inside.writing.push(value);
                let [first, second, words @ ..] = &inside.writing[..] else { return };
                let length = (first & 0x7FF) as usize;
                if words.len() < length.div_ceil(4) {
                    return;
                }
                assert_eq!((first >> 12, second & 0xFFFF), (3, length as u32), "one segment");
                let mut frame: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                frame.truncate(length);
                inside.sent.push(frame);
                inside.statuses += 1;
                inside.writing.clear();
            }
            other => drop(inside.registers.insert(other as usize, value)),
        }
    }
}

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn frame(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index as u8).wrapping_mul(31) ^ seed).collect()
}

fn receive<B: Bus>(driver: &mut Lan9118<'_, B>, waker: &Waker) -> Option<Vec<u8>> {
    driver.receive(&mut Context::from_waker(waker)).map(|(token, _)| token.consume(|frame| frame.to_vec()))
}

fn no_waker() -> &'static Waker {
    Waker::noop()
}

#[test]
fn it_starts_with_its_own_address_or_the_boards() {
    let (chip, state) = (Simulated::new(), State::new());
    let driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    assert_eq!(driver.address(), OWN);
    assert_eq!(chip.0.borrow().resets, 1);
    assert_eq!(chip.0.borrow().mac[&1] & 0b1100, 0b1100, "transmitter and receiver are on");

    let blank = Simulated::new();
    blank.0.borrow_mut().mac.extend([(2, 0xFFFF), (3, u32::MAX)]);
    let driver = Lan9118::new(&blank, &state, FALLBACK).unwrap();
    assert_eq!(driver.address(), FALLBACK);
    assert_eq!((blank.0.borrow().mac[&3], blank.0.borrow().mac[&2]), (6, 0x0100));
}

#[test]
fn a_board_without_it_and_one_that_hangs_are_told_apart() {
    let state = State::new();
    let absent = Simulated::new();
    absent.0.borrow_mut().registers.insert(Register::ByteTest as usize, 0xFFFF_FFFF);
    assert_eq!(Lan9118::new(&absent, &state, FALLBACK).err(), Some(Error::NotFound(0xFFFF_FFFF)));
    let hung = Simulated::new();
    hung.0.borrow_mut().stays_in_reset = true;
    assert_eq!(Lan9118::new(&hung, &state, FALLBACK).err(), Some(Error::ResetTimedOut));
    let stuck = Simulated::new();
    stuck.0.borrow_mut().mac_is_stuck = true;
    assert_eq!(Lan9118::new(&stuck, &state, FALLBACK).err(), Some(Error::Busy));
}

#[test]
fn frames_of_every_length_come_and_go_unaltered() {
    let (chip, state) = (Simulated::new(), State::new());
    let mut driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    for length in [14, 15, 16, 17, 60, 61, 1511, 1512, 1513, 1514] {
        let frame = frame(length, length as u8);
        chip.arrive(&frame);
        assert_eq!(receive(&mut driver, no_waker()), Some(frame.clone()), "{length}");
        let token = driver.transmit(&mut Context::from_waker(no_waker())).unwrap();
        token.consume(length, |buffer| buffer.copy_from_slice(&frame));
        assert_eq!(chip.sent(), vec![frame], "{length}");
    }
    assert_eq!(receive(&mut driver, no_waker()), None);
    assert!(chip.0.borrow().statuses < 10, "what became of sent frames is taken out of its FIFO");
}

#[test]
fn frames_come_in_their_order_and_one_can_be_answered_while_it_is_held() {
    let (chip, state) = (Simulated::new(), State::new());
    let mut driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    let frames = [frame(60, 1), frame(61, 2), frame(1514, 3)];
    frames.iter().for_each(|frame| chip.arrive(frame));
    for expected in &frames {
        let (received, room) = driver.receive(&mut Context::from_waker(no_waker())).unwrap();
        received.consume(|frame| room.consume(frame.len(), |answer| answer.copy_from_slice(frame)));
        assert_eq!(chip.sent(), vec![expected.clone()]);
    }
}

#[test]
fn damaged_and_overlong_frames_are_left_out_and_those_behind_them_come() {
    let (chip, state) = (Simulated::new(), State::new());
    let mut driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    chip.arrive_with(&frame(60, 1), 1 << 15);
    chip.arrive(&frame(1515, 2));
    chip.arrive(&frame(9000, 3));
    chip.0.borrow_mut().incoming.push_back((3 << 16, vec![1, 2, 3]));
    chip.0.borrow_mut().incoming.push_back((0, vec![]));
    chip.arrive(&frame(64, 4));
    assert_eq!(receive(&mut driver, no_waker()), Some(frame(64, 4)));
    assert_eq!(receive(&mut driver, no_waker()), None);
}

#[test]
fn an_interrupt_wakes_the_stack_once_and_is_allowed_again_when_it_has_looked() {
    let (chip, state) = (Simulated::new(), State::new());
    let mut driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert_eq!(receive(&mut driver, &waker), None);
    assert!(!chip.interrupts());
    chip.arrive(&frame(60, 1));
    assert!(chip.interrupts());
    state.on_interrupt(&&chip);
    assert!(!chip.interrupts(), "silent until the driver has looked");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    // A second frame arrives in between: without an interrupt, but it is not forgotten.
    chip.arrive(&frame(61, 2));
    assert_eq!(receive(&mut driver, &waker), Some(frame(60, 1)));
    assert_eq!(receive(&mut driver, &waker), Some(frame(61, 2)));
    assert_eq!(receive(&mut driver, &waker), None);
}

#[test]
fn without_room_nothing_is_taken_and_room_wakes_the_stack() {
    let (chip, state) = (Simulated::new(), State::new());
    let mut driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    chip.set_room(1543);
    chip.arrive(&frame(60, 1));
    assert_eq!(receive(&mut driver, &waker), None);
    assert!(driver.transmit(&mut Context::from_waker(&waker)).is_none());
    assert!(chip.read(Register::InterruptEnable) & interrupt::ROOM != 0);
    assert!(
        chip.read(Register::FifoInterrupt) >> 24 >= 1544_u32.div_ceil(64),
        "an interrupt means that a frame fits"
    );
    chip.set_room(5120);
    chip.0.borrow_mut().registers.insert(Register::InterruptStatus as usize, interrupt::ROOM);
    state.on_interrupt(&&chip);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert_eq!(receive(&mut driver, &waker), Some(frame(60, 1)), "it has waited in the controller");
}

#[test]
fn a_cable_that_is_pulled_and_put_back_is_noticed() {
    let (chip, state) = (Simulated::new(), State::new());
    let mut driver = Lan9118::new(&chip, &state, FALLBACK).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let is_up =
        |driver: &mut Lan9118<'_, _>| driver.link_state(&mut Context::from_waker(&waker)) == LinkState::Up;
    assert!(is_up(&mut driver));
    receive(&mut driver, &waker);
    for (wanted, number) in [(false, 1), (true, 2)] {
        chip.link(wanted);
        assert!(chip.interrupts());
        state.on_interrupt(&&chip);
        assert!(!chip.interrupts());
        assert_eq!(wakes.0.load(Ordering::Relaxed), number);
        assert_eq!(is_up(&mut driver), wanted);
        assert!(!chip.interrupts(), "the PHY has nothing more to say");
    }
}
