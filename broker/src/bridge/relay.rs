//! A bridge without its sockets: two ends, and what goes from one to the other under which name.
//!
//! Loops: neither broker sends this client what it published itself (No Local), and each message carries as user
//! properties [`VIA`] by which gateways' bridges it came in and went out. One that comes in by a gateway where it was
//! before, or would go out of it a second time, is dropped; to go in by one bridge and out by another is no loop. In
//! MQTT 3.1.1, which has neither towards the far broker, the configuration may have no topic that goes both ways.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::end::{Drop, End, Event};
use super::packet::{Message, Opening, Replay, Version, Wish};
use super::pattern::{Pattern, Way, map};
use super::settings::BridgeSettings;
use super::status::BridgeStatus;

/// The user property that says `in` or `out` and a gateway's id.
pub const VIA: &str = "bugle-via";
/// Most of them that a message may have.
const MAX_VIA: usize = 32;
/// Longest topic, in bytes.
const MAX_TOPIC: usize = 65_535;
/// The gateway ends a session never, so that nothing of it is lost while the far broker is away.
const FOR_EVER: u32 = u32::MAX;

/// What a bridge does, but for connecting.
pub struct Relay {
    /// The end at this gateway.
    pub local: End,
    /// The end at the far broker.
    pub far: End,
    patterns: Vec<Pattern>,
    /// What signalling topics of this gateway begin with, as `sig/`.
    signals: String,
    /// This gateway's id in [`VIA`].
    gateway: Arc<str>,
    status: Arc<BridgeStatus>,
    /// Subscriptions that the ends haven't been told about: those of the local end, of the far one.
    asked: VecDeque<Way>,
    /// The gateway was asked for what is retained.
    has_replayed: bool,
}

impl Relay {
    /// Of a bridge.
    pub fn new(
        settings: &BridgeSettings,
        prefix: &str,
        gateway: Arc<str>,
        status: Arc<BridgeStatus>,
    ) -> Self {
        let exactly_once =
            |way: Way| settings.patterns.iter().any(|pattern| pattern.goes(way) && pattern.qos == 2);
        let local = Opening {
            client_id: settings.local_id(),
            login: (settings.local_id(), settings.local_password.clone()),
            keep_alive: 0,
            session_expiry: FOR_EVER,
            receive_maximum: settings.in_flight,
            max_packet: settings.max_packet,
            releases: exactly_once(Way::In),
        };
        let far = Opening {
            client_id: settings.client_id.clone(),
            login: settings.login.clone(),
            keep_alive: settings.keep_alive,
            session_expiry: settings.session_expiry,
            receive_maximum: settings.in_flight,
            max_packet: settings.max_packet,
            releases: exactly_once(Way::Out),
        };
        Self {
            local: End::new(Version::V5, local),
            far: End::new(settings.version, far),
            patterns: settings.patterns.clone(),
            signals: format!("{prefix}/"),
            gateway,
            status,
            asked: VecDeque::new(),
            has_replayed: false,
        }
    }

    /// Asks the gateway to keep what goes out, without what is retained.
    pub fn subscribe_locally_for_later(&mut self) {
        let wishes = self.wishes(Way::Out, |_| Replay::Never);
        self.subscribe(Way::Out, &wishes);
    }

    /// Asks both brokers for what is to cross. What is retained comes with it: each time where messages go one way, so
    /// that the other side knows the present state even of what isn't kept; but only the first time where they go both
    /// ways, since an old state would overwrite the newer one over there.
    pub fn subscribe_both(&mut self) {
        let has_replayed = std::mem::replace(&mut self.has_replayed, true);
        let out = self.wishes(Way::Out, |pattern| match (pattern.is_in, has_replayed) {
            (false, _) | (true, false) => Replay::Always,
            (true, true) => Replay::IfNew,
        });
        let into =
            self.wishes(Way::In, |pattern| if pattern.is_out { Replay::IfNew } else { Replay::Always });
        self.subscribe(Way::Out, &out);
        self.subscribe(Way::In, &into);
    }

    fn wishes(&self, way: Way, retained: impl Fn(&Pattern) -> Replay) -> Vec<Wish> {
        let patterns = self.patterns.iter().filter(|pattern| pattern.goes(way));
        patterns
            .map(|pattern| Wish {
                filter: pattern.source_filter(way),
                qos: pattern.qos,
                retained: retained(pattern),
            })
            .collect()
    }

    fn subscribe(&mut self, way: Way, wishes: &[Wish]) {
        if wishes.is_empty() {
            return;
        }
        self.asked.push_back(way);
        match way {
            Way::Out => self.local.subscribe(wishes),
            Way::In => self.far.subscribe(wishes),
        }
    }

    /// Whether both brokers have answered.
    pub fn is_subscribed(&self) -> bool {
        self.asked.is_empty()
    }

    /// Both connections are over.
    pub fn disconnect(&mut self) {
        self.local.disconnect();
        self.far.disconnect();
        self.asked.clear();
    }

    /// Takes to either side what has come on the other, until nothing is left.
    pub fn settle(&mut self, now: Instant) {
        while let Some((from, event)) = self.next_event() {
            match event {
                Event::Message(message, token) => match self.cross(from, message) {
                    Ok(message) => self.target(from).publish(message, token, now),
                    Err(why) => {
                        self.status.dropped(from, why, "");
                        self.source(from).acknowledge(token);
                    }
                },
                // These are of the target, whose messages came from the source of the other way.
                Event::Taken(token) => {
                    self.status.crossed(from);
                    self.source(from).acknowledge(token);
                }
                Event::Dropped(why, token, text) => {
                    self.status.dropped(from, why, &text);
                    self.source(from).acknowledge(token);
                }
                Event::Subscribed(refused) => self.handle_subscribed(from, &refused),
            }
        }
    }

    /// The next event, and the way of the message that it is about.
    fn next_event(&mut self) -> Option<(Way, Event)> {
        let is_of_source = |event: &Event| matches!(event, Event::Message(..) | Event::Subscribed(_));
        if let Some(event) = self.local.poll_event() {
            return Some((if is_of_source(&event) { Way::Out } else { Way::In }, event));
        }
        let event = self.far.poll_event()?;
        Some((if is_of_source(&event) { Way::In } else { Way::Out }, event))
    }

    fn source(&mut self, way: Way) -> &mut End {
        match way {
            Way::Out => &mut self.local,
            Way::In => &mut self.far,
        }
    }

    fn target(&mut self, way: Way) -> &mut End {
        match way {
            Way::Out => &mut self.far,
            Way::In => &mut self.local,
        }
    }

    /// The message as it goes on on the other side, if it does.
    fn cross(&self, way: Way, mut message: Message) -> Result<Message, Drop> {
        let is_signal = |topic: &str| topic.starts_with(&self.signals);
        if way == Way::Out && is_signal(&message.topic) {
            return Err(Drop::Signal);
        }
        let (topic, qos) = map(&self.patterns, way, &message.topic).ok_or(Drop::NoPattern)?;
        if way == Way::In && is_signal(&topic) {
            return Err(Drop::Signal);
        }
        if topic.is_empty() || topic.len() > MAX_TOPIC {
            return Err(Drop::TooLarge);
        }
        message.topic = topic;
        message.qos = message.qos.min(qos);
        let properties = message.properties.get_or_insert_with(|| Box::new(PublishProperties::default()));
        let mut via = properties.user_properties.iter().filter(|(key, _)| key == VIA);
        let was_here = |(_, value): &(String, String)| match value.split_once(' ') {
            Some((was, gateway)) => *gateway == *self.gateway && (way == Way::In || was == Way::Out.key()),
            None => false,
        };
        if via.clone().count() >= MAX_VIA || via.any(was_here) {
            return Err(Drop::Loop);
        }
        let value = format!("{} {}", way.key(), self.gateway);
        properties.user_properties.push((VIA.to_owned(), value));
        Ok(message)
    }

    fn handle_subscribed(&mut self, way: Way, refused: &[Option<String>]) {
        if let Some(index) = self.asked.iter().position(|asked| *asked == way) {
            self.asked.remove(index);
        }
        let filters = self.patterns.iter().filter(|pattern| pattern.goes(way));
        for (pattern, refused) in filters.zip(refused) {
            if let Some(why) = refused {
                self.status.subscription_refused(way, &pattern.source_filter(way), why);
            }
        }
    }
}
