//! What operators do in a terminal: `bugle clients`, `groups`, `presence`, `moderations`, `kick`, `mute`, `unmute`, `ban`, `unban` and
//! `rules reload`, all of them requests to the admin API of a running gateway.

mod connection;

use std::io::Write;
use std::process::ExitCode;

use bugle_core::model::ModerationAct;
use serde_json::{Value, json};

use crate::cli::{AdminOptions, ClientsOptions, GroupsOptions, ModerateOptions, PresenceOptions};
use crate::client::Failure;
use connection::AdminConnection;

/// Entries that are asked for at a time.
const PAGE: usize = 1000;

/// Lists clients, or tells of one.
pub async fn clients(options: &ClientsOptions) -> ExitCode {
    report(async {
        let mut connection = AdminConnection::open(&options.admin).await?;
        if let Some(client) = &options.client {
            let one = connection.get(&format!("/clients/{}", encoded(client))).await?;
            return say(&if options.json { one.to_string() } else { described(&one) });
        }
        let prefix = options.prefix.as_deref().unwrap_or_default();
        let path = format!("/clients?prefix={}&", encoded(prefix));
        let heads = ["CLIENT", "STATE", "PROTOCOL", "ADDRESS", "USER", "GROUPS", "FILTERS"];
        list(&mut connection, &path, "clients", options.json, &heads, |one| {
            let mut cells = vec![word(&one["client"]), state(one)];
            cells.extend(["protocol", "address", "user", "groups", "filters"].map(|key| word(&one[key])));
            cells
        })
        .await
    })
    .await
}

/// Lists groups.
pub async fn groups(options: &GroupsOptions) -> ExitCode {
    report(async {
        let mut connection = AdminConnection::open(&options.admin).await?;
        list(
            &mut connection,
            "/groups?",
            "groups",
            options.json,
            &["GROUP", "JOINED", "PROVISIONED"],
            |one| ["group", "joined", "provisioned"].map(|key| word(&one[key])).into(),
        )
        .await
    })
    .await
}

/// Lists the members of a group.
pub async fn presence(options: &PresenceOptions) -> ExitCode {
    report(async {
        let mut connection = AdminConnection::open(&options.admin).await?;
        let path = format!("/groups/{}/members?", encoded(&options.group));
        list(&mut connection, &path, "members", options.json, &["CLIENT", "STATE"], |one| {
            vec![word(&one["client"]), state(one)]
        })
        .await
    })
    .await
}

/// Lists mutes and bans.
pub async fn moderations(options: &GroupsOptions) -> ExitCode {
    report(async {
        let mut connection = AdminConnection::open(&options.admin).await?;
        let heads = ["CLIENT", "ACT", "GROUP", "UNTIL_MS", "BY", "WHY"];
        list(&mut connection, "/moderations?", "moderations", options.json, &heads, |one| {
            ["client", "act", "group", "until_ms", "by", "why"].map(|key| word(&one[key])).into()
        })
        .await
    })
    .await
}

/// Kicks, mutes or bans, or ends that.
pub async fn moderate(act: ModerationAct, options: &ModerateOptions, seconds: Option<u32>) -> ExitCode {
    report(async {
        let mut connection = AdminConnection::open(&options.admin).await?;
        let path = format!("/clients/{}/{act}", encoded(&options.client));
        let why = options.why.as_deref().unwrap_or_default();
        let done =
            connection.post(&path, &json!({"group": options.group, "seconds": seconds, "why": why})).await?;
        if options.json {
            return say(&done.to_string());
        }
        let place = options.group.as_deref().map_or("everywhere".to_owned(), |group| format!("in {group}"));
        let time = seconds.map_or(String::new(), |seconds| format!(", for {seconds} s"));
        say(&format!("{act} {}: done, {place}{time}", options.client))
    })
    .await
}

/// Has the rules read again.
pub async fn reload_rules(options: &AdminOptions) -> ExitCode {
    report(async {
        let mut connection = AdminConnection::open(options).await?;
        connection.post("/rules/reload", &json!({})).await?;
        say("the rules were read again, and hold everywhere")
    })
    .await
}

async fn report(done: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    match done.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Prints a list of however many pages: as one JSON object a line, or as columns.
async fn list(
    connection: &mut AdminConnection,
    path: &str,
    name: &str,
    is_json: bool,
    heads: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<(), Failure> {
    let mut rows = vec![heads.iter().map(|&head| head.to_owned()).collect::<Vec<_>>()];
    let mut after = String::new();
    loop {
        let page = connection.get(&format!("{path}limit={PAGE}&after={}", encoded(&after))).await?;
        for one in page[name].as_array().into_iter().flatten() {
            if is_json {
                say(&one.to_string())?;
            } else {
                rows.push(row(one));
            }
        }
        match page["next"].as_str() {
            Some(next) if next > after.as_str() => next.clone_into(&mut after),
            _ => break,
        }
    }
    if is_json {
        return Ok(());
    }
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A line on stdout. Who doesn't read on has had enough.
fn say(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::Usage(format!("cannot write: {error}")))
}

/// A client, a line for each thing that is known of it.
fn described(one: &Value) -> String {
    let fields = one.as_object().into_iter().flatten();
    let lines = fields.map(|(key, value)| match value {
        Value::Array(entries) if entries.is_empty() => format!("{key}: -"),
        Value::Array(entries) => {
            format!("{key}: {}", entries.iter().map(word).collect::<Vec<_>>().join(", "))
        }
        value => format!("{key}: {}", word(value)),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn state(one: &Value) -> String {
    if one["online"] == true { "online".to_owned() } else { "offline".to_owned() }
}

/// A value as a cell has it.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => plain(text),
        value => plain(&value.to_string()),
    }
}

/// Without what a terminal would obey: client ids and reasons are other people's.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(
            |one| if one.is_control() && one != '\n' { one.escape_default().collect() } else { vec![one] },
        )
        .collect()
}

/// As it stands in a path or a query.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_reach_neither_the_path_nor_the_terminal_as_something_else() {
        assert_eq!(encoded("a/b?c&d=%\u{e4}"), "a%2Fb%3Fc%26d%3D%25%C3%A4");
        assert_eq!(encoded("lamp-1"), "lamp-1");
        assert_eq!(plain("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(word(&json!("a\u{7}")), "a\\u{7}");
        assert_eq!(
            (word(&json!(null)), word(&json!("")), word(&json!(3))),
            ("-".into(), "-".into(), "3".into())
        );
    }
}
