//! JSON Web Tokens (RFC 7519) as passwords: who signed one says who its bearer is, which client ids he may use, his roles, and
//! until when.
//!
//! A key decides by itself which algorithm it is for, so that a public key can never be taken for a secret; nothing in a token's
//! header is believed but which of the keys it may be. Tokens without an expiry are refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bugle_core::hub::{AuthenticationRequest, Judgement};
use bugle_core::model::Principal;
use bugle_core::rules::Pattern;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::read;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Shortest secret of HS256, in bytes: as long as what it makes (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 5;

/// How tokens are looked at, as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// Files with keys: a JWKS, a public key in PEM (RSA for RS256, P-256 for ES256), or a secret (HS256).
    pub keys: Vec<PathBuf>,
    /// What `aud` has to be or contain.
    pub audience: String,
    /// What `iss` has to be, if that is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The claim with the user name. A dot leads into an object.
    #[serde(default = "sub")]
    pub user_claim: String,
    /// The claim with the client ids that may be used, one or a list, `*` for any run of characters. Where a token hasn't
    /// got it, the client id has to be the user name.
    #[serde(default = "client_id")]
    pub client_claim: String,
    /// The claims with the roles, each a list or one text with spaces between them. More than one for
    /// issuers that tell groups apart from roles.
    #[serde(default = "roles")]
    pub role_claim: RoleClaims,
}

/// One claim, or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum RoleClaims {
    /// This.
    One(String),
    /// What all of these have together.
    Several(Vec<String>),
}

impl RoleClaims {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

fn sub() -> String {
    "sub".to_owned()
}

fn client_id() -> String {
    "client_id".to_owned()
}

fn roles() -> RoleClaims {
    RoleClaims::One("roles".to_owned())
}

/// Keys, and what their tokens have to say.
pub struct TokenKeys {
    settings: TokenSettings,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    algorithm: Algorithm,
}

impl TokenKeys {
    /// Reads the keys; the error names the file.
    pub fn load(settings: &TokenSettings) -> Result<Self, String> {
        let mut keys = Vec::new();
        for path in &settings.keys {
            let text = read(path)?;
            keys.extend(parse(&text).map_err(|error| format!("{}: {error}", path.display()))?);
        }
        if keys.is_empty() {
            return Err("[jwt] names no keys that can be used: nobody's token could be good".to_owned());
        }
        Ok(Self { settings: settings.clone(), keys })
    }

    /// Whether a password looks like a token, and is to be judged as one.
    pub fn is_token(password: &[u8]) -> bool {
        password.starts_with(b"eyJ") && password.iter().filter(|&&byte| byte == b'.').count() == 2
    }

    /// Judges a token.
    pub fn judge(&self, request: &AuthenticationRequest) -> Judgement {
        let Some(claims) = self.verified(&request.password) else { return Judgement::Wrong };
        let claim =
            |path: &str| path.split('.').try_fold(&claims, |object, name| object.as_object()?.get(name));
        let Some(user) =
            claim(&self.settings.user_claim).and_then(Value::as_str).filter(|user| !user.is_empty())
        else {
            return Judgement::Wrong;
        };
        let id = request.identity.as_str();
        let may_be = match claim(&self.settings.client_claim) {
            None => id == user,
            Some(Value::String(pattern)) => Pattern::new(pattern).matches(id),
            Some(Value::Array(patterns)) => {
                patterns.iter().filter_map(Value::as_str).any(|pattern| Pattern::new(pattern).matches(id))
            }
            Some(_) => false,
        };
        if !may_be && !request.is_assigned {
            return Judgement::NotThisClient;
        }
        let mut roles: Vec<Arc<str>> = Vec::new();
        for name in self.settings.role_claim.names() {
            match claim(name) {
                Some(Value::String(text)) => roles.extend(text.split_whitespace().map(Into::into)),
                Some(Value::Array(list)) => {
                    roles.extend(list.iter().filter_map(Value::as_str).map(Into::into))
                }
                _ => {}
            }
        }
        let principal = Arc::new(Principal { roles, ..Principal::user(user) });
        let Some(expiry) = claims.get("exp").and_then(Value::as_u64) else { return Judgement::Wrong };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        Judgement::GoodFor(principal, expiry.saturating_add(LEEWAY).saturating_sub(now).saturating_mul(1000))
    }

    /// The claims of a token that one of the keys has signed, and that is for this gateway and for now.
    fn verified(&self, token: &[u8]) -> Option<Value> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = decode_header(token).ok()?;
        let may_be = |key: &&Key| {
            key.algorithm == header.alg && (key.id.is_none() || header.kid.is_none() || key.id == header.kid)
        };
        self.keys.iter().filter(may_be).find_map(|key| {
            let mut validation = Validation::new(key.algorithm);
            validation.leeway = LEEWAY;
            validation.validate_nbf = true;
            validation.set_audience(&[&self.settings.audience]);
            validation.set_required_spec_claims(&["exp", "aud"]);
            if let Some(issuer) = &self.settings.issuer {
                validation.set_issuer(&[issuer]);
                validation.set_required_spec_claims(&["exp", "aud", "iss"]);
            }
            let claims = decode::<Map<String, Value>>(token, &key.key, &validation).ok()?.claims;
            Some(Value::Object(claims))
        })
    }
}

fn parse(text: &str) -> Result<Vec<Key>, String> {
    let text = text.trim();
    if text.starts_with('{') {
        let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("no JWKS: {error}"))?;
        return set.keys.iter().filter_map(from_jwk).collect();
    }
    let key = |key, algorithm| Ok(vec![Key { id: None, key, algorithm }]);
    if text.starts_with("-----BEGIN") {
        if let Ok(public) = DecodingKey::from_rsa_pem(text.as_bytes()) {
            return key(public, Algorithm::RS256);
        }
        return match DecodingKey::from_ec_pem(text.as_bytes()) {
            Ok(public) => key(public, Algorithm::ES256),
            Err(error) => Err(format!("no public key of RSA or P-256 in PEM: {error}")),
        };
    }
    if text.len() < MIN_SECRET {
        return Err(format!("a secret of {} bytes; HS256 needs {MIN_SECRET} or more", text.len()));
    }
    key(DecodingKey::from_secret(text.as_bytes()), Algorithm::HS256)
}

/// A key of a set; none if it is for something else, which sets may have, too.
fn from_jwk(jwk: &jsonwebtoken::jwk::Jwk) -> Option<Result<Key, String>> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        _ => return None,
    };
    let named = match jwk.common.key_algorithm {
        None => algorithm,
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::HS256) => Algorithm::HS256,
        Some(_) => return None,
    };
    if named != algorithm {
        return Some(Err("a key of the set is named for an algorithm that its kind isn't for".to_owned()));
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("a key of the set can't be used: {error}"));
    Some(key.map(|key| Key { id: jwk.common.key_id.clone(), key, algorithm }))
}

/// What is wrong with this text as a file with keys.
#[cfg(fuzzing)]
pub fn fuzz_keys(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

#[cfg(fuzzing)]
impl TokenKeys {
    /// With one secret.
    pub fn fuzz(secret: &str) -> Result<Self, String> {
        let settings = TokenSettings {
            keys: Vec::new(),
            audience: "bugle".to_owned(),
            issuer: Some("https://id.example".to_owned()),
            user_claim: sub(),
            client_claim: client_id(),
            role_claim: roles(),
        };
        Ok(Self { settings, keys: parse(secret)? })
    }
}

impl std::fmt::Debug for TokenKeys {
    /// Says how many there are, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKeys({})", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use bugle_core::hub::ConnectionKey;
    use bugle_core::model::Identity;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rcgen::KeyPair;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn keys(text: &str) -> TokenKeys {
        let settings: TokenSettings =
            serde_json::from_value(json!({"keys": [], "audience": "bugle", "issuer": "https://id.example"}))
                .unwrap();
        TokenKeys { settings, keys: parse(text).unwrap() }
    }

    fn claims(changes: Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"sub": "anna", "aud": "bugle", "iss": "https://id.example", "exp": now + 60,
                                "client_id": "anna-*", "roles": ["operator"]});
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    }

    fn judge(keys: &TokenKeys, token: &str, client: &str) -> String {
        let request = AuthenticationRequest {
            key: ConnectionKey::default(),
            identity: Identity::new(client),
            is_assigned: false,
            user: String::new(),
            password: token.as_bytes().into(),
        };
        match keys.judge(&request) {
            Judgement::GoodFor(principal, millis) => {
                assert!((50_000..=66_000).contains(&millis), "{millis}");
                format!("{} {:?}", principal.user.as_deref().unwrap(), principal.roles)
            }
            judgement => format!("{judgement:?}"),
        }
    }

    fn hs(secret: &str, claims: &Value) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_good_token_says_who_its_bearer_is() {
        let keys = keys(SECRET);
        let token = hs(SECRET, &claims(json!({})));
        assert!(TokenKeys::is_token(token.as_bytes()) && !TokenKeys::is_token(b"mellon"));
        assert_eq!(judge(&keys, &token, "anna-1"), "anna [\"operator\"]");
        assert_eq!(judge(&keys, &token, "anna"), "NotThisClient");
        let listed = hs(SECRET, &claims(json!({"client_id": ["panel", "door"], "roles": "a b"})));
        assert_eq!(judge(&keys, &listed, "door"), "anna [\"a\", \"b\"]");
    }

    #[test]
    fn groups_of_the_issuer_are_roles_beside_its_roles() {
        let mut keys = keys(SECRET);
        keys.settings.role_claim = serde_json::from_value(json!(["roles", "groups", "realm.more"])).unwrap();
        let changes = json!({"groups": ["floor3"], "realm": {"more": "x y"}});
        let token = hs(SECRET, &claims(changes));
        let expected = "anna [\"operator\", \"floor3\", \"x\", \"y\"]";
        assert_eq!(judge(&keys, &token, "anna-1"), expected);
        let without = hs(SECRET, &claims(json!({"groups": 7})));
        assert_eq!(judge(&keys, &without, "anna-1"), "anna [\"operator\"]");
    }

    #[test]
    fn expired_early_foreign_and_forged_tokens_are_wrong() {
        let keys = keys(SECRET);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        for changes in [
            json!({"exp": now - 60}),
            json!({"exp": null}),
            json!({"exp": "never"}),
            json!({"nbf": now + 600}),
            json!({"aud": "another"}),
            json!({"aud": null}),
            json!({"iss": "https://evil.example"}),
            json!({"iss": null}),
            json!({"sub": ""}),
            json!({"sub": 7}),
        ] {
            assert_eq!(judge(&keys, &hs(SECRET, &claims(changes.clone())), "anna-1"), "Wrong", "{changes}");
        }
        assert_eq!(
            judge(&keys, &hs("another secret of the same length", &claims(json!({}))), "anna-1"),
            "Wrong"
        );
        let good = hs(SECRET, &claims(json!({})));
        let (rest, signature) = good.rsplit_once('.').unwrap();
        assert_eq!(judge(&keys, &format!("{rest}."), "anna-1"), "Wrong", "no signature");
        assert_eq!(judge(&keys, &format!("{rest}x.{signature}"), "anna-1"), "Wrong", "another payload");
        // {"alg":"none"}
        let payload = rest.split_once('.').unwrap().1;
        assert_eq!(judge(&keys, &format!("eyJhbGciOiJub25lIn0.{payload}."), "anna-1"), "Wrong");
        assert_eq!(judge(&keys, "eyJ.x.y", "anna-1"), "Wrong");
    }

    #[test]
    fn a_public_key_was_taken_for_a_secret() {
        let pair = KeyPair::generate().unwrap();
        let pem = pem_of(&pair);
        let keys = keys(&pem);
        let es = |key: &KeyPair| {
            let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
            encode(&Header::new(Algorithm::ES256), &claims(json!({})), &key).unwrap()
        };
        assert_eq!(judge(&keys, &es(&pair), "anna-1"), "anna [\"operator\"]");
        assert_eq!(judge(&keys, &es(&KeyPair::generate().unwrap()), "anna-1"), "Wrong");
        assert_eq!(judge(&keys, &hs(pem.trim(), &claims(json!({}))), "anna-1"), "Wrong");
    }

    #[test]
    fn a_set_has_its_keys_by_their_ids() {
        // SECRET in base64url, and a key for something else.
        let set = json!({"keys": [
            {"kty": "oct", "kid": "one", "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
        let keys = keys(&set.to_string());
        assert_eq!(keys.keys.len(), 1);
        let token = |kid: &str| {
            let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
            encode(&header, &claims(json!({})), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
        };
        assert_eq!(judge(&keys, &token("one"), "anna-1"), "anna [\"operator\"]");
        assert_eq!(judge(&keys, &token("two"), "anna-1"), "Wrong");
        for (text, expected) in
            [("short", "32 or more"), ("{}", "no JWKS"), ("-----BEGIN X", "no public key")]
        {
            let error = parse(text).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }

    fn pem_of(pair: &KeyPair) -> String {
        pair.public_key_pem()
    }
}
