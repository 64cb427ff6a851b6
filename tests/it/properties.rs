//! What holds for every input: host names, and the fields of one hop.

use http::{HeaderMap, HeaderName, HeaderValue};
use kagent_proxy::headers::strip_hop_by_hop;
use kagent_proxy::route::HostKey;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_host_key_is_a_dns_name_whatever_was_sent(value in "[ -~\u{fc}]{0,40}|[a-zA-Z0-9.:-]{0,80}") {
        if let Ok((key, _)) = HostKey::parse(&value, "cluster.local") {
            let key = key.as_str();
            prop_assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b)), "{key}");
            prop_assert!(key.split('.').all(|label| (1..=63).contains(&label.len())), "{key}");
            prop_assert!(key.parse::<std::net::IpAddr>().is_err(), "{key}");
        }
    }

    #[test]
    fn every_spelling_of_a_service_is_one_key(name in "[a-z][a-z0-9]{0,20}", ns in "[a-z][a-z0-9]{0,20}", port in any::<u16>()) {
        prop_assume!(ns != "localhost");
        let bare = format!("{name}.{ns}");
        for suffix in ["", ".", ".svc", ".svc.cluster.local", ".svc.cluster.local."] {
            let spelling = format!("{}{suffix}:{port}", bare.to_ascii_uppercase());
            let (key, found) = HostKey::parse(&spelling, "cluster.local").unwrap();
            prop_assert_eq!(key.as_str(), &bare, "{}", spelling);
            prop_assert_eq!(found, Some(port));
        }
    }

    #[test]
    fn what_connection_names_goes_and_the_rest_keeps_values_and_order(
        named in proptest::collection::vec("x-n[a-z]{1,3}", 0..4),
        kept in proptest::collection::vec(("x-k[a-c]", "[!-~]{1,8}"), 0..12),
    ) {
        let mut headers = HeaderMap::new();
        let mut expected = HeaderMap::new();
        for (name, value) in &kept {
            let name = HeaderName::try_from(name).unwrap();
            let value = HeaderValue::try_from(value).unwrap();
            headers.append(name.clone(), value.clone());
            expected.append(name, value);
        }
        for name in &named {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
            headers.append("connection", HeaderValue::try_from(name.to_ascii_uppercase()).unwrap());
        }
        strip_hop_by_hop(&mut headers);
        prop_assert_eq!(headers, expected);
    }
}
