//! CONNECT, and the CONNACK that answers it.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::link::{OwnAliases, TOPIC_ALIAS_MAXIMUM};
use super::{MqttSession, Phase, passthrough, reasons, signal_topic};
use crate::hub::SCRAM_SHA_256;
use crate::model::{
    Addressed, Command, ConnectRequest, Connected, Credential, Identity, Instant, Message, NEVER_EXPIRES,
    Origin, Reason, Refusal, Signal, Will,
};
use crate::mqtt::{self, Auth, ConnAck, Connect, Packet, Property, PropertyWriter, ReasonCode, Version};

/// Publishes on their way to a client that doesn't say how many it takes, as none does before version 5.
const WINDOW: u16 = 256;
/// The most that may be on their way, whatever the client says.
const WINDOW_MAXIMUM: u16 = 1024;

/// A CONNECT that the session refuses by itself.
type Refused = (ReasonCode, String);

impl MqttSession {
    pub(super) fn handle_connect(&mut self, connect: &Connect<'_>, now: Instant) -> Option<Command<'static>> {
        let properties = &connect.properties;
        let link = &mut self.link;
        link.version = connect.version;
        link.keep_alive = connect.keep_alive;
        link.max_packet = properties
            .maximum_packet_size()
            .map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX));
        link.own_aliases = properties
            .topic_alias_maximum()
            .filter(|maximum| *maximum > 0)
            .map(|maximum| Box::new(OwnAliases::new(maximum)));
        link.authenticates = properties.authentication_method().is_some();
        link.response_information = properties.request_response_information().unwrap_or(false);
        link.problem_information = properties.request_problem_information().unwrap_or(true);
        link.session_expiry = match (properties.session_expiry(), connect.clean_start) {
            (seconds, _) if link.is_expressive() => seconds.unwrap_or(0),
            // Before version 5 a session is kept for ever, or not at all.
            (_, true) => 0,
            (_, false) => NEVER_EXPIRES,
        };
        link.heard(now);
        let window = match properties.receive_maximum() {
            Some(window) => window.min(WINDOW_MAXIMUM),
            None if link.is_expressive() => WINDOW_MAXIMUM,
            None => WINDOW,
        };
        self.state.in_flight.set_limit(window, self.config.limits.mailbox_bytes);
        self.phase = Phase::Deciding;
        match self.connect_request(connect) {
            Ok(request) => Some(Command::Connect(Box::new(request))),
            Err((reason, what)) => {
                self.fault(reason, &what);
                None
            }
        }
    }

    fn connect_request(&self, connect: &Connect<'_>) -> Result<ConnectRequest, Refused> {
        // [MQTT-4.12.0-1]
        if connect.properties.authentication_method().is_some_and(|method| method != SCRAM_SHA_256) {
            let what = format!("the only authentication method is {SCRAM_SHA_256}");
            return Err((ReasonCode::BadAuthenticationMethod, what));
        }
        let identity = self.identity(connect)?;
        let will = connect.will.as_ref().map(|will| self.will(will, identity.as_ref())).transpose()?;
        let credential = match (connect.username, connect.password) {
            _ if self.link.authenticates => {
                let data = connect.properties.authentication_data().unwrap_or_default();
                Credential::Scram { data: data.to_vec() }
            }
            (None, None) => Credential::None,
            (user, password) => Credential::Password {
                user: user.unwrap_or_default().to_owned(),
                password: password.unwrap_or_default().into(),
            },
        };
        let will_delay = connect.will.as_ref().and_then(|will| will.properties.will_delay()).unwrap_or(0);
        Ok(ConnectRequest {
            identity,
            credential,
            will,
            inbox: None,
            clean_start: connect.clean_start,
            session_expiry: self.link.session_expiry,
            will_delay,
        })
    }

    /// None where the gateway is to choose an id [MQTT-3.1.3-6].
    fn identity(&self, connect: &Connect<'_>) -> Result<Option<Identity>, Refused> {
        let invalid = |what: String| Err((ReasonCode::ClientIdentifierNotValid, what));
        let max = self.config.limits.max_mqtt_client_id;
        match (connect.client_id, connect.version) {
            ("", Version::V5) => Ok(None),
            // 3.1.1 [MQTT-3.1.3-8]
            ("", Version::V311) if connect.clean_start => Ok(None),
            ("", _) => invalid("an empty client id needs a clean session".into()),
            (id, _) if id.len() > max => invalid(format!("the client id is over {max} bytes")),
            (id, _) => Ok(Some(Identity::new(id))),
        }
    }

    /// A will on a topic below the prefix is a send (T1); a malformed one is refused here, since nobody hears
    /// of it when it fires.
    fn will(&self, will: &mqtt::Will<'_>, identity: Option<&Identity>) -> Result<Will, Refused> {
        let refused = |refusal: Refusal| (reasons::for_will(refusal.reason), format!("will: {refusal}"));
        let payload = Bytes::copy_from_slice(will.payload);
        if let Some(rest) = signal_topic::below(&self.config.prefix, will.topic) {
            if identity.is_some_and(|identity| identity.client_id().is_none()) {
                return Err(refused(Refusal::new(
                    Reason::NotAuthorized,
                    "this client id can't send signals",
                )));
            }
            let (target, options) = signal_topic::parse(rest, &will.properties).map_err(refused)?;
            if will.retain {
                return Err(refused(Refusal::new(Reason::RetainRefused, "signals are not retained")));
            }
            Signal::check_payload(payload.len()).map_err(refused)?;
            return Ok(Will::Send(Box::new(Signal {
                addressed: Rc::new(Addressed { target, options }),
                payload: Cow::Owned(will.payload.to_vec()),
                properties: Cow::Owned(passthrough::write(&will.properties, signal_topic::is_reserved)),
                qos: will.qos,
                as_sent: None,
            })));
        }
        if will.topic.starts_with('$') {
            return Err(refused(Refusal::new(Reason::NotAuthorized, "topics with $ are the gateway's")));
        }
        let message = Message {
            origin: Origin::Topic {
                topic: will.topic.into(),
                publisher: identity.cloned().unwrap_or_else(|| Identity::new("")),
                retain: will.retain,
            },
            payload,
            properties: passthrough::write(&will.properties, |_| false).into(),
            qos: will.qos,
            deadline: None,
            urgent: false,
        };
        Ok(Will::Publish { message: Arc::new(message), expiry: will.properties.message_expiry() })
    }

    /// A step of the client's proof [section 4.12].
    pub(super) fn handle_auth(&mut self, auth: &Auth<'_>) -> Option<Command<'static>> {
        // [MQTT-4.12.0-5] [MQTT-4.12.0-7] [MQTT-4.12.1-1]
        if !self.link.authenticates || auth.properties.authentication_method() != Some(SCRAM_SHA_256) {
            return self.violation("AUTH without the authentication method of CONNECT");
        }
        let again = match (auth.reason, self.phase) {
            (ReasonCode::ContinueAuthentication, _) => false,
            (ReasonCode::ReAuthenticate, Phase::Open) => true,
            _ => return self.violation("AUTH with a reason code that is not for now"),
        };
        if self.phase != Phase::Open {
            self.phase = Phase::Deciding;
        }
        let data = auth.properties.authentication_data().unwrap_or_default().to_vec();
        Some(Command::Authenticate { data, again })
    }

    /// The hub has let the client in.
    pub(super) fn accept(&mut self, connected: Connected, now: Instant) {
        let limits = &self.config.limits;
        let mut writer = PropertyWriter::new();
        if self.link.session_expiry != connected.session_expiry {
            writer.push(Property::SessionExpiryInterval(connected.session_expiry));
        }
        self.state.persistent = connected.session_expiry > 0;
        self.state.lasts = connected.lasts;
        if connected.assigned {
            writer.push(Property::AssignedClientIdentifier(connected.identity.as_str()));
        }
        let receive_maximum = u16::try_from(limits.requests_per_client).unwrap_or(u16::MAX);
        writer
            .push(Property::ReceiveMaximum(receive_maximum.max(1)))
            .push(Property::MaximumPacketSize(u32::try_from(limits.max_packet).unwrap_or(u32::MAX).max(1)))
            .push(Property::TopicAliasMaximum(TOPIC_ALIAS_MAXIMUM));
        // Before version 5 there is no way to say it, and the client's own holds.
        let longest = limits.keep_alive_max;
        if self.link.is_expressive()
            && longest > 0
            && (self.link.keep_alive == 0 || self.link.keep_alive > longest)
        {
            self.link.keep_alive = longest;
            writer.push(Property::ServerKeepAlive(longest));
        }
        let me = connected.client_id();
        let response =
            me.as_ref().filter(|_| self.link.response_information).map(|me| format!("response/{me}"));
        writer.extend(response.as_deref().map(Property::ResponseInformation));
        if let Some(data) = &connected.authentication {
            writer
                .push(Property::AuthenticationMethod(SCRAM_SHA_256))
                .push(Property::AuthenticationData(data));
        }
        let properties = writer.finish().unwrap_or_default();
        let session_present = connected.session_present;
        let connack = ConnAck { session_present, reason: ReasonCode::Success, properties };
        self.link.heard(now);
        self.state.me = me;
        if self.link.write(&Packet::ConnAck(connack)) {
            self.state.identity = Some(connected.identity);
            self.phase = Phase::Open;
        } else {
            // Its maximum packet size doesn't even take that.
            self.phase = Phase::Closing;
        }
    }
}

/// The identifier as the hub's request number has it.
pub(super) fn packet_id(request: u32) -> Option<NonZeroU16> {
    u16::try_from(request).ok().and_then(NonZeroU16::new)
}
