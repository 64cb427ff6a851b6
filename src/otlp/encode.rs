//! Spans as OTLP has them: the messages of opentelemetry-proto, in protobuf.
//!
//! Pure: spans in, bytes out, and what a receiver answers. Knows no connection.

use std::time::SystemTime;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};
use prost::Message;

use crate::config::TracesConfig;
use crate::telemetry::trace::{Attribute, FinishedSpan};

const NAME: &str = "kagent-proxy";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The program, as every batch names it (semantic conventions, "Service"); `instance` tells it from its replicas.
pub(super) fn resource(config: &TracesConfig, instance: &str) -> Resource {
    let own = [
        ("service.name", config.service_name.as_str()),
        ("service.version", VERSION),
        ("service.instance.id", instance),
    ];
    let given = |name: &str| config.resource.iter().any(|(given, _)| given == name);
    let own = own.iter().filter(|(name, _)| !given(name)).map(|(name, text)| (*name, *text));
    let more = config.resource.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let attributes =
        own.chain(more).map(|(name, text)| pair(name, Value::StringValue(text.into())));
    Resource { attributes: attributes.collect(), ..Resource::default() }
}

/// A batch of spans, as the body of a request.
pub(super) fn request(resource: &Resource, spans: Vec<FinishedSpan>) -> Bytes {
    let scope =
        InstrumentationScope { name: NAME.into(), version: VERSION.into(), ..Default::default() };
    let spans = spans.into_iter().map(span).collect();
    let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec().into()
}

/// How many spans of a batch the receiver has not taken, and why (OTLP, "Partial Success").
pub(super) fn rejected(answer: &[u8]) -> (u64, String) {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|a| a.partial_success);
    let partial = partial.unwrap_or_default();
    (u64::try_from(partial.rejected_spans).unwrap_or_default(), partial.error_message)
}

fn span(span: FinishedSpan) -> Span {
    let FinishedSpan { name, context, parent, state, start, end, attributes, failed } = span;
    let is_remote = match parent {
        0 => SpanFlags::DoNotUse as u32,
        _ => SpanFlags::ContextIsRemoteMask as u32,
    };
    let known = SpanFlags::ContextHasIsRemoteMask as u32;
    let status = failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() });
    let attributes = attributes.into_iter().map(|(name, attribute)| {
        pair(
            name,
            match attribute {
                Attribute::Text(text) => Value::StringValue(text.into()),
                Attribute::Number(number) => Value::IntValue(number),
            },
        )
    });
    Span {
        trace_id: context.trace.to_be_bytes().into(),
        span_id: context.span.to_be_bytes().into(),
        trace_state: state.into(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().into() },
        flags: u32::from(context.flags) | known | is_remote,
        name: name.into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanoseconds(start),
        end_time_unix_nano: nanoseconds(end),
        attributes: attributes.collect(),
        status,
        ..Span::default()
    }
}

fn pair(name: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: name.into(), value, ..KeyValue::default() }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;
    use crate::protocol::trace_context::{SAMPLED, TraceContext};

    fn finished(parent: u64, failed: bool) -> FinishedSpan {
        let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_007);
        FinishedSpan {
            name: "tools/call add".into(),
            context: TraceContext { trace: 0x0102 << 112 | 3, span: 4, flags: SAMPLED },
            parent,
            state: "a=1,b=2".into(),
            start,
            end: start + Duration::from_millis(5),
            attributes: vec![
                ("url.path", Attribute::Text("/mcp".into())),
                ("http.response.status_code", Attribute::Number(200)),
            ],
            failed,
        }
    }

    #[test]
    fn a_batch_is_one_message_of_all_spans() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let config = TracesConfig {
            resource: vec![pair("k8s.pod.name", "p-1"), pair("service.version", "mine")],
            ..TracesConfig::default()
        };
        let resource = resource(&config, "kagent-proxy-7");
        let bytes = request(&resource, vec![finished(9, true), finished(0, false)]);
        let read = ExportTraceServiceRequest::decode(bytes).unwrap();
        let [of_resource] = &read.resource_spans[..] else { panic!("{read:?}") };
        let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => format!("{}={text}", pair.key),
            Value::IntValue(number) => format!("{}={number}", pair.key),
            other => panic!("{other:?}"),
        };
        let said = of_resource.resource.as_ref().unwrap().attributes.iter();
        let expected = [
            "service.name=kagent-proxy",
            "service.instance.id=kagent-proxy-7",
            "k8s.pod.name=p-1",
            "service.version=mine",
        ];
        assert_eq!(said.map(text).collect::<Vec<_>>(), expected);
        let [of_scope] = &of_resource.scope_spans[..] else { panic!("{read:?}") };
        assert_eq!(of_scope.scope.as_ref().unwrap().name, "kagent-proxy");
        let [child, root] = &of_scope.spans[..] else { panic!("{read:?}") };
        assert_eq!(child.trace_id, [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(child.span_id, [0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(child.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!((child.flags, root.flags), (0x301, 0x101));
        assert_eq!((child.name.as_str(), child.kind()), ("tools/call add", SpanKind::Server));
        assert_eq!(child.trace_state, "a=1,b=2");
        assert_eq!(child.start_time_unix_nano, 1_700_000_000_000_000_007);
        assert_eq!(child.end_time_unix_nano - child.start_time_unix_nano, 5_000_000);
        let attributes = child.attributes.iter().map(text).collect::<Vec<_>>();
        assert_eq!(attributes, ["url.path=/mcp", "http.response.status_code=200"]);
        assert_eq!(child.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!((root.parent_span_id.len(), root.status.as_ref()), (0, None));
    }

    #[test]
    fn what_a_receiver_has_not_taken_is_read() {
        let message = "too old".to_owned();
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: message };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        assert_eq!(rejected(&answer.encode_to_vec()), (3, "too old".to_owned()));
        for nothing in [&b""[..], b"{}", b"\xff\xff"] {
            assert_eq!(rejected(nothing), (0, String::new()));
        }
    }
}
