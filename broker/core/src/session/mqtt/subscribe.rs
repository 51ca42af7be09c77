//! SUBSCRIBE and UNSUBSCRIBE. The hub knows a group or inbox once; the session knows in which of its three
//! forms the client has subscribed to it, and tells the hub what they amount to together (T2).

use std::num::NonZeroU16;

use super::connect::packet_id;
use super::filter::{self, Wanted};
use super::publish::ID_IN_USE;
use super::state::{Form, Forms, Outstanding, Pending, Place, SubscribeKind, SubscribePlan, UnsubscribePlan};
use super::{MqttSession, reasons};
use crate::model::{Command, Filter, QoS, Reason, Reception, Refusal, RequestId, SubscribeItem};
use crate::mqtt::{
    Packet, Properties, Property, PropertyWriter, ReasonCode, ReasonCodes, RetainHandling, SubAck, Subscribe,
    SubscriptionOptions, UnsubAck, Unsubscribe,
};

/// Marks requests that an UNSUBSCRIBE makes to reduce what remains of a place's forms: the identifier's
/// request is the other one.
const REDUCE: u32 = 1 << 31;

impl MqttSession {
    pub(super) fn handle_subscribe(&mut self, subscribe: &Subscribe<'_>) -> Option<Command<'static>> {
        let id = subscribe.packet_id;
        if self.state.is_outstanding(id) {
            return self.refuse_subscribe_in_use(id, subscribe.subscriptions.iter().count());
        }
        let subscription = subscribe.properties.subscription_id();
        let mut items = Vec::new();
        let mut plans = Vec::new();
        for (filter, options) in subscribe.subscriptions.iter() {
            let kind = self.plan_subscribe(filter, options, subscription, &mut items);
            plans.push(SubscribePlan { filter: filter.into(), qos: options.qos, kind });
        }
        if items.is_empty() {
            self.write_suback(id, &plans, &[]);
            return None;
        }
        let request = RequestId(id.get().into());
        let pending = Pending::Subscribe(plans);
        self.state.outstanding.push_back(Outstanding { request: request.0, pending });
        Some(Command::Subscribe { request, items })
    }

    fn plan_subscribe(
        &mut self,
        text: &str,
        options: SubscriptionOptions,
        subscription: Option<u32>,
        items: &mut Vec<Result<SubscribeItem, Refusal>>,
    ) -> SubscribeKind {
        let reception = Reception {
            qos: options.qos,
            no_local: options.no_local,
            with_sender: false,
            retain_as_published: options.retain_as_published,
            subscription,
        };
        let limits = &self.config.limits;
        let wanted = if items.len() >= limits.filters_per_client + limits.groups_per_client {
            Err(Refusal::new(Reason::TooMany, "more filters than a client may have"))
        } else {
            filter::parse(&self.config.prefix, self.state.me.as_ref(), text)
        };
        match wanted {
            Err(refusal) => {
                items.push(Err(refusal));
                SubscribeKind::Hub { undo: None }
            }
            Ok(Wanted::Notices) => {
                self.state.notice_reception =
                    Some(Reception { qos: reception.qos.min(QoS::AtLeastOnce), ..reception });
                if !self.state.lasts {
                    return SubscribeKind::Notices;
                }
                items.push(Ok(SubscribeItem {
                    filter: Filter::Notices,
                    reception: Reception { qos: reception.qos.min(QoS::AtLeastOnce), ..reception },
                    retained: RetainHandling::DoNotSend,
                    forms: 0,
                }));
                SubscribeKind::Hub { undo: None }
            }
            Ok(Wanted::Topic(topic)) => {
                items.push(Ok(SubscribeItem {
                    filter: Filter::Topic(topic),
                    reception,
                    retained: options.retain_handling,
                    forms: 0,
                }));
                SubscribeKind::Hub { undo: None }
            }
            Ok(Wanted::Place(place, form)) => {
                let (item, undo) = self.add_form(place, form, reception);
                items.push(item);
                SubscribeKind::Hub { undo }
            }
        }
    }

    /// Adds a form of a place, and gives what the hub is to know of the place now.
    fn add_form(
        &mut self,
        place: Place,
        form: Form,
        reception: Reception,
    ) -> (Result<SubscribeItem, Refusal>, Option<(Place, Form)>) {
        self.state.subscribes = self.state.subscribes.wrapping_add(1);
        let order = self.state.subscribes;
        let forms = match &place {
            Place::Inbox => &mut self.state.inbox,
            Place::Group(group) => {
                let full = self.state.groups.len() >= self.config.limits.groups_per_client;
                if full && !self.state.groups.contains_key(group) {
                    let refusal =
                        Refusal::new(Reason::TooMany, "this client is in all groups that it may be in");
                    return (Err(refusal), None);
                }
                self.state.groups.entry(group.clone()).or_default()
            }
        };
        let undo = forms.set(form, reception, order).then(|| (place.clone(), form));
        let reception = forms.merged().unwrap_or(reception);
        let present = forms.present();
        (Ok(place_item(place, reception, present)), undo)
    }

    /// Ends a form of a place. None: it wasn't there; else what remains, if anything does.
    fn end_form(&mut self, place: &Place, form: Form) -> Option<Option<(Reception, u8)>> {
        let end = |forms: &mut Forms| {
            forms.end(form).then(|| forms.merged().map(|reception| (reception, forms.present())))
        };
        match place {
            Place::Inbox => end(&mut self.state.inbox),
            Place::Group(group) => {
                let remains = end(self.state.groups.get_mut(group)?)?;
                if remains.is_none() {
                    self.state.groups.remove(group);
                }
                Some(remains)
            }
        }
    }

    /// The hub has ended a membership or subscription without having been asked to.
    pub(super) fn end_subscription(&mut self, filter: &Filter, refusal: &Refusal) {
        let text = match filter {
            Filter::Group(group) => {
                self.state.groups.remove(group);
                format!("{}/g/{group}", self.config.prefix)
            }
            Filter::Topic(filter) => filter.to_string(),
            Filter::Inbox | Filter::Notices => return,
        };
        self.notify_ended(&text, refusal);
    }

    /// The hub's answer to a SUBSCRIBE, or to the first half of an UNSUBSCRIBE.
    pub(super) fn answer_subscribe(&mut self, request: RequestId, results: &[Result<QoS, Refusal>]) {
        if request.0 & REDUCE != 0 {
            return self.answer_unsubscribe(RequestId(request.0 & !REDUCE), None);
        }
        let pending =
            self.state.take_outstanding(request, |pending| matches!(pending, Pending::Subscribe(_)));
        if let (Some(Pending::Subscribe(plans)), Some(id)) = (pending, packet_id(request.0)) {
            self.write_suback(id, &plans, results);
        }
    }

    fn write_suback(
        &mut self,
        packet_id: NonZeroU16,
        plans: &[SubscribePlan],
        results: &[Result<QoS, Refusal>],
    ) {
        let mut results = results.iter();
        let mut reasons = Vec::with_capacity(plans.len());
        let mut first_refusal = None;
        for plan in plans {
            if matches!(plan.kind, SubscribeKind::Notices) {
                reasons.push(ReasonCode::granted(plan.qos.min(QoS::AtLeastOnce)));
                continue;
            }
            let Some(result) = results.next() else {
                reasons.push(ReasonCode::UnspecifiedError);
                continue;
            };
            reasons.push(reasons::for_subscribe(result, plan.qos));
            if let Err(refusal) = result {
                first_refusal.get_or_insert(refusal);
                if let SubscribeKind::Hub { undo: Some((place, form)) } = &plan.kind {
                    self.end_form(place, *form);
                }
                self.notify_subscribe_refusal(packet_id, &plan.filter, refusal);
            }
        }
        self.write_suback_codes(packet_id, &reasons, first_refusal.map(|refusal| &*refusal.text));
    }

    fn write_suback_codes(&mut self, packet_id: NonZeroU16, reasons: &[ReasonCode], why: Option<&str>) {
        let mut writer = PropertyWriter::new();
        writer.extend(why.filter(|_| self.link.problem_information).map(Property::ReasonString));
        let reasons = ReasonCodes::from(reasons);
        let suback = |properties| Packet::SubAck(SubAck { packet_id, properties, reasons });
        let explained = suback(writer.finish().unwrap_or(Properties::EMPTY));
        let _ = self.link.write(&explained) || self.link.write(&suback(Properties::EMPTY));
    }

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Option<Command<'static>> {
        let id = unsubscribe.packet_id;
        if self.state.is_outstanding(id) {
            return self.refuse_unsubscribe_in_use(id, unsubscribe.filters.iter().count());
        }
        let mut known = Vec::new();
        let mut ended = Vec::new();
        let mut reduced = Vec::new();
        for text in unsubscribe.filters.iter() {
            known.push(match filter::parse(&self.config.prefix, self.state.me.as_ref(), text) {
                Err(_) => Some(false),
                Ok(Wanted::Notices) => {
                    self.state.notices.clear();
                    let was_there = self.state.notice_reception.take().is_some();
                    if self.state.lasts && was_there {
                        ended.push(Filter::Notices);
                    }
                    (!self.state.lasts || !was_there).then_some(was_there)
                }
                Ok(Wanted::Topic(topic)) => {
                    ended.push(Filter::Topic(topic));
                    None
                }
                Ok(Wanted::Place(place, form)) => match self.end_form(&place, form) {
                    None => Some(false),
                    Some(None) => {
                        // What this packet did to the place before is of no use any more.
                        let filter = filter_of(place);
                        reduced.retain(|item: &SubscribeItem| item.filter != filter);
                        ended.push(filter);
                        None
                    }
                    Some(Some((reception, forms))) => {
                        reduced.push(place_item(place, reception, forms));
                        Some(true)
                    }
                },
            });
        }
        let number = u32::from(id.get());
        let end =
            (!ended.is_empty()).then(|| Command::Unsubscribe { request: RequestId(number), filters: ended });
        let reduce = (!reduced.is_empty()).then(|| Command::Subscribe {
            request: RequestId(REDUCE | number),
            items: reduced.into_iter().map(Ok).collect(),
        });
        let awaited = u8::from(end.is_some()) + u8::from(reduce.is_some());
        let plan = UnsubscribePlan { known, answers: Vec::new(), awaited };
        if awaited == 0 {
            self.write_unsuback(id, &plan);
            return None;
        }
        let pending = Pending::Unsubscribe(plan);
        self.state.outstanding.push_back(Outstanding { request: number, pending });
        match (reduce, end) {
            (Some(reduce), end) => {
                self.second_command = end.map(Box::new);
                Some(reduce)
            }
            (None, end) => end,
        }
    }

    /// One of the hub's answers to an UNSUBSCRIBE; the last one makes the UNSUBACK. `None`: what remains of
    /// the forms is in force.
    pub(super) fn answer_unsubscribe(&mut self, request: RequestId, results: Option<Vec<bool>>) {
        let plan = self.state.outstanding.iter_mut().find_map(|outstanding| match &mut outstanding.pending {
            Pending::Unsubscribe(plan) if outstanding.request == request.0 => Some(plan),
            _ => None,
        });
        let Some(plan) = plan else { return };
        plan.awaited = plan.awaited.saturating_sub(1);
        if let Some(results) = results {
            plan.answers = results;
        }
        if plan.awaited > 0 {
            return;
        }
        let pending =
            self.state.take_outstanding(request, |pending| matches!(pending, Pending::Unsubscribe(_)));
        if let (Some(Pending::Unsubscribe(plan)), Some(id)) = (pending, packet_id(request.0)) {
            self.write_unsuback(id, &plan);
        }
    }

    fn write_unsuback(&mut self, packet_id: NonZeroU16, plan: &UnsubscribePlan) {
        let mut answers = plan.answers.iter().copied();
        let reasons: Vec<ReasonCode> = plan
            .known
            .iter()
            .map(|known| known.or_else(|| answers.next()).unwrap_or(false))
            .map(|was_there| if was_there { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted })
            .collect();
        self.write_unsuback_codes(packet_id, &reasons);
    }

    fn write_unsuback_codes(&mut self, packet_id: NonZeroU16, reasons: &[ReasonCode]) {
        let reasons = ReasonCodes::from(reasons);
        self.link.write(&Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::EMPTY, reasons }));
    }

    /// Two answers with one identifier could not be told apart. Before version 5 no answer says so.
    fn refuse_subscribe_in_use(&mut self, packet_id: NonZeroU16, count: usize) -> Option<Command<'static>> {
        if !self.link.is_expressive() {
            return self.violation(ID_IN_USE);
        }
        let reasons = vec![ReasonCode::PacketIdentifierInUse; count];
        self.write_suback_codes(packet_id, &reasons, Some(ID_IN_USE));
        None
    }

    fn refuse_unsubscribe_in_use(&mut self, packet_id: NonZeroU16, count: usize) -> Option<Command<'static>> {
        if !self.link.is_expressive() {
            return self.violation(ID_IN_USE);
        }
        let reasons = vec![ReasonCode::PacketIdentifierInUse; count];
        self.write_unsuback_codes(packet_id, &reasons);
        None
    }
}

/// Signals aren't retained.
fn place_item(place: Place, reception: Reception, forms: u8) -> SubscribeItem {
    SubscribeItem { filter: filter_of(place), reception, retained: RetainHandling::DoNotSend, forms }
}

fn filter_of(place: Place) -> Filter {
    match place {
        Place::Group(group) => Filter::Group(group),
        Place::Inbox => Filter::Inbox,
    }
}
