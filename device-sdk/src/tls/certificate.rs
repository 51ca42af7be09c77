//! As much of X.509 (RFC 5280) as it takes to trust one certificate that a known authority has signed: version 3, P-256 keys,
//! ECDSA with SHA-256. Pure, on bytes that anyone may have sent; what isn't as expected is refused.

use core::net::Ipv4Addr;

use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};

use super::Untrusted;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// Of a general name.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// ecdsa-with-SHA256, as an algorithm without parameters.
const ECDSA_SHA256: &[u8] = &[OBJECT_IDENTIFIER, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];
/// id-ecPublicKey on prime256v1.
const P256_KEY: &[u8] = &[
    OBJECT_IDENTIFIER,
    7,
    0x2A,
    0x86,
    0x48,
    0xCE,
    0x3D,
    2,
    1, //
    OBJECT_IDENTIFIER,
    8,
    0x2A,
    0x86,
    0x48,
    0xCE,
    0x3D,
    3,
    1,
    7,
];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1D, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 19];
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 15];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1D, 37];
const SERVER_AUTHENTICATION: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 1];
const ANY_PURPOSE: &[u8] = &[0x55, 0x1D, 37, 0];

/// A certificate that could be read. Nothing of it is checked yet.
pub(super) struct Certificate<'a> {
    /// What is signed.
    signed: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    /// Seconds since 1970.
    from: u64,
    until: u64,
    key: &'a [u8],
    /// General names.
    names: &'a [u8],
    /// Object identifiers; `None` for all purposes.
    purposes: Option<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    /// Reads it; `None` where it is something else, or has a critical extension that isn't known here.
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outside = Der(der);
        let mut whole = Der(outside.take(SEQUENCE)?);
        let (signed, mut body) = whole.take_whole(SEQUENCE)?;
        let is_ecdsa = whole.take(SEQUENCE)? == ECDSA_SHA256;
        let signature = whole.take_bits()?;
        (outside.is_empty() && whole.is_empty() && is_ecdsa).then_some(())?;

        let is_version_3 = body.take(0xA0)? == [INTEGER, 1, 2];
        body.take(INTEGER)?;
        let is_ecdsa = body.take(SEQUENCE)? == ECDSA_SHA256;
        let (issuer, _) = body.take_whole(SEQUENCE)?;
        let mut dates = Der(body.take(SEQUENCE)?);
        let (from, until) = (dates.take_time()?, dates.take_time()?);
        let (subject, _) = body.take_whole(SEQUENCE)?;
        let mut key = Der(body.take(SEQUENCE)?);
        let is_p256 = key.take(SEQUENCE)? == P256_KEY;
        let key = key.take_bits()?;
        (is_version_3 && is_ecdsa && is_p256).then_some(())?;

        let mut certificate =
            Self { signed, signature, issuer, subject, from, until, key, names: &[], purposes: None };
        // Unique identifiers of issuer and subject, which nobody uses, come before.
        let mut extensions = Der(Der(body.take(0xA3)?).take(SEQUENCE)?);
        while !extensions.is_empty() {
            certificate.take_extension(Der(extensions.take(SEQUENCE)?))?;
        }
        body.is_empty().then_some(certificate)
    }

    fn take_extension(&mut self, mut extension: Der<'a>) -> Option<()> {
        let kind = extension.take(OBJECT_IDENTIFIER)?;
        let is_critical = extension.take(BOOLEAN).is_some_and(|value| value != [0]);
        let mut value = Der(extension.take(OCTET_STRING)?);
        match kind {
            ALTERNATIVE_NAMES => self.names = value.take(SEQUENCE)?,
            EXTENDED_KEY_USAGE => self.purposes = Some(value.take(SEQUENCE)?),
            // The one is about certificates below, of which there are none; the other about what a key of this kind can do.
            BASIC_CONSTRAINTS | KEY_USAGE => {}
            _ if is_critical => return None,
            _ => {}
        }
        extension.is_empty().then_some(())
    }

    /// Its key.
    pub(super) fn key(&self) -> Option<VerifyingKey> {
        VerifyingKey::from_sec1_bytes(self.key).ok()
    }

    /// Whether it may stand for a gateway of this name: this authority has signed it, at this time it holds, where that is known,
    /// and it is meant for servers.
    pub(super) fn check(&self, authority: &Self, name: &str, now: Option<u64>) -> Result<(), Untrusted> {
        if self.issuer != authority.subject {
            return Err(Untrusted::Authority);
        }
        if !self.is_for(name) {
            return Err(Untrusted::Name);
        }
        if now.is_some_and(|now| now < self.from || now > self.until) {
            return Err(Untrusted::Dates);
        }
        if !self.is_for_servers() {
            return Err(Untrusted::Purpose);
        }
        let key = authority.key().ok_or(Untrusted::BadAuthority)?;
        let signature = Signature::from_der(self.signature).map_err(|_| Untrusted::Authority)?;
        key.verify(self.signed, &signature).map_err(|_| Untrusted::Authority)
    }

    fn is_for_servers(&self) -> bool {
        let Some(purposes) = self.purposes else { return true };
        let mut purposes = Der(purposes);
        while let Some(purpose) = purposes.take(OBJECT_IDENTIFIER) {
            if [SERVER_AUTHENTICATION, ANY_PURPOSE].contains(&purpose) {
                return true;
            }
        }
        false
    }

    /// Whether one of its alternative names is this one. A common name counts for nothing.
    fn is_for(&self, name: &str) -> bool {
        let address = name.parse::<Ipv4Addr>().ok();
        let mut names = Der(self.names);
        while let Some((kind, value, _)) = names.next() {
            let is_same = match (kind, address) {
                (DNS_NAME, None) => matches(value, name.as_bytes()),
                (IP_ADDRESS, Some(address)) => value == address.octets(),
                _ => false,
            };
            if is_same {
                return true;
            }
        }
        false
    }
}

/// Whether a name of a certificate is this host's (RFC 6125): the same letters of either case, or `*.` for its first label.
fn matches(pattern: &[u8], host: &[u8]) -> bool {
    let is_same = |one: &[u8], other: &[u8]| !one.is_empty() && one.eq_ignore_ascii_case(other);
    let Some(domain) = pattern.strip_prefix(b"*.") else { return is_same(pattern, host) };
    // A star doesn't stand for a whole top-level domain.
    let Some(dot) = host.iter().position(|&byte| byte == b'.') else { return false };
    dot > 0 && domain.contains(&b'.') && is_same(domain, &host[dot + 1..])
}

/// Elements of DER, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element's tag, what is in it, and all of it.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (tag, header, length) = match *self.0 {
            // Tags of more than a byte.
            [tag, ..] if tag & 0x1F == 0x1F => return None,
            [tag, length @ 0..=0x7F, ..] => (tag, 2, length.into()),
            [tag, 0x81, length @ 0x80..=0xFF, ..] => (tag, 3, length.into()),
            [tag, 0x82, high @ 1..=0xFF, low, ..] => (tag, 4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return None,
        };
        let (whole, rest) = self.0.split_at_checked(header + length)?;
        self.0 = rest;
        Some((tag, &whole[header..], whole))
    }

    /// What is in the next element, if it has this tag; else it stays.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = Self(self.0);
        let (found, content, _) = ahead.next()?;
        (found == tag).then(|| self.0 = ahead.0)?;
        Some(content)
    }

    /// All of the next element, and its elements.
    fn take_whole(&mut self, tag: u8) -> Option<(&'a [u8], Self)> {
        let (found, content, whole) = self.next()?;
        (found == tag).then_some((whole, Self(content)))
    }

    /// A string of bits that are whole bytes.
    fn take_bits(&mut self) -> Option<&'a [u8]> {
        self.take(BIT_STRING)?.strip_prefix(&[0])
    }

    /// A time, in seconds since 1970; 0 for those before.
    fn take_time(&mut self) -> Option<u64> {
        let (tag, text, _) = self.next()?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = number(text)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (century, rest) = number(text)?;
                let (year, rest) = number(rest)?;
                (century * 100 + year, rest)
            }
            _ => return None,
        };
        let (month, rest) = number(rest)?;
        let (day, rest) = number(rest)?;
        let (hour, rest) = number(rest)?;
        let (minute, rest) = number(rest)?;
        let (second, rest) = number(rest)?;
        let is_good = (1..=12).contains(&month) && (1..=31).contains(&day) && rest == b"Z";
        is_good.then_some(())?;
        let Some(days) = days_since_1970(year, month, day) else { return Some(0) };
        Some(u64::from(days) * 86_400 + u64::from(hour * 3_600 + minute * 60 + second))
    }
}

/// Two digits, and what follows them.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = text else { return None };
    Some((u32::from(tens - b'0') * 10 + u32::from(ones - b'0'), rest))
}

/// Days from 1970 to this one of the Gregorian calendar; `None` before.
fn days_since_1970(year: u32, month: u32, day: u32) -> Option<u32> {
    // Years here begin in March, so that the day that isn't always there is their last.
    let (year, month) = if month < 3 { (year.checked_sub(1)?, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // From March of the year 0.
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_either_case_and_a_star_stands_for_one_label() {
        for (pattern, host, is_same) in [
            ("gateway.site", "gateway.site", true),
            ("Gateway.SITE", "gateway.site", true),
            ("gateway.site", "gateway.site.evil", false),
            ("gateway.site", "xgateway.site", false),
            ("*.site.example", "gateway.site.example", true),
            ("*.site.example", "a.gateway.site.example", false),
            ("*.site.example", ".site.example", false),
            ("*.site.example", "site.example", false),
            ("*.example", "site.example", false),
            ("*", "site", false),
            ("", "", false),
            ("g*.site.example", "gateway.site.example", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), host.as_bytes()), is_same, "{pattern} {host}");
        }
    }

    fn time(tag: u8, text: &str) -> Option<u64> {
        let mut der = std::vec![tag, text.len() as u8];
        der.extend_from_slice(text.as_bytes());
        Der(&der).take_time()
    }

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(time(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, "000229000001Z"), Some(951_782_401));
        assert_eq!(time(UTC_TIME, "261125052209Z"), Some(1_795_584_129));
        assert_eq!(time(GENERALIZED_TIME, "20380119031408Z"), Some(1 << 31));
        assert_eq!(time(GENERALIZED_TIME, "40960101000000Z"), Some(67_090_118_400));
        assert_eq!(time(GENERALIZED_TIME, "00000101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Some(0), "1950");
        for bad in ["", "26112505220Z", "261125052209", "261325052209Z", "2611250522 9Z", "261125052209ZZ"] {
            assert_eq!(time(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn lengths_that_lie_or_are_longer_than_needed_are_refused() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x80],
            &[0x30, 0x81, 0x7F],
            &[0x30, 0x81],
            &[0x30, 0x82, 0, 0x80],
            &[0x30, 0x82, 1, 0],
            &[0x30, 0x84, 0, 0, 0, 0],
            &[0x1F, 1, 0],
        ] {
            assert!(Der(bad).next().is_none(), "{bad:?}");
            assert!(Certificate::read(bad).is_none());
        }
    }
}
