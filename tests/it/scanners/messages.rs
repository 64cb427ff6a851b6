//! Makes JSON-RPC messages for tests, as they are written: right ones, and ones with anything anywhere, which are JSON
//! nonetheless; alone, in batches, and in event streams.
//!
//! Knows no scanner.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Keys that mean something somewhere, and some that never do.
const KEYS: &[&str] = &[
    "id",
    "method",
    "params",
    "result",
    "error",
    "jsonrpc",
    "name",
    "uri",
    "_meta",
    "traceparent",
    "isError",
    "code",
    "message",
    "data",
    "tools",
    "content",
    "text",
    "arguments",
    "structuredContent",
    "task",
    "taskId",
    "[]",
    "",
    "x",
    "Id",
    "ide",
    "met",
    "\u{0}",
    "schlüssel",
    "🔑",
    "\"id\"",
    "id\\",
];

const METHODS: &[&str] = &[
    "tools/call",
    "tools/call",
    "tools/list",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "ping",
    "initialize",
    "notifications/progress",
    "sampling/createMessage",
    "message/send",
    "message/stream",
    "tasks/get",
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "my/own",
    "",
    "tools/call ",
    "werkzeug/ö",
];

/// Texts that look like parts of a message, or of a stream.
const TEXTS: &[&str] = &[
    "add",
    "x",
    "",
    "1",
    "null",
    "{",
    "}",
    "[{",
    "\"",
    "\\",
    "\\\"",
    "\n\n",
    "data: ",
    "\r\ndata: {\"id\":1}\r\n\r\n",
    "\"isError\":true",
    "{\"id\":1,\"method\":\"tools/call\"}",
    ",\"method\":\"ping\"",
    "file:///ä/🔑",
    "\u{7f}\u{2028}",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    "00-0-0-00",
    "tools/call",
    "tools",
];

const LITERALS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "7",
    "-1",
    "-32601",
    "7.0",
    "1.5",
    "1e3",
    "-0",
    "1E-2",
    "9223372036854775808",
    "12345678901234567890123",
    "1e400",
];

/// A request or response: a message, or a batch, with white space around it and anything behind it.
pub(super) fn body() -> impl Strategy<Value = String> {
    let batch = items(prop_oneof![4 => message(), 1 => value()], 0..6);
    let long = (message(), 60usize..80)
        .prop_map(|(one, times)| format!("[{}]", vec![one; times].join(",")));
    let one = prop_oneof![12 => message(), 6 => batch, 1 => long, 1 => value()];
    let behind =
        prop_oneof![6 => Just(""), 1 => Just("{\"id\":9,\"method\":\"ping\"}"), 1 => Just("]")];
    (space(), one, space(), behind).prop_map(|(before, one, after, behind)| {
        // A number would go on.
        let behind = if one.ends_with(['}', ']']) { behind } else { "" };
        format!("{before}{one}{after}{behind}")
    })
}

/// An event stream of messages, and of what is none.
pub(super) fn stream() -> impl Strategy<Value = String> {
    let mark = prop_oneof![4 => Just(""), 1 => Just("\u{feff}")];
    (mark, vec(event(), 0..6)).prop_map(|(mark, events)| format!("{mark}{}", events.concat()))
}

fn event() -> impl Strategy<Value = String> {
    let data = prop_oneof![
        8 => (space(), one_of_some(), space()).prop_map(|(before, one, after)| format!("{before}{one}{after}")),
        1 => select(&["", "ping", "/messages?session=1", "\u{feff}", "7"][..]).prop_map(str::to_owned),
    ];
    let other = select(
        &[
            ": a comment",
            ":",
            "event: message",
            "id: 7",
            "retry: 10",
            "data",
            "dat: {\"id\":1,\"result\":1}",
            "datax: {\"id\":1,\"result\":1}",
            " data: {\"id\":1,\"result\":1}",
            ": data: {\"id\":1,\"result\":1}",
            "Data: {\"id\":1,\"result\":1}",
            "ünknown: 🔑",
        ][..],
    );
    let end = select(&["\n", "\r\n", "\r"][..]);
    (data, vec(other, 0..4), end, any::<bool>()).prop_map(|(data, mut others, end, spaced)| {
        // Its line breaks, which are white space, begin another line of data.
        let name = if spaced { "data: " } else { "data:" };
        let lines = data.split(['\n', '\r']).map(|line| format!("{name}{line}{end}"));
        let behind = others.pop().filter(|_| others.len() > 1).unwrap_or(": behind");
        let before: String = others.iter().map(|line| format!("{line}{end}")).collect();
        format!("{before}{}{behind}{end}{end}", lines.collect::<String>())
    })
}

fn one_of_some() -> impl Strategy<Value = String> {
    prop_oneof![3 => message(), 1 => items(message(), 0..4)]
}

/// One message, an object.
pub(super) fn message() -> BoxedStrategy<String> {
    let request = object(vec(
        prop_oneof![
            3 => member("id", id()),
            4 => member("method", quoted(select(METHODS))),
            4 => member("params", params()),
            1 => any_member(),
        ],
        0..6,
    ));
    let response = object(vec(
        prop_oneof![
            3 => member("id", id()),
            4 => member("result", result()),
            2 => member("error", error()),
            1 => member("method", prop_oneof![literal(), quoted(select(METHODS))]),
            1 => any_member(),
        ],
        0..6,
    ));
    prop_oneof![4 => request, 4 => response, 1 => object(vec(any_member(), 0..6))].boxed()
}

fn params() -> impl Strategy<Value = String> {
    let meta = object(vec(prop_oneof![member("traceparent", any_text()), any_member()], 0..3));
    let message = object(vec(prop_oneof![member("taskId", any_text()), any_member()], 0..3));
    let inner = prop_oneof![
        4 => member("name", any_text()),
        2 => member("uri", any_text()),
        2 => member("arguments", value()),
        2 => member("_meta", meta),
        1 => member("message", message),
        2 => any_member(),
    ];
    prop_oneof![8 => object(vec(inner, 0..6)), 1 => value()]
}

fn result() -> impl Strategy<Value = String> {
    let tool = object(vec(prop_oneof![2 => member("name", any_text()), 1 => any_member()], 0..4));
    let tools = items(prop_oneof![4 => tool, 1 => value()], 0..4);
    let inner = prop_oneof![
        3 => member("content", items(value(), 0..3)),
        3 => member("isError", prop_oneof![4 => literal(), 1 => value()]),
        2 => member("tools", tools),
        1 => member("structuredContent", value()),
        2 => any_member(),
    ];
    prop_oneof![8 => object(vec(inner, 0..6)), 1 => value()]
}

fn error() -> impl Strategy<Value = String> {
    let inner = prop_oneof![
        3 => member("code", prop_oneof![4 => literal(), 1 => value()]),
        1 => member("message", any_text()),
        1 => any_member(),
    ];
    prop_oneof![6 => object(vec(inner, 0..4)), 1 => value()]
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![4 => literal(), 3 => any_text(), 1 => value()]
}

fn literal() -> impl Strategy<Value = String> {
    let long = (500usize..530).prop_map(|length| "7".repeat(length));
    prop_oneof![
        12 => select(LITERALS).prop_map(str::to_owned),
        4 => any::<i32>().prop_map(|number| number.to_string()),
        1 => long,
    ]
}

/// Any value, with what looks like a message within.
fn value() -> BoxedStrategy<String> {
    let leaf = prop_oneof![literal(), any_text()];
    let nested = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => object(vec((quoted(select(KEYS)), inner.clone()), 0..5)),
            2 => items(inner.clone(), 0..5),
            1 => (inner, 1usize..150).prop_map(|(inner, depth)| {
                format!("{}{inner}{}", "[{\"id\":".repeat(depth), "}]".repeat(depth))
            }),
        ]
    });
    nested.boxed()
}

fn any_text() -> impl Strategy<Value = String> {
    let long = (select(&["x", "ü", "🔑", "\"", "\n"][..]), 80usize..530)
        .prop_map(|(one, times)| one.repeat(times));
    prop_oneof![
        12 => quoted(select(TEXTS)),
        4 => quoted(".{0,12}"),
        1 => quoted(long),
        1 => select(&["\"\\ud800\"", "\"x\\udc00\\ud800\"", "\"\\uD83D\\uDD11\""][..]).prop_map(str::to_owned),
    ]
}

fn any_member() -> impl Strategy<Value = (String, String)> {
    (quoted(select(KEYS)), value())
}

fn member(
    key: &'static str,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = (String, String)> {
    (quoted(Just(key)), value)
}

fn object(members: impl Strategy<Value = Vec<(String, String)>>) -> impl Strategy<Value = String> {
    (members, spaces()).prop_map(|(members, spaces)| {
        let mut space = spaces.iter().cycle();
        let mut next = || *space.next().unwrap_or(&"");
        let members = members.into_iter();
        let members = members
            .map(|(key, value)| [next(), &key, next(), ":", next(), &value, next()].concat());
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

fn items(
    item: impl Strategy<Value = String>,
    many: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    (vec((item, space()), many), space()).prop_map(|(items, first)| {
        let items: Vec<_> =
            items.into_iter().map(|(item, space)| format!("{first}{item}{space}")).collect();
        format!("[{}]", items.join(","))
    })
}

fn spaces() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(space(), 1..6)]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => select(&[" ", "\n", "\r\n", "\t", "\r", " \n  "][..])]
}

/// A string that says this, its characters escaped here and there.
fn quoted(
    text: impl Strategy<Value = impl ToString + std::fmt::Debug>,
) -> impl Strategy<Value = String> {
    let styles = prop_oneof![4 => Just(vec![0]), 1 => vec(0u8..4, 1..8)];
    (text, styles).prop_map(|(text, styles)| {
        let text = text.to_string();
        let written = text.chars().zip(styles.iter().cycle()).map(|(c, style)| written(c, *style));
        format!("\"{}\"", written.collect::<String>())
    })
}

fn written(c: char, style: u8) -> String {
    match (c, style) {
        ('"' | '\\', 0 | 1) => format!("\\{c}"),
        ('/', 1) => "\\/".to_owned(),
        ('\n', 0 | 1) => "\\n".to_owned(),
        ('\r', 0 | 1) => "\\r".to_owned(),
        (c, 0 | 1) if c >= ' ' => c.to_string(),
        (c, style) => {
            let units = c.encode_utf16(&mut [0; 2]).to_vec();
            let hex =
                |unit| if style == 3 { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
            units.into_iter().map(hex).collect()
        }
    }
}
