//! The name in a client's certificate, which TLS has verified before.

use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest name that is taken, in bytes.
const MAX_NAME: usize = 256;

/// Where in a certificate the client's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NamePlace {
    /// The common name of its subject.
    CommonName,
    /// The DNS name among its alternative names.
    DnsName,
}

impl NamePlace {
    /// The name; none where there is none, or more than one: whoever could choose between names could be two.
    pub fn find(self, certificate: &[u8]) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names: Vec<&str> = match self {
            Self::CommonName => {
                let names = certificate.subject().iter_common_name().map(|name| name.as_str());
                names.collect::<Result<_, _>>().ok()?
            }
            Self::DnsName => {
                let extension = certificate.subject_alternative_name().ok()??;
                let names = extension.value.general_names.iter();
                names
                    .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None })
                    .collect()
            }
        };
        match names.as_slice() {
            [name] if !name.is_empty() && name.len() <= MAX_NAME => Some((*name).to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common: &str, names: &[&str]) -> Vec<u8> {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_one_name_is_found_where_it_is_looked_for() {
        let one = certificate("lamp-1", &["lamp-1.site.example"]);
        assert_eq!(NamePlace::CommonName.find(&one).as_deref(), Some("lamp-1"));
        assert_eq!(NamePlace::DnsName.find(&one).as_deref(), Some("lamp-1.site.example"));
        let two = certificate("", &["a.example", "b.example"]);
        assert_eq!((NamePlace::CommonName.find(&two), NamePlace::DnsName.find(&two)), (None, None));
        assert_eq!(NamePlace::DnsName.find(&certificate("a", &[])), None);
        assert_eq!(NamePlace::CommonName.find(b"no certificate"), None);
    }
}
