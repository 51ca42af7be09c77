//! The credential proof: HMAC-SHA256 over the gateway's nonce, so that the secret never crosses the wire.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Length of the gateway's nonce, in bytes.
pub const NONCE: usize = 32;
/// Length of the proof, in bytes.
pub const PROOF: usize = 32;

/// Keeps a proof of this protocol from being one of another that shares the secret.
const LABEL: &[u8] = b"bugle-device-1";

fn mac(secret: &[u8], nonce: &[u8; NONCE], client_id: &str) -> Hmac<Sha256> {
    // HMAC takes a key of any length; only other MACs of the same trait can refuse one.
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(LABEL);
    mac.update(nonce);
    mac.update(client_id.as_bytes());
    mac
}

/// What the device answers to a challenge.
pub fn proof(secret: &[u8], nonce: &[u8; NONCE], client_id: &str) -> [u8; PROOF] {
    mac(secret, nonce, client_id).finalize().into_bytes().into()
}

/// Whether `proof` was made with `secret` for this nonce and client id, compared in constant time.
pub fn verify(secret: &[u8], nonce: &[u8; NONCE], client_id: &str, proof: &[u8; PROOF]) -> bool {
    mac(secret, nonce, client_id).verify_slice(proof).is_ok()
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
}
