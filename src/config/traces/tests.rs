//! Each variable by itself, their order, and what is wrong with them.

use std::collections::BTreeMap;

use super::super::load_text;
use super::*;
use crate::cli::ConfigArgs;
use crate::config::Loaded;

fn loaded(yaml: &str, variables: &[(&str, &str)]) -> Loaded {
    let env: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let args = ConfigArgs { config: Some("t.yaml".into()), ..ConfigArgs::default() };
    load_text(&args, &env, Some(yaml)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn traces(yaml: &str, variables: &[(&str, &str)]) -> TracesConfig {
    let Loaded { config, warnings, .. } = loaded(yaml, variables);
    assert_eq!(warnings, Vec::<String>::new());
    *config.traces
}

fn endpoint_of(yaml: &str, variables: &[(&str, &str)]) -> Option<String> {
    traces(yaml, variables).endpoint.map(|url| url.to_string())
}

#[test]
fn nothing_is_traced_unless_an_endpoint_is_given() {
    assert_eq!(traces("", &[]), TracesConfig::default());
    // What kagent sets in pods besides.
    let kagent = [
        ("OTEL_TRACING_ENABLED", "true"),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "15000"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
    ];
    assert_eq!(endpoint_of("", &kagent), None);
}

#[test]
fn the_path_is_that_of_otlp_where_a_url_has_none() {
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let file = "traces: {endpoint: \"http://file:4318\"}";
    for (yaml, variables, expected) in [
        (file, &[][..], "http://file:4318/v1/traces"),
        ("traces: {endpoint: \"https://file/in\"}", &[], "https://file/in"),
        ("traces: {endpoint: \"http://[::1]:1/?key\"}", &[], "http://[::1]:1/?key"),
        // As "Endpoint URLs for OTLP/HTTP" of OpenTelemetry has it.
        (file, &[(ALL, "http://all:4318")], "http://all:4318/v1/traces"),
        ("", &[(ALL, "http://all:4318/mycollector/")], "http://all:4318/mycollector/v1/traces"),
        ("", &[(OWN, "http://own:4318")], "http://own:4318/"),
        ("", &[(ALL, "http://all"), (OWN, "https://own/x")], "https://own/x"),
        (file, &[(ALL, " ")], "http://file:4318/v1/traces"),
    ] {
        assert_eq!(endpoint_of(yaml, variables).as_deref(), Some(expected), "{variables:?}");
    }
    for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(endpoint_of(file, &[off]), None);
        let sources = loaded(file, &[off]).sources;
        assert_eq!(sources.of("traces.endpoint").to_string(), off.0);
    }
    for on in [("OTEL_SDK_DISABLED", "1"), ("OTEL_TRACES_EXPORTER", "otlp")] {
        assert!(endpoint_of(file, &[on]).is_some());
    }
}

#[test]
fn a_file_says_all_there_is() {
    let traces = traces(
        "traces:\n  endpoint: https://c\n  protocol: grpc\n  ratio: 0.25\n  followCallers: false\n  \
         headersFile: /h\n  serviceName: edge\n  resourceAttributes: [a=1, \"b = 2=3\"]\n  \
         tls: {caFile: /ca, serverName: c}\n",
        &[],
    );
    let tls = ClientTls {
        ca: Some(Secret::File("/ca".into())),
        server_name: Some("c".to_owned()),
        ..ClientTls::default()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = TracesConfig {
        endpoint: Some("https://c/v1/traces".parse().unwrap()),
        protocol: OtlpProtocol::Grpc,
        ratio: 0.25,
        follow_callers: false,
        headers: Some(Secret::File("/h".into())),
        service_name: "edge".to_owned(),
        resource: vec![pair("a", "1"), pair("b", "2=3")],
        tls,
    };
    assert_eq!(traces, expected);
}

#[test]
fn what_is_wrong_in_a_file_is_a_fault_with_its_line() {
    for (yaml, fault) in [
        ("endpoint: collector:4317", "\"collector:4317\" is not the URL of a receiver"),
        ("endpoint: ftp://c", "\"ftp://c\" is not the URL of a receiver"),
        ("endpoint: http://user:hunter2@c", "is not the URL of a receiver"),
        ("protocol: http/json", "write http or grpc"),
        ("ratio: 1.5", "write a number from 0 to 1"),
        ("ratio: NaN", "write a number from 0 to 1"),
        ("serviceName: \"\"", "is empty"),
        ("resourceAttributes: [x]", "\"x\" is not an attribute"),
        ("resourceAttributes: [\"=x\"]", "\"=x\" is not an attribute"),
        ("endpont: http://c", "did you mean endpoint?"),
    ] {
        let args = ConfigArgs { config: Some("t.yaml".into()), ..ConfigArgs::default() };
        let text = format!("traces:\n  {yaml}\n");
        let faults = load_text(&args, &BTreeMap::new(), Some(&text)).unwrap_err().to_string();
        assert!(faults.starts_with("t.yaml:2: traces."), "{faults}");
        assert!(faults.contains(fault), "{faults}");
    }
}

#[test]
fn the_variables_for_traces_come_before_those_for_all_signals() {
    let traces = traces(
        "traces: {protocol: http, serviceName: file, headersFile: /h}",
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=all"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=own"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute,k8s.pod.name=a%20b"),
            ("OTEL_SERVICE_NAME", "named"),
        ],
    );
    assert_eq!(traces.protocol, OtlpProtocol::Grpc);
    assert_eq!(traces.headers, Some(Secret::Inline("a=own".into())));
    assert_eq!(traces.tls.ca, Some(Secret::File("/own".into())));
    assert_eq!(traces.tls.cert, Some(Secret::File("/cert".into())));
    assert_eq!(traces.tls.key, Some(Secret::File("/key".into())));
    assert_eq!(traces.resource, [("k8s.pod.name".to_owned(), "a b".to_owned())]);
    assert_eq!(traces.service_name, "named");
    let attribute = [("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute")];
    let unnamed = self::traces("traces: {serviceName: file}", &attribute);
    assert_eq!((unnamed.service_name.as_str(), unnamed.resource.len()), ("attribute", 0));
}

#[test]
fn samplers_are_known_by_their_names() {
    for (name, ratio, argument, follow_callers) in [
        ("always_on", 1.0, None, false),
        ("always_off", 0.0, None, false),
        ("traceidratio", 0.5, Some("0.5"), false),
        ("parentbased_always_on", 1.0, Some("0.5"), true),
        ("parentbased_always_off", 0.0, None, true),
        ("parentbased_traceidratio", 0.001, Some("0.001"), true),
        ("parentbased_traceidratio", 1.0, None, true),
    ] {
        let mut variables = vec![("OTEL_TRACES_SAMPLER", name)];
        variables.extend(argument.map(|argument| ("OTEL_TRACES_SAMPLER_ARG", argument)));
        let traces = traces("traces: {ratio: 0.75}", &variables);
        assert_eq!((traces.ratio, traces.follow_callers), (ratio, follow_callers), "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_variable_is_told_and_the_rest_holds() {
    for (variables, warning) in [
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")][..], "is not the URL of a receiver"),
        (
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "x")],
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT \"x\"",
        ),
        (&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], "write grpc or http/protobuf"),
        (&[("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], "OTEL_EXPORTER_OTLP_HEADERS is not a list"),
        (&[("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2")], "none of a header"),
        (&[("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%0A")], "that no header can have"),
        (&[("OTEL_TRACES_SAMPLER", "jaeger_remote")], "OTEL_TRACES_SAMPLER \"jaeger_remote\""),
        (
            &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")],
            "OTEL_TRACES_SAMPLER_ARG \"2\" is not a share",
        ),
    ] {
        let file = "traces: {endpoint: \"http://file:1\", protocol: grpc}";
        let Loaded { config, warnings, .. } = loaded(file, variables);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains(warning) && warnings[0].ends_with("is not used"),
            "{warnings:?}"
        );
        assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
        assert_eq!(config.traces.endpoint.unwrap().host(), Some("file"));
        assert_eq!(config.traces.protocol, OtlpProtocol::Grpc);
    }
}

#[test]
fn headers_come_with_commas_or_lines_and_are_not_shown() {
    let map = headers_of(
        "authorization=Bearer%20a=b==, x-team = 1

X-Team=two%2C3
",
    )
    .unwrap();
    assert_eq!(map["authorization"], "Bearer a=b==");
    assert_eq!(map.get_all("x-team").iter().collect::<Vec<_>>(), ["1", "two,3"]);
    assert!(!format!("{map:?}").contains("Bearer"), "{map:?}");
    assert!(headers_of("").unwrap().is_empty());
}
