//! The admin API, `/api/v1`: what operators see of clients and groups, and what they do about them (S13, S14).
//!
//! Who asks is known when a request comes here ([`access`](super::access)). Everything is JSON; bodies have [`MAX_BODY`] bytes and
//! [`BODY`] of time; keys that aren't known are refused, as everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bugle_core::hub::{ClientDetails, ClientSummary, GroupSummary, Shard, Wanted};
use bugle_core::model::{
    ClientId, GroupName, MAX_WHY, Moderation, ModerationAct, ModerationRequest, NEVER_EXPIRES, Reason,
    Refusal,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::problem::Problem;
use super::shards::Shards;
use crate::authentication::operators::Operator;

/// Longest body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(5);
/// Entries of a page unless asked otherwise, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// How long reading the rules may take, all clients judged by them included.
const RELOAD: Duration = Duration::from_secs(15);

/// A request to read the rules again.
pub struct ReloadRequest {
    /// Whose, for the audit log.
    pub by: String,
    /// Where the result goes.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// What the API works on.
pub struct Api {
    /// The ways to all shards.
    pub shards: Shards,
    /// Asks for the rules to be read again; none: they aren't in a file.
    pub rules: Option<mpsc::Sender<ReloadRequest>>,
}

type Answer = Result<Json<Value>, Problem>;

/// The routes below `/api/v1`.
pub fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/clients", get(clients))
        .route("/clients/{client}", get(client))
        .route("/clients/{client}/{act}", post(moderate))
        .route("/groups", get(groups))
        .route("/groups/{group}/members", get(members))
        .route("/moderations", get(moderations))
        .route("/rules/reload", post(reload_rules))
        .fallback(|| async {
            Problem::not_found("the admin API has no such resource; docs/operations.md lists them")
        })
        .method_not_allowed_fallback(|| async {
            let detail = "this resource is read by GET, or acted on by POST, and nothing else";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
        })
        .with_state(api)
        .layer(map_response(as_problem))
}

/// What is refused before it comes to a handler, as a path with an escape that is no text, is told like everything else.
async fn as_problem(answer: Response) -> Response {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let detail = "the path or the query can't be read: what is escaped in it has to be UTF-8";
    Problem::new(status, "BAD_REQUEST", detail).into_response()
}

/// Which page.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PageQuery {
    after: String,
    prefix: String,
    limit: Option<usize>,
}

impl PageQuery {
    fn checked(query: Result<Query<Self>, QueryRejection>) -> Result<(Self, usize), Problem> {
        let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
        let limit = query.limit.unwrap_or(PAGE.0);
        if limit == 0 || limit > PAGE.1 {
            return Err(Problem::bad_request(format!("limit = {limit} is not within 1 to {}", PAGE.1)));
        }
        Ok((query, limit))
    }

    fn wanted(&self) -> Wanted {
        Wanted { after: self.after.as_str().into(), prefix: self.prefix.as_str().into() }
    }

    /// Where there is no way to ask for a beginning.
    fn without_prefix(query: Result<Query<Self>, QueryRejection>) -> Result<(Self, usize), Problem> {
        let (query, limit) = Self::checked(query)?;
        if !query.prefix.is_empty() {
            return Err(Problem::bad_request("prefix is for the list of clients"));
        }
        Ok((query, limit))
    }
}

/// Takes out the name that was asked for beyond the page, and gives where the next one begins, if there is one.
fn next_of(names: &mut BTreeSet<Arc<str>>, limit: usize) -> Option<String> {
    if names.len() <= limit {
        return None;
    }
    names.pop_last();
    names.last().map(|name| (**name).to_owned())
}

async fn clients(State(api): State<Arc<Api>>, query: Result<Query<PageQuery>, QueryRejection>) -> Answer {
    let (query, limit) = PageQuery::checked(query)?;
    let wanted = query.wanted();
    let look = move |shard: &Shard, cursor| shard.client_names(&wanted, cursor);
    let mut names = api.shards.names(limit + 1, look).await?;
    let next = next_of(&mut names, limit);
    let found = api.shards.of_each(names.into_iter().collect(), |sight, id| {
        let one = sight.shard.client_summary(id)?;
        Some((one.connection.and_then(|key| sight.address(key)), one))
    });
    let shown =
        found.await?.iter().map(|(address, one)| summary(one, *address).into()).collect::<Vec<Value>>();
    Ok(Json(json!({"clients": shown, "next": next})))
}

fn summary(one: &ClientSummary, address: Option<IpAddr>) -> Map<String, Value> {
    let ClientSummary { client, connection, protocol, user, groups, filters } = one;
    let mut fields = Map::new();
    fields.insert("client".into(), client.as_str().into());
    fields.insert("online".into(), connection.is_some().into());
    fields.insert("protocol".into(), (*protocol).into());
    fields.insert("address".into(), address.map(|address| address.to_canonical().to_string()).into());
    fields.insert("user".into(), user.as_deref().into());
    fields.insert("groups".into(), (*groups).into());
    fields.insert("filters".into(), (*filters).into());
    fields
}

async fn client(State(api): State<Arc<Api>>, Path(client): Path<String>) -> Answer {
    let id = client.clone();
    let found = api.shards.of(&client, move |sight| {
        let details = sight.shard.describe_client(&id)?;
        let key = details.summary.as_ref().and_then(|summary| summary.connection);
        Some((details, key.and_then(|key| sight.address(key))))
    });
    let Some((details, address)) = found.await? else {
        return Err(Problem::not_found(format!(
            "nothing is known of a client '{}': it has no connection, no session and no moderation",
            shown(&client)
        )));
    };
    let ClientDetails {
        summary: line,
        roles,
        certificate,
        groups,
        provisioned,
        filters,
        session_expiry,
        mailbox_messages,
        stored_messages,
        moderations,
    } = details;
    let mut fields = line.map(|line| summary(&line, address)).unwrap_or_default();
    let names = |groups: Vec<GroupName>| groups.iter().map(GroupName::as_str).collect::<Value>();
    let has_session = !fields.is_empty();
    fields.insert("client".into(), client.into());
    fields.insert("online".into(), fields.get("online").cloned().unwrap_or(false.into()));
    fields.insert("session".into(), has_session.into());
    fields.insert("roles".into(), roles.iter().map(|role| &**role).collect());
    fields.insert("certificate".into(), certificate.as_deref().into());
    fields.insert("groups".into(), names(groups));
    fields.insert("provisioned".into(), names(provisioned));
    fields.insert("filters".into(), filters.iter().map(|filter| &**filter).collect());
    let expiry = (session_expiry != NEVER_EXPIRES).then_some(session_expiry);
    fields.insert("session_expiry_seconds".into(), expiry.into());
    fields.insert("mailbox_messages".into(), mailbox_messages.into());
    fields.insert("stored_messages".into(), stored_messages.into());
    fields.insert("moderations".into(), moderations.iter().map(moderation).collect());
    Ok(Json(fields.into()))
}

async fn groups(State(api): State<Arc<Api>>, query: Result<Query<PageQuery>, QueryRejection>) -> Answer {
    let (query, limit) = PageQuery::without_prefix(query)?;
    let wanted = query.wanted();
    let look = move |shard: &Shard, cursor| shard.group_names(&wanted, cursor);
    let mut names = api.shards.names(limit + 1, look).await?;
    let next = next_of(&mut names, limit);
    let groups: Vec<GroupName> = names.iter().filter_map(|name| GroupName::new(name)).collect();
    let found = api.shards.each(move |sight| {
        groups.iter().filter_map(|group| sight.shard.group_summary(group)).collect::<Vec<_>>()
    });
    let mut all: BTreeMap<GroupName, (usize, usize)> = BTreeMap::new();
    for GroupSummary { group, joined, provisioned } in found.await?.into_iter().flatten() {
        let sum = all.entry(group).or_default();
        *sum = (sum.0 + joined, provisioned.max(sum.1));
    }
    let shown = all.iter().map(|(group, (joined, provisioned))| {
        json!({"group": group.as_str(), "joined": joined, "provisioned": provisioned})
    });
    Ok(Json(json!({"groups": shown.collect::<Vec<_>>(), "next": next})))
}

async fn members(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    let (query, limit) = PageQuery::without_prefix(query)?;
    let (name, wanted) = (group_name(&group)?, query.wanted());
    let of_group = name.clone();
    let look = move |shard: &Shard, cursor| shard.member_names(&of_group, &wanted, cursor);
    let mut names = api.shards.names(limit + 1, look).await?;
    let next = next_of(&mut names, limit);
    let found = api.shards.of_each(names.into_iter().collect(), move |sight, id| {
        let is_online = sight.shard.member_state(&name, id)?;
        Some(json!({"client": id, "online": is_online}))
    });
    Ok(Json(json!({"group": group, "members": found.await?, "next": next})))
}

async fn moderations(State(api): State<Arc<Api>>, query: Result<Query<PageQuery>, QueryRejection>) -> Answer {
    let (PageQuery { after, .. }, limit) = PageQuery::without_prefix(query)?;
    let found = api.shards.each(move |sight| {
        let mut all = sight.shard.moderations();
        all.retain(|one| one.client.as_str() > after.as_str());
        all.sort_by(|one, other| one.client.cmp(&other.client));
        all
    });
    let mut by_client: BTreeMap<ClientId, Vec<Value>> = BTreeMap::new();
    for one in found.await?.into_iter().flatten() {
        by_client.entry(one.client.clone()).or_default().push(moderation(&one));
    }
    // A client's are on one page, which may so be a little longer.
    let (mut listed, mut next) = (Vec::new(), None);
    let mut last: Option<ClientId> = None;
    for (client, all) in by_client {
        if listed.len() >= limit {
            next = last.map(|client| client.as_str().to_owned());
            break;
        }
        listed.extend(all);
        last = Some(client);
    }
    Ok(Json(json!({"moderations": listed, "next": next})))
}

fn moderation(one: &Moderation) -> Value {
    let Moderation { act, client, group, until, by, why } = one;
    json!({
        "act": act.key(),
        "client": client.as_str(),
        "group": group.as_ref().map(GroupName::as_str),
        "until_ms": until.map(|until| until.0),
        "by": by.as_str(),
        "why": &**why,
    })
}

/// What is to be done to a client, where and for how long.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ModerationBody {
    group: Option<String>,
    seconds: Option<u32>,
    why: String,
}

async fn moderate(
    State(api): State<Arc<Api>>,
    Extension(operator): Extension<Operator>,
    Path((client, act)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let act = ModerationAct::from_key(&act).ok_or_else(|| {
        Problem::not_found(format!("'{}' is none of kick, mute, unmute, ban, unban", shown(&act)))
    })?;
    let id = ClientId::new(&client).ok_or_else(|| {
        let detail = format!("'{}' is no client id of 1-64 of A-Z a-z 0-9 . _ : -", shown(&client));
        Problem::new(StatusCode::BAD_REQUEST, "BAD_NAME", detail)
    })?;
    let ModerationBody { group, seconds, why } = body(request).await?;
    let group = group.as_deref().map(group_name).transpose()?;
    if why.len() > MAX_WHY || why.contains(char::is_control) {
        let detail = format!("why, which the client is told, is at most {MAX_WHY} bytes of text on one line");
        return Err(Problem::bad_request(detail));
    }
    let done = json!({
        "act": act.key(), "client": client, "group": group.as_ref().map(GroupName::as_str), "seconds": seconds,
    });
    let asked = ModerationRequest { act, client: id, group, seconds, why: why.into() };
    api.shards.moderate(asked, &operator.shown()).await?.map_err(|refusal| refused(&refusal))?;
    tracing::info!(operator = %operator.name, %act, client = %done["client"], group = %done["group"], "moderated");
    Ok(Json(done))
}

async fn reload_rules(
    State(api): State<Arc<Api>>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    let Nothing {} = body(request).await?;
    let Some(rules) = &api.rules else {
        return Err(Problem::not_found("the rules are in no file: start the gateway with --config"));
    };
    tracing::info!(operator = %operator.name, "the rules are to be read again");
    let (answer, answered) = oneshot::channel();
    let busy = || Problem::unavailable("the rules are being read again just now; try again").after(1);
    rules.try_send(ReloadRequest { by: operator.shown(), answer }).map_err(|_| busy())?;
    match timeout(RELOAD, answered).await {
        Ok(Ok(Ok(()))) => Ok(Json(json!({"rules": "taken"}))),
        Ok(Ok(Err(fault))) => {
            let detail = format!("the rules stay as they are: {fault}");
            Err(Problem::new(StatusCode::CONFLICT, "RULES_REFUSED", detail))
        }
        _ => Err(busy()),
    }
}

/// The JSON of a request. Nothing at all is as good as `{}`.
async fn body<T: DeserializeOwned + Default>(request: Request) -> Result<T, Problem> {
    check_content_type(request.headers())?;
    let read = timeout(BODY, to_bytes(request.into_body(), MAX_BODY)).await;
    let Ok(read) = read else {
        let detail = format!("the body took more than {} s", BODY.as_secs());
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", detail));
    };
    let bytes = read.map_err(|_| {
        let detail = format!("the body is longer than {MAX_BODY} bytes, or didn't come whole");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail)
    })?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    // A list would be taken for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::bad_request("the body is no JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

/// Forms, which pages can send to anywhere, have other types.
fn check_content_type(fields: &HeaderMap) -> Result<(), Problem> {
    let given = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "a POST needs `Content-Type: application/json`, with a body or without";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "BAD_CONTENT_TYPE", detail))
}

fn group_name(text: &str) -> Result<GroupName, Problem> {
    GroupName::new(text).ok_or_else(|| {
        let detail = format!("'{}' is no group name of 1-64 of A-Z a-z 0-9 . _ : -", shown(text));
        Problem::new(StatusCode::BAD_REQUEST, "BAD_NAME", detail)
    })
}

/// Somebody's text as an error may repeat it.
fn shown(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).take(80).collect()
}

fn refused(refusal: &Refusal) -> Problem {
    let status = match refusal.reason {
        Reason::TooMany => StatusCode::CONFLICT,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, refusal.reason.name(), refusal.text.to_string())
}
