//! The one at the connection under test, as the gateway's harness sees it.

use crate::Steps;

/// A client that says what the fuzzer wants, and holds what it hears against what a correct peer must see.
pub trait Stranger {
    /// A first packet, in one of eight ways.
    fn greeting(&mut self, way: u8) -> Vec<u8>;

    /// A well-formed frame or packet, by number; its parameters come from the input.
    fn phrase(&mut self, number: u8, steps: &mut Steps<'_>) -> Vec<u8>;

    /// A new connection begins.
    fn connected(&mut self);

    /// These bytes are on their way to the gateway: it may have read them, or not yet.
    fn said(&mut self, bytes: &[u8]);

    /// The gateway wrote this. Panics where it shouldn't have.
    fn hears(&mut self, bytes: &[u8]);

    /// The panel sends a signal to the group `floor`, or to the client `garbage`, that may or may not be this one.
    fn panel_sends(&mut self, signal: PanelSignal);

    /// The panel sends a signal to others.
    fn panel_sends_elsewhere(&mut self, signal: PanelSignal);
}

/// A signal of the panel's: as its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelSignal {
    /// Counted through both lanes.
    pub number: u32,
    /// In the lane of its own.
    pub urgent: bool,
    /// To the group, else to the client.
    pub to_group: bool,
}

impl PanelSignal {
    /// Its bytes.
    pub fn payload(self) -> [u8; 6] {
        let [a, b, c, d] = self.number.to_be_bytes();
        [u8::from(self.urgent), u8::from(self.to_group), a, b, c, d]
    }

    /// The signal with this payload.
    pub fn of(payload: &[u8]) -> Self {
        let [urgent, to_group, rest @ ..] = payload else { panic!("the panel never sent {payload:x?}") };
        let number = u32::from_be_bytes(rest.try_into().expect("the panel sends six bytes"));
        Self { number, urgent: *urgent == 1, to_group: *to_group == 1 }
    }
}

/// What one recipient got of the panel: each signal once, in order within its lane, and none that it may not have.
#[derive(Debug, Default)]
pub struct FromPanel {
    last: [u32; 2],
    /// Sent while the stranger surely was no recipient.
    forbidden: Vec<u32>,
}

impl FromPanel {
    /// A signal that isn't for this recipient is sent.
    pub fn forbid(&mut self, signal: PanelSignal) {
        self.forbidden.push(signal.number);
    }

    /// It comes.
    pub fn check(&mut self, payload: &[u8]) -> PanelSignal {
        let signal = PanelSignal::of(payload);
        assert!(!self.forbidden.contains(&signal.number), "{signal:?} is not for the stranger");
        let last = &mut self.last[usize::from(signal.urgent)];
        assert!(signal.number > *last, "{signal:?} comes after {last}");
        *last = signal.number;
        signal
    }
}
