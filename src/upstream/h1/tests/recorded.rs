//! What the backends of `tests/framing` really say, to GET and to HEAD: recorded there, split at every byte here.

use serde_json::Value;

use super::oracle::{Case, End, Outcome};
use super::*;

/// Written by `tests/framing/run.py --record`.
const RECORDED: &str = include_str!("../../../../tests/framing/recorded.json");

#[test]
fn what_real_servers_say_is_what_hyper_makes_of_it_wherever_it_is_split() {
    let records: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    alone(async {
        for record in &records {
            let (kind, method) = (text(record, "kind"), text(record, "method"));
            let bytes: Vec<u8> =
                text(record, "bytes").chars().map(|c| u8::try_from(c).unwrap()).collect();
            let case = Case {
                bytes: &bytes,
                to_head: method == "HEAD",
                closes: record["closes"].as_bool().unwrap(),
            };
            let Outcome::Passed(passed) = case.everywhere(1).await else {
                panic!("{record} is refused");
            };
            let cut = kind.starts_with("cut-");
            match &passed.end {
                End::Whole(trailers) => {
                    let named = kind == "trailers" && !case.to_head;
                    assert!(!cut && trailers.is_some() == named, "{record}: {passed:?}");
                }
                end => assert!(cut && *end == End::CutOff, "{record}: {passed:?}"),
            }
            let empty =
                case.to_head || ["empty", "no-content", "not-modified"].contains(&kind.as_str());
            let body: &[u8] = if empty {
                b""
            } else if cut {
                b"hel"
            } else {
                b"hello"
            };
            assert_eq!(passed.body, body, "{record}");
            assert_eq!(passed.reusable, !case.closes, "{record}");
            seen.push(text(record, "backend"));
        }
    });
    for backend in ["uvicorn", "node", "hyper"] {
        let count = seen.iter().filter(|name| *name == backend).count();
        assert!(count > 15, "{count} of {backend}");
    }
}
