//! One run of a case: a gateway, and clients that speak what the run says.

use bugle_core::hub::owner;

use crate::gateway::{Gateway, Kind, Options, Outcome, SendSpec, Setup, Who};

/// What a case is run with.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub from: Kind,
    pub to: Kind,
    pub shards: u16,
    pub seed: Option<u64>,
    pub inline: bool,
    /// There is a durable store.
    pub durable: bool,
}

/// One gateway with its clients, and what they speak.
pub struct Stage {
    pub run: Run,
    pub gateway: Gateway,
}

impl Stage {
    pub fn new(run: Run, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup { durable: run.durable, ..Setup::new(run.shards, run.seed) };
        change(&mut setup);
        Self { run, gateway: Gateway::new(&setup) }
    }

    pub fn open(run: Run) -> Self {
        Self::new(run, |_| {})
    }

    pub fn options(&self) -> Options {
        Options { inline: self.run.inline, ..Options::default() }
    }

    /// The sender, in no group.
    pub fn app(&mut self) -> Who {
        let options = self.options();
        self.gateway.connect(self.run.from, "app", options)
    }

    /// A recipient, in no group.
    pub fn stranger(&mut self, id: &str) -> Who {
        let options = self.options();
        self.gateway.connect(self.run.to, id, options)
    }

    /// A recipient in the group `g`.
    pub fn member(&mut self, id: &str) -> Who {
        let options = self.options();
        self.member_with(id, options)
    }

    pub fn member_with(&mut self, id: &str, options: Options) -> Who {
        let who = self.gateway.connect(self.run.to, id, options);
        assert_eq!(self.gateway.join(who, "g"), Outcome::Accepted);
        who
    }

    /// A member that writes no acknowledgement.
    pub fn mute_member(&mut self, id: &str) -> Who {
        let options = Options { acks: false, ..self.options() };
        self.member_with(id, options)
    }

    #[track_caller]
    pub fn accepted(&mut self, who: Who, line: &str, payload: &str) {
        assert_eq!(self.gateway.send(who, &SendSpec::new(line, payload)), Outcome::Accepted, "{line}");
    }

    #[track_caller]
    pub fn refused(&mut self, who: Who, line: &str, code: &str) -> u32 {
        match self.gateway.send(who, &SendSpec::new(line, "refused")) {
            Outcome::Refused(refused, retry_after) if refused == code => retry_after,
            other => panic!("{line}: {other:?} and not {code}"),
        }
    }

    /// Sends with a receipt that names everyone, and gives it as a line.
    #[track_caller]
    pub fn receipt(&mut self, who: Who, line: &str, payload: &str) -> String {
        self.accepted(who, line, payload);
        self.gateway.receipt(who).line()
    }
}

/// The bytes of a burst's n-th message.
pub fn number(n: usize) -> String {
    format!("{n:04}")
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(number).collect()
}

/// An id like `base` whose owner is, or isn't, that of `other`.
pub fn id_beside(base: &str, other: &str, shards: u16, same: bool) -> String {
    let mut ids = (0..).map(|n| format!("{base}-{n}"));
    ids.find(|id| shards == 1 || (owner(id, shards) == owner(other, shards)) == same).unwrap()
}
