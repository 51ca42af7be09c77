//! The credential proof: HMAC-SHA256 over the gateway's nonce, so that the secret never crosses the wire.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Length of the gateway's nonce, in bytes.
pub const NONCE: usize = 32;
/// Length of the proof, in bytes.
pub const PROOF: usize = 32;

/// Keeps a proof of this protocol from being one of another that shares the secret.
const LABEL: &[u8] = b"bugle-device-1";

/// SHA-256 of all parts, one behind the other.
fn hash(parts: &[&[u8]]) -> [u8; PROOF] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// What the device answers to a challenge.
///
/// HMAC written out (RFC 2104): the hmac crate takes half a kilobyte more of firmware.
pub fn proof(secret: &[u8], nonce: &[u8; NONCE], client_id: &str) -> [u8; PROOF] {
    const BLOCK: usize = 64;
    let hashed;
    let key = if secret.len() > BLOCK {
        hashed = hash(&[secret]);
        &hashed
    } else {
        secret
    };
    let mut pad = [0; BLOCK];
    pad.iter_mut().zip(key).for_each(|(pad, key)| *pad = *key);
    pad.iter_mut().for_each(|pad| *pad ^= 0x36);
    let inner = hash(&[&pad, LABEL, nonce, client_id.as_bytes()]);
    pad.iter_mut().for_each(|pad| *pad ^= 0x36 ^ 0x5C);
    hash(&[&pad, &inner])
}

/// Whether `proof` was made with `secret` for this nonce and client id, compared in constant time.
pub fn verify(secret: &[u8], nonce: &[u8; NONCE], client_id: &str, proof: &[u8; PROOF]) -> bool {
    // HMAC takes a key of any length; only other MACs of the same trait can refuse one.
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(LABEL);
    mac.update(nonce);
    mac.update(client_id.as_bytes());
    mac.verify_slice(proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_one_secret_one_nonce_and_one_client() {
        let nonce = [7; NONCE];
        let good = proof(b"secret", &nonce, "lamp-1");
        assert!(verify(b"secret", &nonce, "lamp-1", &good));
        assert!(!verify(b"Secret", &nonce, "lamp-1", &good));
        assert!(!verify(b"secret", &[8; NONCE], "lamp-1", &good));
        assert!(!verify(b"secret", &nonce, "lamp-2", &good));
    }

    #[test]
    fn proofs_are_hmacs_with_secrets_of_any_length() {
        let secret: std::vec::Vec<u8> = (0..200).collect();
        for length in 0..secret.len() {
            let nonce = [length as u8; NONCE];
            let client_id = "lamp-0123456789:0123456789_0123456789.0123456789-0123456789-0123";
            let good = proof(&secret[..length], &nonce, &client_id[..length % 65]);
            assert!(verify(&secret[..length], &nonce, &client_id[..length % 65], &good), "{length}");
        }
    }
}
