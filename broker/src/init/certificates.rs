//! An authority of one's own, and certificates that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// Days for which the authority is good: its certificate is in devices, which aren't changed often.
const AUTHORITY: i64 = 20 * 365;
/// Days for which a gateway's certificate is good: some clients take none that is good for longer than 825.
const SERVER: i64 = 820;

/// A certificate and its key, in PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The last day on which it is good, as `2028-02-23`.
    pub until: String,
}

/// A new authority.
pub fn authority() -> Result<Pair, String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named("Bugle's own authority");
    let until = set_dates(&mut params, AUTHORITY);
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem(), until })
}

/// A certificate for a gateway with these names and addresses, signed by an authority.
pub fn server(names: &[String], authority: &str, authority_key: &str) -> Result<Pair, String> {
    let signer = KeyPair::from_pem(authority_key).map_err(|error| error.to_string())?;
    let issuer = Issuer::from_ca_cert_pem(authority, signer).map_err(|error| error.to_string())?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params =
        CertificateParams::new(names).map_err(|error| format!("the names {names:?}: {error}"))?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = named(names.first().map_or("bugle", String::as_str));
    let until = set_dates(&mut params, SERVER);
    let certificate = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem(), until })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From a day ago, for clients whose clock is late, for so many days.
fn set_dates(params: &mut CertificateParams, days: i64) -> String {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::days(1), now + Duration::days(days - 1));
    let (year, month, day) = params.not_after.to_calendar_date();
    format!("{year:04}-{:02}-{day:02}", u8::from(month))
}
