//! `bugle init`: what it makes runs as it is, and the commands that it prints work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bugle_tests::{App, Finished, Program, Scratch, Version, bugle_program, free_port};

/// A folder that `bugle init` has made, on free ports, and what it printed.
struct Made {
    scratch: Scratch,
    listen: u16,
    steps: String,
}

impl Made {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let made = Self { scratch, listen: free_port(), steps: String::new() };
        let steps = made.init(&[]).await.expect(0).out;
        Self { steps, ..made }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path("gateway").join(name).display().to_string()
    }

    async fn init(&self, more: &[&str]) -> Finished {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let (listen, local, admin) = (address(self.listen), address(free_port()), address(free_port()));
        let folder = self.path("");
        let all = ["init", &folder, "--listen", &listen, "--local", &local, "--admin", &admin];
        Program::run(bugle_program(), &[&all, more].concat(), b"").await
    }

    /// A printed command, by how it begins, as a shell runs it.
    fn step(&self, begins: &str) -> Vec<String> {
        let line = self.steps.lines().map(str::trim).find(|line| line.starts_with(begins));
        let line = line.unwrap_or_else(|| panic!("no {begins:?} in {}", self.steps));
        let folder = bugle_program().parent().unwrap().display();
        vec!["-c".to_owned(), format!("PATH={folder}:$PATH; exec {line}")]
    }

    async fn serve(&self) -> Program {
        let mut gateway = Program::start("sh", &self.step("bugle serve"));
        gateway.line("/metrics").await;
        gateway
    }
}

#[tokio::test]
async fn mosquitto_pub_and_a_device_are_in_by_the_commands_that_init_prints() {
    let made = Made::new().await;
    let _gateway = made.serve().await;
    let mut watch = Program::start("sh", &made.step("bugle watch"));
    watch.line("watching as device-1").await;
    Program::run("sh", &made.step("mosquitto_pub"), b"").await.expect(0);
    watch.line("hello").await;
    let clients = Program::run("sh", &made.step("bugle clients"), b"").await.expect(0).out;
    assert!(clients.lines().any(|line| line.starts_with("device-1") && line.contains("online")), "{clients}");
}

#[tokio::test]
async fn nobody_is_in_without_what_init_has_made() {
    let made = Made::new().await;
    let _gateway = made.serve().await;
    let config = fs::read_to_string(made.path("bugle.toml")).unwrap();
    let config: toml::Table = toml::from_str(&config).unwrap();
    let local = config["listen"][0].as_str().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let password = fs::read_to_string(made.path("admin-password")).unwrap();
    assert!(App::connect_as(&local, Version::V5, "admin", None).await.is_err());
    assert!(App::connect_as(&local, Version::V5, "admin", Some("admin")).await.is_err());
    let mut admin = App::connect_as(&local, Version::V5, "admin", Some(password.trim())).await.unwrap();
    assert_eq!(admin.publish("home/x", "y").await.reason, "Success");
    // In the clear there is nothing on the port for everyone.
    assert!(App::connect_as(&made.listen, Version::V5, "admin", Some(password.trim())).await.is_err());
}

#[tokio::test]
async fn what_init_makes_is_for_its_owner_and_is_never_overwritten() {
    let made = Made::new().await;
    let folder = made.path("");
    let state = || {
        let mut all: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = state();
    assert_eq!(before.len(), 12, "{:?}", before.iter().map(|(path, _)| path).collect::<Vec<_>>());
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for (path, _) in &before {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    let refused = made.init(&[]).await.expect(2);
    assert!(
        refused.err.contains("bugle.toml") && refused.err.contains("nothing is overwritten"),
        "{refused:?}"
    );
    // Nor is a single one that happens to be there, or the target of a link.
    let other = Scratch::new();
    fs::create_dir(other.path("gateway")).unwrap();
    let precious = other.write("precious", "mine");
    std::os::unix::fs::symlink(&precious, other.path("gateway").join("ca.key")).unwrap();
    let arguments = ["init", &other.path("gateway").display().to_string()].map(str::to_owned);
    let refused = Program::run(bugle_program(), &arguments, b"").await.expect(2);
    assert!(refused.err.contains("ca.key"), "{refused:?}");
    assert_eq!(fs::read_to_string(precious).unwrap(), "mine");
    assert_eq!(fs::read_dir(other.path("gateway")).unwrap().count(), 1);
    assert_eq!(state(), before);
    // No secret is printed, nor in the configuration.
    for name in ["admin-password", "admin-token", "device-1.secret"] {
        let secret = fs::read_to_string(made.path(name)).unwrap();
        assert!(!made.steps.contains(secret.trim()));
        assert!(!fs::read_to_string(made.path("bugle.toml")).unwrap().contains(secret.trim()));
    }
}

#[tokio::test]
async fn openssl_finds_the_certificates_of_init_in_order_and_a_renewed_one_too() {
    let made = Made::new().await;
    let verify = async || {
        let (ca, server) = (made.path("ca.pem"), made.path("server.pem"));
        let arguments =
            ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost", "-CAfile"];
        let arguments = [&arguments[..], &[&ca, &server]].concat();
        Program::run("openssl", &arguments, b"").await.expect(0);
    };
    verify().await;
    let (before, authority) =
        (fs::read(made.path("server.pem")).unwrap(), fs::read(made.path("ca.pem")).unwrap());
    let folder = made.path("");
    let renewed = ["init", &folder, "--renew", "--name", "gateway.example"];
    let told = Program::run(bugle_program(), &renewed, b"").await.expect(0).out;
    assert!(told.contains("gateway.example, localhost"), "{told}");
    assert_ne!(fs::read(made.path("server.pem")).unwrap(), before);
    assert_eq!(fs::read(made.path("ca.pem")).unwrap(), authority);
    verify().await;
    assert!(!Path::new(&made.path("server.pem.new")).exists());
    let nowhere =
        Program::run(bugle_program(), &["init", &made.path("none"), "--renew"], b"").await.expect(2);
    assert!(nowhere.err.contains("ca.pem"), "{nowhere:?}");
}

#[tokio::test]
async fn what_init_cannot_use_is_named() {
    let scratch = Scratch::new();
    let folder = scratch.path("gateway").display().to_string();
    for (arguments, expected) in [
        (["--device", "a b"], "'a b' is no client id"),
        (["--listen", "8883"], "--listen 8883 is no address"),
        (["--name", "a b\u{e4}"], "a b"),
    ] {
        let ended = Program::run(bugle_program(), &[&["init", &folder][..], &arguments].concat(), b"").await;
        assert!(ended.expect(2).err.contains(expected), "{arguments:?}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}
