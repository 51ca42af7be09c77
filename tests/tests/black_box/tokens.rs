//! JSON Web Tokens as MQTT passwords.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bugle_tests::{App, Gateway, Scratch, Setup, Version};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A token that this secret has signed and that is good for so many seconds from now.
fn token(secret: &str, audience: &str, user: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let claims = json!({"sub": user, "aud": audience, "exp": now + seconds, "roles": ["staff"]});
    let [header, claims] =
        [json!({"alg": "HS256", "typ": "JWT"}), claims].map(|part| BASE64.encode(part.to_string()));
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{header}.{claims}").as_bytes());
    format!("{header}.{claims}.{}", BASE64.encode(mac.finalize().into_bytes()))
}

async fn guarded(scratch: &Scratch) -> Gateway {
    let key = scratch.write("key", SECRET);
    let lines = format!(
        "[[rule]]\neffect = 'allow'\nroles = ['staff']\nactions = ['connect', 'join']\n\
         [jwt]\nkeys = ['{key}']\naudience = 'bugle'\n"
    );
    Setup::shards(2).config(&lines).start().await
}

#[tokio::test]
async fn a_token_lets_its_bearer_in_and_no_one_else() {
    let scratch = Scratch::new();
    let gateway = guarded(&scratch).await;
    for version in [Version::V311, Version::V5] {
        let good = token(SECRET, "bugle", "anna", 60);
        let mut anna = App::connect_as(&gateway, version, "anna", Some(&good)).await.unwrap();
        assert_eq!(anna.subscribe("sig/g/floor").await, ["Success(AtLeastOnce)"], "her role is in it");
        for (id, password) in [
            ("bob", good.as_str()),
            ("anna", &token(SECRET, "another", "anna", 60)),
            ("anna", &token(SECRET, "bugle", "anna", -60)),
            ("anna", &token("another secret, as long as that", "bugle", "anna", 60)),
            ("anna", "mellon"),
            ("anna", ""),
        ] {
            let error = App::connect_as(&gateway, version, id, Some(password)).await.err();
            let error = error.unwrap_or_else(|| panic!("{id} was let in by {password}"));
            assert!(error.contains("BadUserNamePassword") || error.contains("NotAuthorized"), "{error}");
        }
    }
    assert!(!gateway.seen().contains("eyJ"), "no token is logged");
}

#[tokio::test]
async fn a_connection_ends_with_its_token_and_a_new_key_holds_for_new_ones() {
    let scratch = Scratch::new();
    let mut gateway = guarded(&scratch).await;
    let short = token(SECRET, "bugle", "anna", -2); // the leeway is five seconds
    let mut anna = App::connect_as(&gateway, Version::V5, "anna", Some(&short)).await.unwrap();
    let ended = anna.ended().await;
    assert!(ended.contains("NotAuthorized"), "{ended}");
    let new = "fedcba9876543210fedcba9876543210";
    scratch.write("key", new);
    gateway.reload().await;
    let (fresh, old) = (token(new, "bugle", "anna", 60), token(SECRET, "bugle", "anna", 60));
    let started = std::time::Instant::now();
    while App::connect_as(&gateway, Version::V5, "anna", Some(&fresh)).await.is_err() {
        assert!(started.elapsed() < bugle_tests::PATIENCE, "{}", gateway.seen());
    }
    assert!(App::connect_as(&gateway, Version::V5, "anna", Some(&old)).await.is_err());
}
