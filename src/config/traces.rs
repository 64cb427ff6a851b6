//! The section `traces`, and the variables of OpenTelemetry that say the same.
//!
//! Plain data and its reading; knows nothing of spans or of who takes them. A variable of OpenTelemetry may be meant for
//! another program of the pod, so what is wrong with one is told and the program starts without it, as OpenTelemetry asks
//! for (environment variable specification, "Parsing empty value" to "Enum").

use http::Uri;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::file::{Map, Reader};
use super::read::SECRET_FILE;
use super::scalar::{RATIO, SWITCH, ScalarKind, parse_ratio};
use super::sources::{ConfigFaults, Source, Sources};
use super::{ClientTls, Config, Secret};

/// What is traced, and where to.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// Where spans are sent, with the path for OTLP over HTTP; without it nothing is traced.
    pub endpoint: Option<Uri>,
    /// How.
    pub protocol: OtlpProtocol,
    /// Share of the traces that begin here, from 0 to 1.
    pub ratio: f64,
    /// Whether a caller's own decision counts for its trace.
    pub follow_callers: bool,
    /// Headers sent along, as `OTEL_EXPORTER_OTLP_HEADERS` has them.
    pub headers: Option<Secret>,
    /// What the program is called in traces.
    pub service_name: String,
    /// What else is said of it, by name.
    pub resource: Vec<(String, String)>,
    /// TLS toward an `https` endpoint.
    pub tls: ClientTls,
}

/// How spans are sent (OpenTelemetry Protocol 1.x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf over HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// The path of OTLP over HTTP.
const PATH: &str = "/v1/traces";
/// What a program without another name is called.
const SERVICE: &str = "kagent-proxy";

// === impl TracesConfig ===

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::Http,
            ratio: 1.0,
            follow_callers: true,
            headers: None,
            service_name: SERVICE.to_owned(),
            resource: Vec::new(),
            tls: ClientTls::default(),
        }
    }
}

impl Reader<'_> {
    pub(super) fn traces(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(mut section) = self.section(map, "traces") else { return };
        let traces = &mut config.traces;
        self.set(&mut section, "endpoint", &mut traces.endpoint, ENDPOINT);
        self.set(&mut section, "protocol", &mut traces.protocol, PROTOCOL);
        self.set(&mut section, "ratio", &mut traces.ratio, RATIO);
        self.set(&mut section, "followCallers", &mut traces.follow_callers, SWITCH);
        let headers = self.value(&mut section, "headersFile", traces.headers.clone(), SECRET_FILE);
        traces.headers = headers.or_else(|| traces.headers.take());
        self.set(&mut section, "serviceName", &mut traces.service_name, SERVICE_NAME);
        self.scalars(&mut section, "resourceAttributes", &mut traces.resource, ATTRIBUTE);
        self.client_tls(&mut section, &mut traces.tls);
        self.end(&section);
    }
}

const ENDPOINT: ScalarKind<Option<Uri>> = ScalarKind::optional(|text| match text {
    "" => Ok(None),
    _ => endpoint(text, None).map(Some),
});
const PROTOCOL: ScalarKind<OtlpProtocol> =
    ScalarKind::words(&["http", "grpc"], |text| match text {
        "http" => Ok(OtlpProtocol::Http),
        "grpc" => Ok(OtlpProtocol::Grpc),
        _ => Err(format!("{text:?} is not known; write http or grpc")),
    });
const SERVICE_NAME: ScalarKind<String> = ScalarKind::text(|text| match text {
    "" => Err("is empty; write what the proxy is called in traces".to_owned()),
    _ => Ok(text.to_owned()),
});
const ATTRIBUTE: ScalarKind<(String, String)> = ScalarKind::text_shown(
    |text| {
        let pair = text.split_once('=').filter(|(name, _)| !name.trim().is_empty());
        let (name, value) =
            pair.ok_or_else(|| format!("{text:?} is not an attribute; write name=value"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    },
    |_, (name, value)| json!(format!("{name}={value}")),
);

/// The URL to which spans are sent. `path` is the one for a URL without; `None` asks for that of OTLP.
fn endpoint(text: &str, path: Option<&str>) -> Result<Uri, String> {
    let wrong = || {
        format!(
            "{text:?} is not the URL of a receiver; write one such as http://collector.observability:4318"
        )
    };
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if !plain || !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong());
    }
    if url.path() != "/" || url.query().is_some() {
        return Ok(url);
    }
    let mut parts = url.into_parts();
    parts.path_and_query = path.unwrap_or(PATH).parse().ok();
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// Lays the variables of OpenTelemetry over the section. Returns what is wrong with them; a program that cannot trace is
/// a fault if the file asks for it.
pub(super) fn lay_over<'a>(
    traces: &mut TracesConfig,
    (sources, faults): (&mut Sources, &mut ConfigFaults),
    var: &dyn Fn(&str) -> Option<&'a str>,
) -> Vec<String> {
    let mut variables = Variables { var, sources, warnings: Vec::new() };
    variables.lay_over(traces);
    let mut warnings = variables.warnings;
    if traces.endpoint.is_some() && cfg!(not(feature = "traces")) {
        let (path, reason) =
            ("traces.endpoint", "is not in this program; build it with the feature traces");
        match sources.of(path) {
            Source::Env(name) => warnings.push(format!("{name} {reason}")),
            source => faults.add(&source, path, reason),
        }
        traces.endpoint = None;
    }
    warnings
}

/// The variables, where what they say is noted, and what is wrong with them.
struct Variables<'v, 'a> {
    var: &'v dyn Fn(&str) -> Option<&'a str>,
    sources: &'v mut Sources,
    warnings: Vec<String>,
}

// === impl Variables ===

impl Variables<'_, '_> {
    fn lay_over(&mut self, traces: &mut TracesConfig) {
        self.endpoint(traces);
        let protocols = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        self.take(&protocols, "traces.protocol", &mut traces.protocol, |text| match text {
            "grpc" => Ok(OtlpProtocol::Grpc),
            "http/protobuf" => Ok(OtlpProtocol::Http),
            _ => Err("is not spoken; write grpc or http/protobuf".to_owned()),
        });
        let headers = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        // What is wrong in it is told without showing it.
        self.take(&headers, "traces.headersFile", &mut traces.headers, |text| {
            headers_of(text)?;
            Ok(Some(Secret::Inline(text.into())))
        });
        self.certificates(&mut traces.tls);
        self.resource(traces);
        self.sampler(traces);
        let disabled =
            (self.var)("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let nowhere = (self.var)("OTEL_TRACES_EXPORTER") == Some("none");
        let off = [(disabled, "OTEL_SDK_DISABLED"), (nowhere, "OTEL_TRACES_EXPORTER")];
        if let Some((_, name)) = off.into_iter().find(|(off, _)| *off) {
            traces.endpoint = None;
            self.sources.set("traces.endpoint", Source::Env(name));
        }
    }

    /// The first of these that is there, and right.
    fn take<T>(
        &mut self,
        names: &[&'static str],
        path: &str,
        slot: &mut T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) {
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, (self.var)(name)?)))
        else {
            return;
        };
        match parse(text) {
            Ok(value) => {
                *slot = value;
                self.sources.forget(path);
                self.sources.set(path, Source::Env(name));
            }
            Err(reason) => self.warnings.push(format!("{name} {reason}; it is not used")),
        }
    }

    /// The one for traces is taken as it is; to the one for all signals the path of traces is added.
    fn endpoint(&mut self, traces: &mut TracesConfig) {
        const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let slot = &mut traces.endpoint;
        if (self.var)(OWN).is_some() {
            self.take(&[OWN], "traces.endpoint", slot, |text| endpoint(text, Some("/")).map(Some));
        } else {
            self.take(&["OTEL_EXPORTER_OTLP_ENDPOINT"], "traces.endpoint", slot, |text| {
                let base = text.trim_end_matches('/');
                endpoint(base, None)?;
                endpoint(&format!("{base}{PATH}"), None).map(Some)
            });
        }
    }

    fn certificates(&mut self, tls: &mut ClientTls) {
        let file = |text: &str| Ok(Some(Secret::File(text.into())));
        let ca = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
        self.take(&ca, "traces.tls.caFile", &mut tls.ca, file);
        let cert = [
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        ];
        self.take(&cert, "traces.tls.certFile", &mut tls.cert, file);
        let key = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];
        self.take(&key, "traces.tls.keyFile", &mut tls.key, file);
    }

    fn resource(&mut self, traces: &mut TracesConfig) {
        let attributes = ["OTEL_RESOURCE_ATTRIBUTES"];
        self.take(&attributes, "traces.resourceAttributes", &mut traces.resource, pairs);
        let named = traces.resource.iter().position(|(name, _)| name == "service.name");
        if let Some(at) = named {
            traces.service_name = traces.resource.remove(at).1;
            let source = self.sources.of("traces.resourceAttributes");
            self.sources.set("traces.serviceName", source);
        }
        let name = |text: &str| Ok(text.to_owned());
        self.take(&["OTEL_SERVICE_NAME"], "traces.serviceName", &mut traces.service_name, name);
    }

    fn sampler(&mut self, traces: &mut TracesConfig) {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let Some(name) = (self.var)(NAME) else { return };
        let (follow_callers, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, name),
        };
        let ratio = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => {
                let mut ratio = 1.0;
                self.take(&["OTEL_TRACES_SAMPLER_ARG"], "traces.ratio", &mut ratio, parse_ratio);
                ratio
            }
            _ => {
                let known = "always_on, always_off or traceidratio, with parentbased_ or without";
                return self
                    .warnings
                    .push(format!("{NAME} {name:?} is not known; write {known}; it is not used"));
            }
        };
        (traces.ratio, traces.follow_callers) = (ratio, follow_callers);
        self.sources.set("traces.ratio", Source::Env(NAME));
        self.sources.set("traces.followCallers", Source::Env(NAME));
    }
}

/// Headers as `OTEL_EXPORTER_OTLP_HEADERS` has them: `name=value`, percent-encoded, with commas between, or lines.
///
/// # Errors
/// Says what is wrong without repeating what may be secret.
pub fn headers_of(text: &str) -> Result<http::HeaderMap, String> {
    let mut map = http::HeaderMap::new();
    for (name, value) in pairs(text)? {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| "has a name that is none of a header".to_owned())?;
        let mut value = http::HeaderValue::from_str(&value)
            .map_err(|_| format!("has a value of {name} that no header can have"))?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    Ok(map)
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || "is not a list of name=value with commas between".to_owned();
    let items = text.split([',', '\n', '\r']).map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| {
        let (name, value) = item.split_once('=').ok_or_else(wrong)?;
        let decoded = |text: &str| {
            let text = percent_decode_str(text.trim()).decode_utf8().map_err(|_| wrong())?;
            Ok::<_, String>(text.into_owned())
        };
        let name = decoded(name)?;
        if name.is_empty() { Err(wrong()) } else { Ok((name, decoded(value)?)) }
    };
    items.map(pair).collect()
}

#[cfg(test)]
mod tests;
