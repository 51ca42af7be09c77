//! TLS 1.3 for devices, by [`embedded_tls`]: opens it on a socket, proves that the other end is the gateway, and is the transport
//! that the runner wants.
//!
//! # What is checked
//!
//! The gateway shows one certificate, X.509 version 3 with a P-256 key, that the [authority](Trust::authority) which the device
//! carries has signed by ECDSA with SHA-256; one of its alternative names is the [name](Trust::name) that is expected; it holds at
//! this time, where the device has a [clock](Trust::clock); it is meant for servers, if it says what it is meant for; and the
//! gateway signs the handshake with its key. Anything else ends the attempt, with [the reason](Untrusted). Not looked at:
//! revocation, chains, and whether the authority is one by its own words: a gateway's certificate that signed itself may be its
//! own authority.
//!
//! embedded-tls 0.19 leaves more to its users than it says, which is why it is not used without this module: it takes a server's
//! word that shows no certificate or doesn't sign, its own verifier lets any certificate of an authority sign others, it loses its
//! place in the stream when a read is dropped, and it stops the program at an empty record.
//!
//! # What the gateway has to be set to
//!
//! A device has no room for records of 16 KiB: `max_fragment_bytes` of its listener is at most what [`Memory`]'s records hold,
//! and at least 1024, since the gateway's whole part of the handshake has to be in one record: some 650 bytes with a short
//! certificate. A record that is too large ends the connection.

mod certificate;

use embedded_io_async::{ErrorType, Read, Write};
use embedded_tls::{
    Aes128GcmSha256, CertificateEntryRef, CertificateRef, CertificateVerifyRef, CryptoProvider, FlushPolicy,
    SignatureScheme, TlsConfig, TlsConnection, TlsContext, TlsVerifier,
};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use self::certificate::Certificate;

pub use embedded_tls::{CryptoRng, CryptoRngCore, TlsError};

/// Whom the device takes for its gateway.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The authority's certificate in DER, with a P-256 key.
    pub authority: &'a [u8],
    /// The name, or the IPv4 address, that the gateway's certificate is for.
    pub name: &'a str,
    /// Tells the seconds since 1970, as far as the device knows them. Where it doesn't, no dates are checked: see
    /// [`no_clock`].
    pub clock: fn() -> Option<u64>,
}

/// For devices that don't know the time.
pub const fn no_clock() -> Option<u64> {
    None
}

/// Why the other end isn't taken for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Untrusted {
    /// Caller: the authority's certificate can't be used. It has to be DER, version 3, P-256, ECDSA with SHA-256.
    BadAuthority,
    /// Caller: there is no name that could be expected.
    NoName,
    /// The other end finished the handshake, but has shown no certificate or not signed by its key.
    NoProof,
    /// It shows no certificate, or more than one.
    NotOne,
    /// Its certificate can't be read, or is of another kind than the authority's.
    Unreadable,
    /// Another authority, or none, has signed its certificate.
    Authority,
    /// Its certificate is for other names.
    Name,
    /// Its certificate doesn't hold yet, or no longer.
    Dates,
    /// Its certificate isn't meant for servers.
    Purpose,
    /// It hasn't the key of its certificate.
    Signature,
}

impl core::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadAuthority => "the authority's certificate can't be used",
            Self::NoName => "no name to be expected",
            Self::NoProof => "no certificate or signature was shown",
            Self::NotOne => "one certificate is wanted, without a chain",
            Self::Unreadable => "not a certificate with P-256 and SHA-256",
            Self::Authority => "signed by another authority",
            Self::Name => "for another name",
            Self::Dates => "not valid at this time",
            Self::Purpose => "not for servers",
            Self::Signature => "without the certificate's key",
        })
    }
}

/// Why there is no connection in TLS.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OpenError {
    /// The other end isn't taken for the gateway.
    Untrusted(Untrusted),
    /// The socket or the handshake failed. [`TlsError::Io`] of kind `OutOfMemory` is a record for which there is no room.
    Tls(TlsError),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Untrusted(why) => write!(f, "not the gateway: {why}"),
            Self::Tls(error) => write!(f, "no TLS: {error}"),
        }
    }
}

impl core::error::Error for OpenError {}

/// The buffers of a connection, in a static. `RECORD` is a record's plaintext with 22 bytes more, of which there are two; `WRITE`
/// holds what is written at a time and 128 bytes more.
pub struct Memory<const RECORD: usize = 1048, const WRITE: usize = 640> {
    arriving: [u8; RECORD],
    record: [u8; RECORD],
    leaving: [u8; WRITE],
}

impl<const RECORD: usize, const WRITE: usize> Memory<RECORD, WRITE> {
    /// All zeros.
    pub const fn new() -> Self {
        Self { arriving: [0; RECORD], record: [0; RECORD], leaving: [0; WRITE] }
    }
}

impl<const RECORD: usize, const WRITE: usize> Default for Memory<RECORD, WRITE> {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens TLS on a connected socket.
///
/// `random` must be fit for cryptography: the connection is as secret as its numbers are.
///
/// Without a limit of its own, as [`Connect`](crate::Connect) wants it. Dropped before it is ready, the socket is dropped, too.
pub async fn open<'m, S, R, const RECORD: usize, const WRITE: usize>(
    socket: S,
    memory: &'m mut Memory<RECORD, WRITE>,
    trust: &Trust<'_>,
    random: R,
) -> Result<Transport<'m, S>, OpenError>
where
    S: Read + Write + 'm,
    R: CryptoRngCore,
{
    if trust.name.is_empty() {
        return Err(OpenError::Untrusted(Untrusted::NoName));
    }
    let records = Records { socket, buffer: &mut memory.arriving, filled: 0, given: 0 };
    let mut connection = TlsConnection::new(records, &mut memory.record, &mut memory.leaving);
    // embassy-net's flush waits for the peer's TCP.
    connection.set_flush_policy(FlushPolicy::Relaxed);
    let config = TlsConfig::new().with_server_name(trust.name);
    let mut gateway = Gateway { trust, proof: Proof::Nothing, random };
    let opened = connection.open(TlsContext::new(&config, &mut gateway)).await;
    match (opened, gateway.proof) {
        (Ok(()), Proof::Whole) => Ok(Transport(connection)),
        (_, Proof::Refused(why)) => Err(OpenError::Untrusted(why)),
        (Err(error), _) => Err(OpenError::Tls(error)),
        (Ok(()), _) => Err(OpenError::Untrusted(Untrusted::NoProof)),
    }
}

/// A connection in TLS. Its `read` is cancel-safe. The futures of embedded-tls don't move between threads.
pub struct Transport<'m, S: Read + Write + 'm>(TlsConnection<'m, Records<'m, S>, Aes128GcmSha256>);

impl<'m, S: Read + Write + 'm> ErrorType for Transport<'m, S> {
    type Error = TlsError;
}

impl<'m, S: Read + Write + 'm> Read for Transport<'m, S> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TlsError> {
        match self.0.read(buffer).await {
            // The gateway's goodbye is the end of the stream.
            Err(TlsError::ConnectionClosed) => Ok(0),
            result => result,
        }
    }
}

impl<'m, S: Read + Write + 'm> Write for Transport<'m, S> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        let length = self.0.write(bytes).await?;
        // The runner flushes nothing.
        self.0.flush().await?;
        Ok(length)
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        self.0.flush().await
    }
}

/// What the gateway has proved so far, in this order.
enum Proof {
    Nothing,
    /// It has shown a certificate that is trusted: its key, and the hash of what was said until then.
    Certificate(VerifyingKey, [u8; 32]),
    /// And that it has the key.
    Whole,
    Refused(Untrusted),
}

/// The other end, as embedded-tls asks for it.
struct Gateway<'a, R> {
    trust: &'a Trust<'a>,
    proof: Proof,
    random: R,
}

impl<R> Gateway<'_, R> {
    fn refuse(&mut self, why: Untrusted) -> TlsError {
        self.proof = Proof::Refused(why);
        TlsError::InvalidCertificate
    }

    /// The key of a certificate that is trusted.
    fn trusted(&self, shown: &CertificateRef<'_>) -> Result<VerifyingKey, Untrusted> {
        let Proof::Nothing = self.proof else { return Err(Untrusted::NotOne) };
        let [CertificateEntryRef::X509(shown)] = *shown.entries.as_slice() else {
            return Err(Untrusted::NotOne);
        };
        let authority = Certificate::read(self.trust.authority).ok_or(Untrusted::BadAuthority)?;
        let shown = Certificate::read(shown).ok_or(Untrusted::Unreadable)?;
        shown.check(&authority, self.trust.name, (self.trust.clock)())?;
        shown.key().ok_or(Untrusted::Unreadable)
    }
}

impl<R> TlsVerifier<Aes128GcmSha256> for Gateway<'_, R> {
    fn set_hostname_verification(&mut self, _name: &str) -> Result<(), TlsError> {
        // It is known by `trust`.
        Ok(())
    }

    fn verify_certificate(&mut self, transcript: &Sha256, shown: CertificateRef<'_>) -> Result<(), TlsError> {
        let key = self.trusted(&shown).map_err(|why| self.refuse(why))?;
        self.proof = Proof::Certificate(key, transcript.clone().finalize().into());
        Ok(())
    }

    fn verify_signature(&mut self, shown: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let Proof::Certificate(key, transcript) = &self.proof else {
            return Err(self.refuse(Untrusted::NoProof));
        };
        // RFC 8446, 4.4.3: 64 spaces, what is signed, a zero byte, the hash.
        const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
        let mut signed = [b' '; 64 + CONTEXT.len() + 32];
        signed[64..64 + CONTEXT.len()].copy_from_slice(CONTEXT);
        signed[64 + CONTEXT.len()..].copy_from_slice(transcript);
        let is_ecdsa = matches!(shown.signature_scheme, SignatureScheme::EcdsaSecp256r1Sha256);
        let signature = Signature::from_der(shown.signature).ok().filter(|_| is_ecdsa);
        if signature.is_some_and(|signature| key.verify(&signed, &signature).is_ok()) {
            self.proof = Proof::Whole;
            return Ok(());
        }
        Err(self.refuse(Untrusted::Signature))
    }
}

impl<R: CryptoRngCore> CryptoProvider for Gateway<'_, R> {
    type CipherSuite = Aes128GcmSha256;
    // Devices show no certificate, so they sign nothing.
    type Signature = [u8; 0];

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.random
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(self)
    }
}

/// Bytes of a record's header: kind, version, length.
const HEADER: usize = 5;
/// The kind of record that is encrypted, which has at least a byte of its own kind and 16 of its tag.
const ENCRYPTED: u8 = 23;
const LEAST_ENCRYPTED: usize = 1 + 16;

/// A socket that hands on a record when all of it is there, so that whoever reads it never waits within one.
struct Records<'m, S> {
    socket: S,
    buffer: &'m mut [u8],
    /// Bytes of the present record that are here, and that were handed on.
    filled: usize,
    given: usize,
}

/// Why no record is to be had.
#[derive(Debug)]
enum RecordError<E> {
    Socket(E),
    /// It is larger than the buffer.
    TooLarge,
    /// It is too short to be what it says.
    TooShort,
}

impl<E: embedded_io_async::Error> core::fmt::Display for RecordError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "{error}"),
            Self::TooLarge => f.write_str("a record that is larger than the buffer"),
            Self::TooShort => f.write_str("a record that is too short"),
        }
    }
}

impl<E: embedded_io_async::Error> core::error::Error for RecordError<E> {}

impl<E: embedded_io_async::Error> embedded_io_async::Error for RecordError<E> {
    fn kind(&self) -> embedded_io_async::ErrorKind {
        match self {
            Self::Socket(error) => error.kind(),
            Self::TooLarge => embedded_io_async::ErrorKind::OutOfMemory,
            Self::TooShort => embedded_io_async::ErrorKind::InvalidData,
        }
    }
}

impl<S: ErrorType> ErrorType for Records<'_, S> {
    type Error = RecordError<S::Error>;
}

impl<S: Read> Records<'_, S> {
    /// Waits until the record is whole, and gives its length; 0 at the end of the stream. Cancel-safe: all that came is kept.
    async fn whole(&mut self) -> Result<usize, RecordError<S::Error>> {
        loop {
            let wanted = match *self.buffer {
                [kind, _, _, high, low, ..] if self.filled >= HEADER => {
                    let body = usize::from(u16::from_be_bytes([high, low]));
                    if kind == ENCRYPTED && body < LEAST_ENCRYPTED {
                        return Err(RecordError::TooShort);
                    }
                    HEADER + body
                }
                _ => HEADER,
            };
            if self.filled >= HEADER && self.filled == wanted {
                return Ok(wanted);
            }
            let Some(room) = self.buffer.get_mut(self.filled..wanted) else {
                warning!("a TLS record of {} bytes, for which there is no room", wanted);
                return Err(RecordError::TooLarge);
            };
            match self.socket.read(room).await {
                Ok(0) => return Ok(0),
                Ok(length) => self.filled += length,
                Err(error) => return Err(RecordError::Socket(error)),
            }
        }
    }
}

impl<S: Read> Read for Records<'_, S> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let record = self.whole().await?;
        // None where the stream is at its end.
        let Some(left) = self.buffer.get(self.given..record) else { return Ok(0) };
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        self.given += length;
        if self.given == record {
            (self.filled, self.given) = (0, 0);
        }
        Ok(length)
    }
}

impl<S: Write> Write for Records<'_, S> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.socket.write(bytes).await.map_err(RecordError::Socket)
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.socket.flush().await.map_err(RecordError::Socket)
    }
}

#[cfg(test)]
mod tests;
