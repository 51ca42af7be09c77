//! A client of the compact framing that was written from docs/protocol.md alone, in Python (`tests/framing_client`). Its
//! sessions live in one process of `python3` for each thread of tests, and are spoken to over pipes, a line of JSON each way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::{Framing, Heard, Options, Outcome, Receipt, Received, SendSpec, Ticket, Will};

pub struct Python {
    /// Its number in the process.
    client: u32,
    now: u64,
    outcomes: BTreeMap<u32, Outcome>,
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    clients: u32,
}

thread_local! {
    static PROCESS: RefCell<Option<Process>> = const { RefCell::new(None) };
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-m", "framing_client.piped"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("python3: {error} (tests/run leaves tests of that name out without it)")
            });
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output), clients: 0 }
    }

    fn write(&mut self, asked: &Value) {
        let line = format!("{asked}\n");
        self.input.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn ask(&mut self, asked: &Value) -> Value {
        self.write(asked);
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("python3 stopped (see its words above) at {asked}"))
    }
}

impl Drop for Process {
    /// It ends with its input.
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A process that stopped isn't asked again.
fn with_process<T>(then: impl FnOnce(&mut Process) -> T) -> T {
    let mut process = PROCESS.take().unwrap_or_else(Process::start);
    let answer = then(&mut process);
    PROCESS.set(Some(process));
    answer
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn send(spec: &SendSpec) -> Value {
    json!({
        "do": "send", "to_client": spec.to_client, "name": spec.name, "only": spec.only, "except": spec.except,
        "ttl": spec.ttl, "receipt": spec.receipt.key(), "id": spec.id, "store": spec.store, "echo": spec.echo,
        "urgent": spec.urgent, "payload": hex(&spec.payload),
    })
}

impl Python {
    pub fn new(id: &str, options: &Options, now: u64, out: &mut Vec<u8>) -> Self {
        let client = with_process(|process| {
            process.clients += 1;
            process.clients
        });
        let mut python = Self { client, now, outcomes: BTreeMap::new() };
        let mut asked = json!({
            "do": "connect", "id": id, "inline": options.inline, "acks": options.acks, "window": options.window,
            "max_body": options.longest, "keep_alive": options.keep_alive, "session_expiry": options.session_expiry,
        });
        match &options.will {
            Some(Will::Send(spec)) => asked["send"] = send(spec),
            Some(Will::Publish(topic, payload)) => {
                asked["publish"] = json!({"topic": topic, "payload": hex(payload)});
            }
            None => {}
        }
        python.ask(asked, out, None);
        python
    }

    fn ask(&mut self, mut asked: Value, out: &mut Vec<u8>, heard: Option<&mut Heard>) -> Ticket {
        asked["client"] = self.client.into();
        asked["now"] = self.now.into();
        let answer = with_process(|process| process.ask(&asked));
        out.extend(bytes(&answer["bytes"]));
        let events = answer["events"].as_array().unwrap();
        match heard {
            Some(heard) => events.iter().for_each(|event| self.handle_event(event, heard)),
            None => assert_eq!(events, &[Value::Null; 0], "nothing happens by asking"),
        }
        Ticket(answer["ticket"].as_u64().unwrap_or(0) as u32)
    }

    fn note_connected(&mut self, resumed: bool, heard: &mut Heard) {
        (heard.connected, heard.resumed) = (true, resumed);
    }

    fn handle_event(&mut self, event: &Value, heard: &mut Heard) {
        let number = |value: &Value| value.as_u64().unwrap() as u32;
        match event[0].as_str().unwrap() {
            "connected" => self.note_connected(event[1].as_bool().unwrap(), heard),
            "pong" => heard.pongs += 1,
            "end" => heard.end = text(&event[1]),
            "outcome" => {
                let outcome = match event[2].as_str().unwrap() {
                    "ACCEPTED" => Outcome::Accepted,
                    code => Outcome::Refused(code.into(), number(&event[3])),
                };
                let twice = self.outcomes.insert(number(&event[1]), outcome);
                assert_eq!(twice, None, "a request has one outcome");
            }
            "delivery" => {
                let deadline = event[4].as_u64().map(|deadline| deadline as u32);
                heard.received.push(Received {
                    group: text(&event[1]),
                    topic: None,
                    sender: text(&event[2]).unwrap(),
                    mode: text(&event[3]),
                    ttl: deadline.map(|deadline| u64::from(deadline.wrapping_sub(self.now as u32))),
                    payload: bytes(&event[5]),
                });
            }
            "message" => heard.received.push(Received {
                group: None,
                topic: text(&event[1]),
                sender: String::new(),
                mode: None,
                ttl: None,
                payload: bytes(&event[2]),
            }),
            "receipt" => heard.receipts.push(Receipt {
                ticket: number(&event[1]),
                id: None,
                duplicate: event[4].as_bool().unwrap(),
                interim: event[5].as_bool().unwrap(),
                counts: serde_json::from_value(event[2].clone()).unwrap(),
                each: serde_json::from_value(event[3].clone()).unwrap(),
            }),
            "ended" => heard.ended.extend(text(&event[1])),
            "too late" => {}
            _ => panic!("{event}"),
        }
        heard.log.push(event.to_string());
    }
}

impl Framing for Python {
    fn handle_time(&mut self, now: u64) {
        self.now = now;
    }

    fn reconnect(&mut self, out: &mut Vec<u8>) {
        let mut heard = Heard::default();
        self.ask(json!({"do": "reconnect"}), out, Some(&mut heard));
    }

    fn join(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket {
        self.ask(json!({"do": "join", "name": group}), out, None)
    }

    fn leave(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket {
        self.ask(json!({"do": "leave", "name": group}), out, None)
    }

    fn subscribe(&mut self, filter: &str, qos: u8, out: &mut Vec<u8>) -> Ticket {
        self.ask(json!({"do": "subscribe", "filter": filter, "at_least_once": qos > 0}), out, None)
    }

    fn unsubscribe(&mut self, filter: &str, out: &mut Vec<u8>) -> Ticket {
        self.ask(json!({"do": "unsubscribe", "name": filter}), out, None)
    }

    fn publish(&mut self, topic: &str, payload: &[u8], retain: bool, out: &mut Vec<u8>) -> Ticket {
        let asked = json!({"do": "publish", "topic": topic, "payload": hex(payload), "retain": retain});
        self.ask(asked, out, None)
    }

    fn send(&mut self, spec: &SendSpec, out: &mut Vec<u8>) -> Ticket {
        self.ask(send(spec), out, None)
    }

    fn ping(&mut self, out: &mut Vec<u8>) -> Ticket {
        self.ask(json!({"do": "ping"}), out, None)
    }

    fn bye(&mut self, out: &mut Vec<u8>) -> Ticket {
        let mut heard = Heard::default();
        self.ask(json!({"do": "bye"}), out, Some(&mut heard))
    }

    fn ack_again(&mut self, out: &mut Vec<u8>) -> Ticket {
        self.ask(json!({"do": "ack_again"}), out, None)
    }

    fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        self.outcomes.get(&ticket.0).cloned()
    }

    fn handle_bytes(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>, heard: &mut Heard) {
        let asked = json!({"do": "bytes", "bytes": hex(&std::mem::take(input))});
        self.ask(asked, out, Some(heard));
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        if let Some(mut process) = PROCESS.take() {
            process.write(&json!({"client": self.client, "do": "forget"}));
            PROCESS.set(Some(process));
        }
    }
}
