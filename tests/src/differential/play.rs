//! Sequences being played: many at once on a thread, in lockstep, so that no broker is waited for while it idles.
//!
//! Nothing waits for silence. Everything that a client says ends in a ping; when its answer is there, the broker has read all
//! that was said before. Then every client asks once more, and what the broker had for it comes before that answer.

use std::fmt::Write as _;
use std::time::Duration;

use bugle_core::mqtt::{Packet, PacketType, Version, decode, frame_length};

use super::difference::{Difference, Explanations, Verdict};
use super::sequence::{Act, Sequence, Step};
use super::side::Side;

/// How long a broker may take to answer: in a first attempt, and when it is looked at again.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(15)];

/// A sequence on its way.
pub struct Play<'a> {
    explanations: &'a Explanations,
    sequence: Sequence,
    sides: [Side; 2],
    step: Option<Step>,
    /// More pings before it looks at what came.
    rounds: u32,
    late: [Vec<String>; 2],
    /// What came of it.
    pub outcome: Outcome,
    /// All that was said and heard, where that is wanted.
    trace: Option<String>,
}

/// What came of one sequence.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The sequence.
    pub seed: u64,
    /// Steps that were compared.
    pub steps: u64,
    /// What was explained, by the explanation's place.
    pub met: Vec<usize>,
    /// The trace up to a difference that nothing explains.
    pub unexplained: Option<String>,
}

impl<'a> Play<'a> {
    /// Begins the sequence of this seed at Bugle's and Mosquitto's port. A second attempt takes its time, and keeps a trace.
    pub fn begin(ports: [u16; 2], seed: u64, attempt: u64, explanations: &'a Explanations) -> Self {
        let again = attempt > 0;
        let patience = PATIENCE[usize::from(again)];
        Self {
            explanations,
            sequence: Sequence::new(seed, attempt),
            sides: ports.map(|port| Side::new(port, patience)),
            step: None,
            rounds: if again { 4 } else { 2 },
            late: Default::default(),
            outcome: Outcome { seed, ..Outcome::default() },
            trace: again.then(String::new),
        }
    }

    /// Throws the next step and says it to both. False at the end.
    fn act(&mut self) -> bool {
        self.step = self.sequence.next(&self.sides[0].seen());
        let Some(step) = &self.step else { return false };
        if let Act::Open { clean: true, .. } = step.act {
            self.late[step.who].clear();
        }
        for side in &mut self.sides {
            side.act(step.who, &step.act);
        }
        true
    }

    fn hear(&mut self) {
        let Some(step) = &self.step else { return };
        for side in &mut self.sides {
            side.hear(step.who, &step.act);
        }
    }

    fn ping(&mut self) {
        self.sides.iter_mut().for_each(Side::ping);
    }

    fn hear_all(&mut self) {
        self.sides.iter_mut().for_each(Side::hear_all);
    }

    /// Compares what came. False where the sequence ends.
    fn compare(&mut self) -> bool {
        let Some(step) = self.step.take() else { return false };
        self.outcome.steps += 1;
        let mut differences = Vec::new();
        let mut heard_so = String::new();
        for who in 0..2 {
            let [bugle, mosquitto] =
                [0, 1].map(|side: usize| std::mem::take(&mut self.sides[side].parties[who].heard));
            let [bugle, bugle_replaced] = bugle;
            let [mosquitto, mosquitto_replaced] = mosquitto;
            if self.trace.is_some() {
                for (name, heard) in [
                    ("bugle", &bugle),
                    ("mosquitto", &mosquitto),
                    ("bugle, replaced", &bugle_replaced),
                    ("mosquitto, replaced", &mosquitto_replaced),
                ] {
                    let texts: Vec<&str> = heard.iter().map(|line| line.text.as_str()).collect();
                    if !texts.is_empty() {
                        let _ = writeln!(heard_so, "    {who} {name}: {}", texts.join(" | "));
                    }
                }
            }
            let to = if who == step.who { "actor" } else { "other" };
            let late = &mut self.late[who];
            differences.extend(Difference::between(to, bugle, mosquitto, late).map(|one| (who, one)));
            let replaced = Difference::between("replaced", bugle_replaced, mosquitto_replaced, late);
            differences.extend(replaced.map(|one| (who, one)));
        }
        if differences.is_empty() && self.trace.is_none() {
            return true;
        }
        let prefix = &self.sequence.prefix;
        let version = self.sides[0].parties[step.who].version();
        let text = describe(&step.act, version).replace(prefix, "~").replace(char::is_control, "\u{2426}");
        for (_, difference) in &mut differences {
            for line in difference.bugle.iter_mut().chain(&mut difference.mosquitto) {
                *line = line.replace(prefix, "~");
            }
        }
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{} {version:?} {text}", step.who);
            trace.push_str(&heard_so.replace(prefix, "~"));
        }
        if differences.is_empty() {
            return true;
        }
        let overlap = if self.sequence.overlaps { " (filters may overlap)" } else { "" };
        let has_window = self.sides[0].parties[step.who].has_window();
        let window = if has_window { " (receive maximum)" } else { "" };
        match self.explanations.judge(
            &format!("{version:?} {text}{window}{overlap}"),
            &differences,
            &mut self.late,
        ) {
            Verdict::Explained { by, goes_on } => {
                self.outcome.met.extend(by);
                goes_on
            }
            Verdict::Unexplained => {
                let mut report = self.trace.take().unwrap_or_default();
                let _ = writeln!(report, "DIFFERENCE at: {version:?} {text}");
                for (who, difference) in &differences {
                    let Difference { to, bugle, mosquitto } = difference;
                    let _ =
                        writeln!(report, "  {who} ({to}) only bugle {bugle:?}, only mosquitto {mosquitto:?}");
                }
                self.outcome.unexplained = Some(report);
                false
            }
        }
    }
}

/// One step of each of these, in lockstep. Those that have ended are taken out and given back.
pub fn advance(plays: &mut Vec<Play<'_>>) -> Vec<Outcome> {
    let mut goes_on: Vec<bool> = plays.iter_mut().map(Play::act).collect();
    plays.iter_mut().for_each(Play::hear);
    let rounds = plays.iter().map(|play| play.rounds).max().unwrap_or(0);
    for _ in 0..rounds {
        plays.iter_mut().for_each(Play::ping);
        plays.iter_mut().for_each(Play::hear_all);
    }
    for (play, goes_on) in plays.iter_mut().zip(&mut goes_on) {
        *goes_on = *goes_on && play.compare();
    }
    let mut ended = Vec::new();
    let mut at = 0;
    plays.retain_mut(|play| {
        at += 1;
        if !goes_on[at - 1] {
            ended.push(std::mem::take(&mut play.outcome));
        }
        goes_on[at - 1]
    });
    ended
}

/// A step as a report and the explanations have it.
fn describe(act: &Act, version: Version) -> String {
    match act {
        Act::Cut => "CUT".to_owned(),
        Act::Answer { kind, payload, reason } => {
            format!("{} of {payload} {:02x}", kind.name(), reason.as_u8())
        }
        Act::Open { bytes, .. } => format!("OPEN {}", packets_as_text(bytes, version)),
        Act::Say(bytes) => packets_as_text(bytes, version),
    }
}

fn packets_as_text(mut bytes: &[u8], version: Version) -> String {
    let mut texts = Vec::new();
    while let Ok(Some(length)) = frame_length(bytes)
        && let Some(frame) = bytes.get(..length)
    {
        texts.push(match decode(frame, version) {
            Ok(packet @ (Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_))) => {
                format!("{} {packet:?}", packet.packet_type().name())
            }
            Ok(packet) => packet.line(),
            Err(error) => {
                let name = PacketType::of_first_byte(frame[0]).map_or("NOTHING", PacketType::name);
                format!("WRONG {name} ({error}) {frame:02x?}")
            }
        });
        bytes = &bytes[length..];
    }
    if !bytes.is_empty() {
        texts.push(format!("WRONG {bytes:02x?}"));
    }
    texts.join(" & ")
}
