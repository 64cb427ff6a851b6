//! Host names and targets: whatever is accepted is a DNS name that reads back as itself.

#![no_main]

use std::net::IpAddr;

use kagent_proxy::config::target::{parse_route, parse_target};
use kagent_proxy::route::HostKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((key, _)) = HostKey::parse(text, "cluster.local") {
        let name = key.as_str();
        assert!(name.parse::<IpAddr>().is_err() && name != "localhost", "{text:?} became {name:?}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        );
        // `a.b.svc.svc` loses one suffix each time; no Service has such a name.
        if !name.ends_with(".svc") && !name.ends_with(".svc.cluster.local") {
            let (again, port) =
                HostKey::parse(name, "cluster.local").expect("a key is a host name");
            assert!(again == key && port.is_none(), "{text:?} became {name:?}");
        }
    }
    if let Ok(target) = parse_target(text) {
        assert_eq!(parse_target(&target.to_string()).as_ref(), Ok(&target), "{text:?}");
    }
    let _any_result = parse_route(text);
});
