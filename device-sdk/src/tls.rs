//! TLS 1.3 for devices, by [`embedded_tls`]: opens it on a socket, proves that the other end is the gateway, and is the transport
//! that the runner wants.
//!
//! # What is checked
//!
//! The gateway shows one certificate: with a P-256 key, for the [name](Trust::name) that is expected (as DNS name among its
//! alternative names, or as common name), signed by the [authority](Trust::authority) that the device carries, within its dates
//! where the device has a clock; and it signs the handshake with that certificate's key. Anything else ends the attempt. Not
//! looked at: what use the certificate is limited to, whether it was revoked, and chains. An authority of the site's own, that
//! signs nothing but the gateway's certificate, is what this is made for.
//!
//! embedded-tls 0.19 leaves some of this to whoever uses it, so it is done here: it takes a server's word that shows no certificate
//! or doesn't sign (the end of the handshake is checked here), it lets any certificate of an authority sign others (only one is
//! taken here), it loses its place in the stream when a read is dropped, and it stops the program at an empty record (records
//! get to it whole and looked at).
//!
//! # What the gateway has to be set to
//!
//! A device has no room for records of 16 KiB: `max_fragment_bytes` of its listener is at most what [`Memory`]'s records hold,
//! and at least 1024, since the gateway's whole part of the handshake has to be in one record: some 650 bytes with a short
//! certificate. A record that is too large ends the connection.
//!
//! Of the client's [`Config`](crate::Config), `flush` has to be `true`.

use embedded_io_async::{ErrorType, Read, Write};
use embedded_tls::pki::CertVerifier;
use embedded_tls::{
    Aes128GcmSha256, Certificate, CertificateRef, CertificateVerifyRef, CryptoProvider, FlushPolicy, Sha256,
    TlsConfig, TlsConnection, TlsContext, TlsVerifier,
};

pub use embedded_tls::{CryptoRng, CryptoRngCore, NoClock, TlsClock, TlsError};

/// Whom the device takes for its gateway.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The authority's certificate in DER, with a P-256 key.
    pub authority: &'a [u8],
    /// The name that the gateway's certificate is for, at most 64 bytes. An IP address won't do.
    pub name: &'a str,
}

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

/// Opens TLS on a connected socket. `C` tells the seconds since 1970, or [nothing](NoClock), and then no dates are checked.
///
/// `random` must be fit for cryptography: the connection is as secret as its numbers are.
///
/// Without a limit of its own, as [`Connect`](crate::Connect) wants it. Dropped before it is ready, the socket is dropped, too.
pub async fn open<'m, C, S, R, const RECORD: usize, const WRITE: usize>(
    socket: S,
    memory: &'m mut Memory<RECORD, WRITE>,
    trust: &Trust<'_>,
    random: R,
) -> Result<Transport<'m, S>, TlsError>
where
    C: TlsClock,
    S: Read + Write + 'm,
    R: CryptoRngCore,
{
    if trust.name.is_empty() {
        return Err(TlsError::InvalidCertificate);
    }
    let records = Records { socket, buffer: &mut memory.arriving, filled: 0, given: 0 };
    let mut connection = TlsConnection::new(records, &mut memory.record, &mut memory.leaving);
    // embassy-net's flush waits for the peer's TCP.
    connection.set_flush_policy(FlushPolicy::Relaxed);
    let config = TlsConfig::new().with_server_name(trust.name);
    let mut gateway = Gateway::<C, R>::new(trust, random);
    connection.open(TlsContext::new(&config, &mut gateway)).await?;
    if gateway.proof != Proof::Whole {
        warning!("the gateway has not shown who it is");
        return Err(TlsError::InvalidCertificate);
    }
    Ok(Transport(connection))
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
        self.0.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        self.0.flush().await
    }
}

/// What the gateway has proved so far, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Nothing,
    /// It has shown a certificate that is trusted.
    Certificate,
    /// And that it has the key.
    Whole,
}

/// The other end, as embedded-tls asks for it.
struct Gateway<'a, C: TlsClock, R> {
    certificates: CertVerifier<'a, Aes128GcmSha256, C, CERTIFICATE>,
    proof: Proof,
    random: R,
}

/// Longest certificate in bytes.
const CERTIFICATE: usize = 1024;

impl<'a, C: TlsClock, R> Gateway<'a, C, R> {
    fn new(trust: &Trust<'a>, random: R) -> Self {
        let certificates = CertVerifier::new(Certificate::X509(trust.authority));
        Self { certificates, proof: Proof::Nothing, random }
    }
}

impl<C: TlsClock, R> TlsVerifier<Aes128GcmSha256> for Gateway<'_, C, R> {
    fn set_hostname_verification(&mut self, name: &str) -> Result<(), TlsError> {
        self.certificates.set_hostname_verification(name)
    }

    fn verify_certificate(&mut self, transcript: &Sha256, shown: CertificateRef<'_>) -> Result<(), TlsError> {
        if self.proof != Proof::Nothing || shown.entries.len() != 1 {
            warning!("the gateway shows {} certificates, and one is wanted", shown.entries.len());
            return Err(TlsError::InvalidCertificate);
        }
        self.certificates.verify_certificate(transcript, shown)?;
        self.proof = Proof::Certificate;
        Ok(())
    }

    fn verify_signature(&mut self, signature: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        if self.proof != Proof::Certificate {
            return Err(TlsError::InvalidSignature);
        }
        self.certificates.verify_signature(signature)?;
        self.proof = Proof::Whole;
        Ok(())
    }
}

impl<C: TlsClock, R: CryptoRngCore> CryptoProvider for Gateway<'_, C, R> {
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
