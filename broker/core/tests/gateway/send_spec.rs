//! A send, in no protocol's terms.

use bugle_core::model::ReceiptMode;

/// What is to be sent to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendSpec {
    /// To a client, else to a group.
    pub to_client: bool,
    pub name: String,
    pub only: Option<Vec<String>>,
    pub except: Option<Vec<String>>,
    pub ttl: Option<u32>,
    pub receipt: ReceiptMode,
    pub id: Option<String>,
    pub store: bool,
    pub echo: bool,
    pub urgent: bool,
    /// MQTT's.
    pub qos: u8,
    pub payload: Vec<u8>,
}

impl SendSpec {
    /// A send as a short line: `g/floor?only=a,b&ttl=5&echo=1`, or `c/lamp`. Beside T1's options there are
    /// `size` for that many bytes of payload, `qos` for MQTT's; and a list entry `{9}` stands for nine ids that
    /// nobody has.
    pub fn new(line: &str, payload: &str) -> Self {
        let (path, query) = line.split_once('?').unwrap_or((line, ""));
        let (place, name) = path.split_once('/').unwrap();
        let mut spec = Self { to_client: place == "c", name: name.into(), qos: 1, ..Self::default() };
        spec.payload = payload.into();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "only" => spec.only = Some(list(value)),
                "except" => spec.except = Some(list(value)),
                "ttl" => spec.ttl = value.parse().ok(),
                "receipt" => {
                    let modes = [ReceiptMode::None, ReceiptMode::Summary, ReceiptMode::Each];
                    spec.receipt = modes.into_iter().find(|mode| mode.key() == value).unwrap();
                }
                "id" => spec.id = Some(value.into()),
                "store" => spec.store = true,
                "echo" => spec.echo = true,
                "urgent" => spec.urgent = true,
                "qos" => spec.qos = value.parse().unwrap(),
                "size" => spec.payload = vec![b'x'; value.parse().unwrap()],
                _ => panic!("{key}?"),
            }
        }
        spec
    }

    /// The mode that its recipients see (S3).
    pub fn mode(&self) -> &'static str {
        match self {
            Self { to_client: true, .. } => "one",
            Self { only: Some(_), .. } => "only",
            Self { except: Some(except), .. } if !except.is_empty() => "except",
            _ => "all",
        }
    }

    /// The options as keys and values of T1, lists whole.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        options.extend(self.only.as_ref().map(|list| ("only", list.join(","))));
        options.extend(self.except.as_ref().map(|list| ("except", list.join(","))));
        options.extend(self.ttl.map(|ttl| ("ttl", ttl.to_string())));
        if self.receipt != ReceiptMode::None {
            options.push(("receipt", self.receipt.key().into()));
        }
        options.extend(self.id.as_ref().map(|id| ("id", id.clone())));
        for (set, key) in [(self.store, "store"), (self.echo, "echo"), (self.urgent, "urgent")] {
            options.extend(set.then(|| (key, "1".into())));
        }
        options
    }
}

fn list(value: &str) -> Vec<String> {
    let mut entries = Vec::new();
    for entry in value.split(',').filter(|_| !value.is_empty()) {
        match entry.strip_prefix('{').and_then(|entry| entry.strip_suffix('}')) {
            Some(count) => entries.extend((0..count.parse().unwrap()).map(|n: u32| format!("none-{n}"))),
            None => entries.push(entry.to_owned()),
        }
    }
    entries
}
