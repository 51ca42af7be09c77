//! Any text where credentials are read: files, tokens, and what the hook answers.

use bugle_core::hub::{AuthenticationRequest, ConnectionKey, Judgement};
use bugle_core::model::Identity;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

use super::passwords::PasswordFile;
use super::tokens::{self, TokenKeys};
use super::{devices, hook};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn request(client: &str, password: Vec<u8>) -> AuthenticationRequest {
    AuthenticationRequest {
        key: ConnectionKey::default(),
        identity: Identity::new(client),
        is_assigned: false,
        user: "anna".to_owned(),
        password: password.into(),
    }
}

/// Reads a file of devices, and one of passwords: what is wrong in it is told by its line, and without what may be a secret.
pub fn credential_files(text: &str) {
    let lines = text.lines().count();
    for error in [devices::fuzz(text), PasswordFile::fuzz(text)].into_iter().flatten() {
        let line = error.strip_prefix("line ").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{error}");
    }
}

/// Judges any bytes as a token: nobody has signed them.
pub fn token(bytes: &[u8]) {
    let keys = TokenKeys::fuzz(SECRET).expect("it is a secret");
    if TokenKeys::is_token(bytes) {
        let judgement = keys.judge(&request("anna-1", bytes.to_vec()));
        assert!(matches!(judgement, Judgement::Wrong), "{judgement:?}");
    }
    // The same as claims, signed: only some let anybody in.
    let Ok(claims) = serde_json::from_slice::<Value>(bytes) else { return };
    let header = Header::new(Algorithm::HS256);
    let Ok(signed) = encode(&header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())) else { return };
    match keys.judge(&request("anna-1", signed.into_bytes())) {
        Judgement::GoodFor(principal, _) => {
            let audience = &claims["aud"];
            let lists = audience.as_array().is_some_and(|all| all.iter().any(|one| one == "bugle"));
            assert!(audience == "bugle" || lists, "{claims}");
            assert!(claims["iss"] == "https://id.example" || claims["iss"].is_array(), "{claims}");
            assert!(claims["exp"].is_number(), "{claims}");
            assert_eq!(claims["sub"].as_str(), principal.user.as_deref());
            let clients = &claims["client_id"];
            assert!(clients.is_string() || clients.is_array() || claims["sub"] == "anna-1", "{claims}");
        }
        Judgement::Wrong | Judgement::NotThisClient => {}
        other => panic!("{other:?} for {claims}"),
    }
}

/// Reads any text as a file with keys for tokens.
pub fn token_keys(text: &str) {
    if let Err(error) = tokens::fuzz_keys(text) {
        assert!(!error.is_empty());
    }
}

/// Takes any body as the hook's answer.
pub fn hook_answer(body: &[u8]) {
    match hook::fuzz_answer(body, &request("anna-1", b"mellon".to_vec())) {
        Some(Judgement::Good(principal) | Judgement::GoodFor(principal, _)) => {
            assert!(principal.user.as_ref().is_some_and(|user| !user.is_empty()));
            // What isn't looked at in it may be no text.
            let Ok(answer) = serde_json::from_slice::<Value>(body) else { return };
            assert!(answer.get(0) == Some(&Value::Bool(true)) || answer["allow"] == true, "{answer}");
        }
        Some(_) | None => {}
    }
}
