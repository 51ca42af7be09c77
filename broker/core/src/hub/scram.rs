//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: a client proves that it knows its secret without sending it,
//! and the gateway that it knows it too. It is what MQTT 5's extended authentication is used for here.
//!
//! Without channel binding (`n` or `y`): the transports have no binding that MQTT clients could give. Text is taken as
//! it is, without SASLprep, as the secrets of the configuration are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The method's name in AUTH and CONNECT.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// How often the secret is hashed: the least that RFC 7677 allows, since it is done on the shard, once for each secret.
const ITERATIONS: u32 = 4096;
/// Longest message of a client that is read, in bytes.
const LONGEST: usize = 1024;

/// What is kept of a secret, to prove it by.
#[derive(Clone)]
pub(super) struct ScramKeys {
    stored: [u8; 32],
    server: [u8; 32],
}

/// What a client's message is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScramFault {
    /// Not a message of SCRAM-SHA-256, or not this one.
    Malformed(&'static str),
    /// The proof doesn't fit the secret.
    WrongProof,
}

/// An exchange whose client has yet to prove itself.
pub(super) struct ScramExchange {
    /// Whom it says it is.
    pub(super) user: String,
    /// `n,,` or `y,,`, and what else stands before the message proper.
    header: String,
    first_bare: String,
    nonce: String,
    server_first: String,
}

impl ScramKeys {
    /// Hashes a secret: about a millisecond.
    pub(super) fn derive(secret: &[u8], salt: &[u8]) -> Self {
        // What lets anybody be the client is overwritten; what stays lets nobody.
        let mut salted = Zeroizing::new(hmac(secret, &[salt, &1_u32.to_be_bytes()]));
        let mut round = salted.clone();
        for _ in 1..ITERATIONS {
            round = Zeroizing::new(hmac(secret, &[&*round]));
            salted.iter_mut().zip(round.iter()).for_each(|(sum, byte)| *sum ^= byte);
        }
        let client = Zeroizing::new(hmac(&*salted, &[b"Client Key"]));
        Self { stored: Sha256::digest(client.as_slice()).into(), server: hmac(&*salted, &[b"Server Key"]) }
    }
}

impl ScramExchange {
    /// Takes the client's first message, and gives the answer to it. `nonce` is printable and without commas.
    pub(super) fn begin(
        message: &[u8],
        nonce: &str,
        salt: impl FnOnce(&str) -> [u8; 16],
    ) -> Result<(Self, Vec<u8>), ScramFault> {
        let text = text(message)?;
        let malformed = ScramFault::Malformed;
        let bare_at = text.match_indices(',').nth(1).map(|(at, _)| at + 1);
        let (header, bare) =
            bare_at.and_then(|at| text.split_at_checked(at)).ok_or(malformed("no header"))?;
        let (binding, authorization) = header.split_once(',').ok_or(malformed("no header"))?;
        if !matches!(binding, "n" | "y") {
            return Err(malformed("channel binding is not supported"));
        }
        let mut fields = bare.split(',');
        let user =
            fields.next().and_then(|field| field.strip_prefix("n=")).ok_or(malformed("no user name"))?;
        let client_nonce =
            fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(malformed("no nonce"))?;
        if client_nonce.is_empty() {
            return Err(malformed("an empty nonce"));
        }
        let user = unescaped(user).ok_or(malformed("a user name with a bare '='"))?;
        let authorization = authorization.trim_end_matches(',');
        if !(authorization.is_empty()
            || authorization.strip_prefix("a=").and_then(unescaped).as_ref() == Some(&user))
        {
            return Err(malformed("acting for another is not supported"));
        }
        let salt = BASE64.encode(salt(&user));
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={salt},i={ITERATIONS}");
        let answer = server_first.clone().into_bytes();
        Ok((
            Self { user, header: header.to_owned(), first_bare: bare.to_owned(), nonce, server_first },
            answer,
        ))
    }

    /// Takes the client's last message, and gives the gateway's own proof if the client's is right.
    pub(super) fn finish(&self, message: &[u8], keys: Option<&ScramKeys>) -> Result<Vec<u8>, ScramFault> {
        let text = text(message)?;
        let malformed = ScramFault::Malformed;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(malformed("no proof"))?;
        let mut fields = without_proof.split(',');
        let binding =
            fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(malformed("no binding"))?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(malformed("no nonce"))?;
        if BASE64.decode(binding).ok().as_deref() != Some(self.header.as_bytes()) {
            return Err(malformed("another header than in the first message"));
        }
        if nonce != self.nonce {
            return Err(malformed("another nonce than was given"));
        }
        let proof: [u8; 32] = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(malformed("a proof that is not 32 bytes in base64"))?;
        let signed = [&self.first_bare, ",", &self.server_first, ",", without_proof].concat();
        // Somebody unknown is refused no earlier than a wrong proof.
        let nobody = ScramKeys { stored: [0; 32], server: [0; 32] };
        let used = keys.unwrap_or(&nobody);
        let signature = hmac(&used.stored, &[signed.as_bytes()]);
        let client_key: Vec<u8> =
            proof.iter().zip(signature).map(|(proof, signature)| proof ^ signature).collect();
        let is_right = bool::from(Sha256::digest(client_key).ct_eq(&used.stored));
        if !is_right || keys.is_none() {
            return Err(ScramFault::WrongProof);
        }
        let signature = hmac(&used.server, &[signed.as_bytes()]);
        Ok(format!("v={}", BASE64.encode(signature)).into_bytes())
    }
}

fn text(message: &[u8]) -> Result<&str, ScramFault> {
    if message.len() > LONGEST {
        return Err(ScramFault::Malformed("longer than 1024 bytes"));
    }
    str::from_utf8(message).map_err(|_| ScramFault::Malformed("not UTF-8"))
}

/// A name without the escapes for `,` and `=`.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = match part.get(..2)? {
            "2C" => (',', part.get(2..)?),
            "3D" => ('=', part.get(2..)?),
            _ => return None,
        };
        out.push(character);
        out.push_str(rest);
    }
    Some(out)
}

/// HMAC-SHA-256 over the parts as one.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const LAST: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                          p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn salt() -> [u8; 16] {
        BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap()
    }

    fn begun() -> (ScramExchange, Vec<u8>) {
        ScramExchange::begin(FIRST, NONCE, |user| {
            assert_eq!(user, "user");
            salt()
        })
        .unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let (exchange, answer) = begun();
        assert_eq!(
            answer,
            format!("r=rOprNGfwEbeRWgbNEkqO{NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").as_bytes()
        );
        let keys = ScramKeys::derive(b"pencil", &salt());
        assert_eq!(
            exchange.finish(LAST, Some(&keys)).unwrap(),
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn a_wrong_secret_and_nobody_are_refused_alike() {
        let (exchange, _) = begun();
        let wrong = ScramKeys::derive(b"pencils", &salt());
        assert_eq!(exchange.finish(LAST, Some(&wrong)), Err(ScramFault::WrongProof));
        assert_eq!(exchange.finish(LAST, None), Err(ScramFault::WrongProof));
    }

    #[test]
    fn what_is_no_such_message_is_said() {
        for message in [
            &b""[..],
            b"n",
            b"n,",
            b"n,,",
            b"p=tls-exporter,,n=user,r=x",
            b"n,,n=user",
            b"n,,n=user,r=",
            b"n,,n=us=er,r=x",
            b"n,,m=ext,n=user,r=x",
            b"n,a=other,n=user,r=x",
            b"\xff,,n=user,r=x",
            &[b'n'; 2000],
        ] {
            let begun = ScramExchange::begin(message, "x", |_| [0; 16]);
            assert!(matches!(begun, Err(ScramFault::Malformed(_))), "{}", String::from_utf8_lossy(message));
        }
        assert!(ScramExchange::begin(b"y,a=a=2Cb=3D,n=a=2Cb=3D,r=x", "x", |_| [0; 16]).is_ok());
        let (exchange, _) = begun();
        let keys = ScramKeys::derive(b"pencil", &salt());
        let last = String::from_utf8(LAST.to_vec()).unwrap();
        for message in [
            "".to_owned(),
            last.replace("c=biws", "c=eSws"),
            last.replace("r=rOpr", "r=rOpx"),
            last.replace(",p=", ",q="),
            last.replace("VQ=", ""),
        ] {
            let finished = exchange.finish(message.as_bytes(), Some(&keys));
            assert!(matches!(finished, Err(ScramFault::Malformed(_))), "{message}");
        }
        let other = last.replace("p=d", "p=e");
        assert_eq!(exchange.finish(other.as_bytes(), Some(&keys)), Err(ScramFault::WrongProof));
    }
}
