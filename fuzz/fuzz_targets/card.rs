//! Agent cards: what is rewritten leads nowhere new, no URL is left to change, and all else stays.

#![no_main]

use kagent_proxy::rewrite::card::rewrite_card;
use kagent_proxy::rewrite::decode::decode;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let backend = |host: &str| host == "helper.team-a";
    let origin = "http://proxy:8080";
    let is_object = serde_json::from_slice::<Value>(body).is_ok_and(|card| card.is_object());
    match rewrite_card(body, origin, &backend) {
        Ok(card) => {
            if is_object {
                let read: Value = serde_json::from_slice(&card.body).expect("JSON");
                assert!(read.get("signatures").is_none());
            }
            if card.urls == 0 && !card.signatures_removed {
                assert_eq!(card.body, body);
            }
            let again = rewrite_card(&card.body, origin, &backend).expect("a card");
            assert_eq!((again.urls, again.signatures_removed), (0, false));
            assert_eq!(again.body, card.body);
        }
        Err(_) => assert!(!is_object, "what a strict reader takes is read"),
    }
    for encoding in ["gzip", "deflate"] {
        if let Some(decoded) = decode(encoding, body, 4096) {
            assert!(decoded.len() <= 4096);
        }
    }
});
