//! The credential proof: HMAC-SHA256 over the gateway's nonce, so that the secret never crosses the wire.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Length of the gateway's nonce, in bytes.
pub const NONCE: usize = 32;
/// Length of the proof, in bytes.
pub const PROOF: usize = 32;

/// Keeps a proof of this protocol from being one of another that shares the secret.
const LABEL: &[u8] = b"bugle-device-1";

/// Length of a block of SHA-256, in bytes.
const BLOCK: usize = 64;

/// SHA-256 of what is written to it. The hasher of the sha2 crate, around the same compression, takes a quarter of a kilobyte
/// more of firmware.
struct Hash {
    state: [u32; 8],
    block: [u8; BLOCK],
    length: u32,
}

impl Hash {
    const fn new() -> Self {
        // FIPS 180-4, 5.3.3.
        let state = [
            0x6a09_e667,
            0xbb67_ae85,
            0x3c6e_f372,
            0xa54f_f53a,
            0x510e_527f,
            0x9b05_688c,
            0x1f83_d9ab,
            0x5be0_cd19,
        ];
        Self { state, block: [0; BLOCK], length: 0 }
    }

    #[inline(never)]
    fn push(&mut self, byte: u8) {
        let at = self.length as usize % BLOCK;
        self.block[at] = byte;
        self.length += 1;
        if at == BLOCK - 1 {
            sha2::compress256(&mut self.state, &[self.block.into()]);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.push(*byte));
    }

    fn finish(mut self) -> [u8; PROOF] {
        let bits = u64::from(self.length) << 3;
        self.push(0x80);
        while self.length as usize % BLOCK != BLOCK - 8 {
            self.push(0);
        }
        self.write(&bits.to_be_bytes());
        let mut hash = [0; PROOF];
        for (place, word) in hash.chunks_exact_mut(4).zip(self.state) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        hash
    }
}

/// What the device answers to a challenge.
///
/// HMAC written out (RFC 2104): the hmac crate takes half a kilobyte more of firmware.
pub fn proof(secret: &[u8], nonce: &[u8; NONCE], client_id: &str) -> [u8; PROOF] {
    let hashed;
    let key = if secret.len() > BLOCK {
        let mut hash = Hash::new();
        hash.write(secret);
        hashed = hash.finish();
        &hashed
    } else {
        secret
    };
    let inner = padded(key, 0x36, &[LABEL, nonce, client_id.as_bytes()]);
    padded(key, 0x5C, &[&inner])
}

/// The hash of the key, each byte of its block turned by `pad`, and of the parts behind it.
#[inline(never)]
fn padded(key: &[u8], pad: u8, parts: &[&[u8]]) -> [u8; PROOF] {
    let mut hash = Hash::new();
    for at in 0..BLOCK {
        hash.push(key.get(at).map_or(pad, |byte| byte ^ pad));
    }
    parts.iter().for_each(|part| hash.write(part));
    hash.finish()
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
