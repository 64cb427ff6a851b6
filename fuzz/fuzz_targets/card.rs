//! Agent cards: what is rewritten is JSON still, leads nowhere new, and no URL is left to change.

#![no_main]

use kagent_proxy::rewrite::card::rewrite_card;
use kagent_proxy::rewrite::decode::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let backend = |host: &str| host == "helper.team-a";
    if let Some(card) = rewrite_card(body, "http://proxy:8080", &backend) {
        let read: serde_json::Value = serde_json::from_slice(&card.body).expect("JSON");
        assert!(read.get("signatures").is_none());
        let again = rewrite_card(&card.body, "http://proxy:8080", &backend).expect("a card");
        // Not the bytes: numbers beyond 64 bits are rounded each time they are read.
        assert_eq!(again.urls, 0);
    }
    for encoding in ["gzip", "deflate"] {
        if let Some(decoded) = decode(encoding, body, 4096) {
            assert!(decoded.len() <= 4096);
        }
    }
});
