//! The command line. Its values are checked further where they are used: [`crate::config`] for `serve`.

use std::path::PathBuf;

use bugle_core::rules::Action;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::bench::options::BenchCommand;

/// Where `send` and `watch` look for the gateway.
const SERVER: &str = "127.0.0.1:1883";

/// Bugle: an IoT signalling gateway.
///
/// Without a command it serves, with the defaults.
#[derive(Debug, Parser)]
#[command(name = "bugle", version, arg_required_else_help = false)]
pub struct Arguments {
    /// What to log to stderr: a level, or a filter as `bugle=debug`.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    Serve(ServeOptions),
    /// Send a signal, and tell what became of it.
    ///
    /// Exit code: 0 accepted, 1 refused, 2 bad usage, 3 no connection.
    Send(SendOptions),
    /// Join groups and print what comes in.
    ///
    /// Exit code: 0 done, 1 refused, 2 bad usage, 3 no connection.
    Watch(WatchOptions),
    /// Show the four modes and the refusals, on a gateway of its own.
    Demo,
    /// Make a folder with all that a gateway needs to be safe: certificates, an operator, a user, a device, rules, and a
    /// configuration that runs as it is.
    ///
    /// Nothing that is there is overwritten.
    Init(InitOptions),
    /// Set a user's password in a password file, which is made if it isn't there.
    ///
    /// The password is asked for, or read from standard input. A gateway that uses the file takes it a second later.
    Passwd(PasswdOptions),
    /// Devices and their secrets.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Operators of the admin API and their tokens.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// List the clients of a running gateway, or tell of one.
    ///
    /// Exit code: 0 done, 1 refused, 2 bad usage, 3 no connection. So have the other commands for operators.
    Clients(ClientsOptions),
    /// List the groups of a running gateway.
    Groups(GroupsOptions),
    /// List the members of a group, online or not.
    Presence(PresenceOptions),
    /// List the mutes and bans that are in force.
    Moderations(GroupsOptions),
    /// Have a client leave, which may come back.
    Kick(ModerateOptions),
    /// Let a client send nothing.
    Mute(TimedOptions),
    /// End a mute.
    Unmute(ModerateOptions),
    /// Have a client leave, which may not come back.
    Ban(TimedOptions),
    /// End a ban.
    Unban(ModerateOptions),
    /// Back up the store of a gateway, or look whether a store is sound.
    ///
    /// Exit code: 0 done, or sound, 1 not sound, 2 bad usage or a file that can't be used.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Ask the rules what they say, and test them against what you expect.
    ///
    /// Exit code: 0 allowed, or all as expected, 1 not, 2 bad usage or a file that can't be used.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Measure a broker: this one, or any that speaks MQTT 3.1.1.
    ///
    /// Exit code: 0 done, 1 refused, or something is missing that was promised, 2 bad usage, 3 no connection.
    #[command(subcommand)]
    Bench(BenchCommand),
}

impl Default for Command {
    fn default() -> Self {
        Self::Serve(ServeOptions::default())
    }
}

/// How to serve. What is given here replaces what the file says.
#[derive(Debug, Default, Args)]
pub struct ServeOptions {
    /// Where MQTT clients and devices connect; may be repeated [default: 127.0.0.1:1883].
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Where health and metrics are; `none` turns them off [default: 127.0.0.1:8088].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where what must last is kept; made if it isn't there.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How many threads share the clients [default: one per core].
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Print the configuration that holds, without secrets, and end.
    #[arg(long)]
    pub print_config: bool,
}

/// What to make.
#[derive(Debug, Args)]
pub struct InitOptions {
    /// The folder; made if it isn't there.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// A name or address by which clients will know the gateway; may be repeated. This machine's own come by themselves.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Where clients connect, within TLS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8883")]
    pub listen: String,
    /// Where this machine's own connect, in the clear.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    pub local: String,
    /// Where the admin API is.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8088")]
    pub admin: String,
    /// The client id of the first device.
    #[arg(long, value_name = "ID", default_value = "device-1")]
    pub device: String,
    /// Make a new certificate for the gateway, by the authority that is in the folder, in the place of the old one.
    #[arg(long, conflicts_with_all = ["listen", "local", "admin", "device"])]
    pub renew: bool,
}

impl InitOptions {
    /// The port where clients connect within TLS; an error if `--listen`, `--local` or `--admin` is no address.
    pub fn port(&self) -> Result<u16, String> {
        for (option, text) in [("--listen", &self.listen), ("--local", &self.local), ("--admin", &self.admin)]
        {
            if text.parse::<std::net::SocketAddr>().is_err() {
                return Err(format!("{option} {text} is no address with a port, as 0.0.0.0:8883"));
            }
        }
        Ok(self.listen.parse::<std::net::SocketAddr>().map_or(0, |address| address.port()))
    }
}

/// Whose password.
#[derive(Debug, Args)]
pub struct PasswdOptions {
    /// The password file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The user.
    #[arg(value_name = "USER")]
    pub user: String,
    /// Client ids that he may come as, `*` for any run of characters; may be repeated [default: any that is nobody else's].
    #[arg(long = "client", value_name = "PATTERN")]
    pub clients: Vec<String>,
    /// A role of his; may be repeated.
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// Take the user out.
    #[arg(long, conflicts_with_all = ["clients", "roles"])]
    pub delete: bool,
}

/// What to do about devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Make a secret for a device, note it in the file, and print it.
    Add(DeviceAddOptions),
}

/// Which device.
#[derive(Debug, Args)]
pub struct DeviceAddOptions {
    /// The device's client id.
    #[arg(value_name = "ID")]
    pub id: String,
    /// The file of devices' secrets; made if it isn't there.
    #[arg(long, value_name = "FILE", default_value = "devices")]
    pub file: PathBuf,
    /// A role of the device; may be repeated.
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// Replace the secret that it has.
    #[arg(long)]
    pub replace: bool,
}

/// What to do about operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make a token for an operator, note its hash in the file, and print it.
    Add(OperatorAddOptions),
}

/// Which operator.
#[derive(Debug, Args)]
pub struct OperatorAddOptions {
    /// The operator's name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The file of operators; made if it isn't there.
    #[arg(long, value_name = "FILE", default_value = "operators")]
    pub file: PathBuf,
    /// He may look, and change nothing.
    #[arg(long)]
    pub viewer: bool,
    /// Replace the token that he has.
    #[arg(long)]
    pub replace: bool,
}

/// Which gateway, and as which operator.
#[derive(Debug, Args)]
pub struct AdminOptions {
    /// Its admin port, as host:port, or with http:// or https:// before it [default: what --config says, else 127.0.0.1:8088].
    #[arg(long, value_name = "ADDR", env = "BUGLE_ADMIN")]
    pub admin: Option<String>,
    /// A file with the operator's token [default: token_file in [admin_api] of --config].
    #[arg(long, value_name = "FILE", env = "BUGLE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The token itself, which is no option: others would see it in the list of processes.
    #[arg(skip = std::env::var("BUGLE_TOKEN").ok())]
    pub token: Option<String>,
    /// The authority that signed the admin port's certificate, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE", env = "BUGLE_CA")]
    pub ca: Option<PathBuf>,
    /// The gateway's configuration, for what isn't given otherwise.
    #[arg(long, value_name = "FILE", env = "BUGLE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Which clients.
#[derive(Debug, Args)]
pub struct ClientsOptions {
    /// This one, with all that is known of it.
    #[arg(value_name = "CLIENT_ID", conflicts_with = "prefix")]
    pub client: Option<String>,
    /// Those whose ids begin so.
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// A list without choices.
#[derive(Debug, Args)]
pub struct GroupsOptions {
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// Whose members.
#[derive(Debug, Args)]
pub struct PresenceOptions {
    /// The group.
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// Whom, and where.
#[derive(Debug, Args)]
pub struct ModerateOptions {
    /// The client.
    #[arg(value_name = "CLIENT_ID")]
    pub client: String,
    /// In this group [default: everywhere].
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// What the client is told.
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// The same, for a time.
#[derive(Debug, Args)]
pub struct TimedOptions {
    /// For so many seconds [default: for good].
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// Whom.
    #[command(flatten)]
    pub moderate: ModerateOptions,
}

/// What to do about a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy all that is committed at this moment into a new file. The gateway may be running, and isn't held up.
    Backup(StoreBackupOptions),
    /// Look through a store, or a backup, and say what is in it and whether it is sound.
    Verify(StoreVerifyOptions),
}

/// From where to where.
#[derive(Debug, Args)]
pub struct StoreBackupOptions {
    /// The data directory of the gateway.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The new file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Which store.
#[derive(Debug, Args)]
pub struct StoreVerifyOptions {
    /// A backup, or bugle.sqlite3 of a data directory.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What to ask of the rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Say whether something is allowed, and which line decides it.
    Explain(ExplainOptions),
    /// Run a table of expectations.
    Test(TestOptions),
    /// Have a running gateway read its rules again, and hear how that went.
    Reload(AdminOptions),
}

/// Which rules.
#[derive(Clone, Debug, Args)]
pub struct RulesFileOptions {
    /// A rules file.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub rules: Option<PathBuf>,
    /// A configuration: its rules, or those of the file that it names.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take the rules file as it holds for a gateway where nobody has to prove himself.
    #[arg(long, requires = "rules")]
    pub open: bool,
}

/// What is asked.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("about").args(["group", "to", "topic"])))]
pub struct ExplainOptions {
    /// Which rules.
    #[command(flatten)]
    pub file: RulesFileOptions,
    /// The client id.
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// The user as whom it authenticated.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A role that its credential gives it; may be repeated. Those of the rules come by themselves.
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// The name in its certificate.
    #[arg(long, value_name = "NAME")]
    pub certificate: Option<String>,
    /// What it wants to do: connect, send, urgent, join, receive, observe, presence, moderate, publish, subscribe, admin.
    #[arg(long, value_parser = action)]
    pub action: Action,
    /// To or in which group.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// To which client; for receive, from which.
    #[arg(long, value_name = "ID")]
    pub to: Option<String>,
    /// To which topic, or with which filter.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// What is expected.
#[derive(Debug, Args)]
pub struct TestOptions {
    /// The table, in TOML: `[[expect]]` with client, user, roles, certificate; actions; group, to or topic; verdict.
    #[arg(value_name = "FILE")]
    pub table: PathBuf,
    /// Which rules [default: what the table's `rules` names].
    #[command(flatten)]
    pub file: RulesFileOptions,
}

fn action(text: &str) -> Result<Action, String> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let word: StrDeserializer<'_, Error> = text.into_deserializer();
    serde::Deserialize::deserialize(word).map_err(|error| error.to_string())
}

/// How to reach the gateway, and as whom.
#[derive(Debug, Args)]
pub struct ConnectOptions {
    /// The gateway.
    #[arg(long, value_name = "ADDR", default_value = SERVER)]
    pub server: String,
    /// The own client id [default: the command's name and the process id].
    #[arg(long = "as", value_name = "CLIENT_ID")]
    pub client_id: Option<String>,
    /// A file with the secret of that client id; the end of the line is not part of it.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

/// What to send, and to whom.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("recipient").required(true).args(["group", "to"])))]
pub struct SendOptions {
    /// To the members of this group.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Only to these of them, separated by commas.
    #[arg(long, value_name = "IDS", requires = "group", conflicts_with = "to")]
    pub only: Option<String>,
    /// To all of them but these, separated by commas.
    #[arg(long, value_name = "IDS", requires = "group", conflicts_with = "to")]
    pub except: Option<String>,
    /// To this client.
    #[arg(long, value_name = "CLIENT_ID")]
    pub to: Option<String>,
    /// Milliseconds after which it is no longer delivered.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: Option<u32>,
    /// What to hear of the recipients.
    #[arg(long, value_enum, default_value_t = ReceiptChoice::Summary)]
    pub receipt: ReceiptChoice,
    /// Overtake what isn't urgent.
    #[arg(long)]
    pub urgent: bool,
    /// Deliver it to the sender too, if it is a member.
    #[arg(long)]
    pub echo: bool,
    /// Keep it for recipients that are offline.
    #[arg(long)]
    pub store: bool,
    /// An id under which the gateway accepts it once.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The gateway.
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// The message; read from stdin if it isn't given.
    pub payload: Option<String>,
}

/// What the sender wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReceiptChoice {
    /// Only that it was accepted.
    None,
    /// How many recipients ended how.
    Summary,
    /// Each recipient by name.
    Each,
}

/// What to watch.
#[derive(Debug, Args)]
pub struct WatchOptions {
    /// A group to join; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// A plain topic filter to subscribe to; may be repeated.
    #[arg(long = "topic", value_name = "FILTER")]
    pub topics: Vec<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// End after this many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The gateway.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        let arguments = Arguments::parse_from(["bugle"]);
        assert!(matches!(arguments.command.unwrap_or_default(), Command::Serve(_)));
    }
}
