//! The command line: subcommands and flags, as text. Nothing is judged here but by the commands under it.
//!
//! What the flags mean, and the `KAGENT_PROXY_*` variables that stand behind them, is
//! `config/sources.rs`'s and `config::load`'s business; clap's own reading of
//! the environment is not used because it cannot say where a value came from, and because a kubelet
//! puts variables of our prefix into pods (decision D23).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod check;

const RUN_EXAMPLES: &str = "\
Examples:
  A sidecar: agents find helper.team-a behind 127.0.0.1:8090
    kagent-proxy run --route helper.team-a=127.0.0.1:8081
  In a cluster: routes come from its objects
    kagent-proxy run --config /etc/kagent-proxy/config.yaml
  From a workstation, by the current kubeconfig
    kagent-proxy run --discovery --kubeconfig ~/.kube/config --listen 127.0.0.1:8090
  Two endpoints, and a route that requests without x-kagent-host take
    kagent-proxy run --route tools.team-a/mcp=10.0.0.7:8080,10.0.0.8:8080 --default-route 127.0.0.1:3000";

const CHECK_EXAMPLES: &str = "\
Examples:
  kagent-proxy check --config config.yaml
  KAGENT_PROXY_LOG_LEVEL=debug kagent-proxy check --route helper.team-a=127.0.0.1:8081";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  By a configuration that nothing serves
    kagent-proxy explain --config config.yaml --host helper.team-a --path /mcp
  By a running proxy, which alone knows what was discovered; first: kubectl port-forward deploy/kagent-proxy 9091
    kagent-proxy explain --admin http://127.0.0.1:9091 --host tools.team-a --path /mcp --from 10.244.1.7";

const TOP_EXAMPLES: &str = "\
Examples:
  A pod's own view, on the terminal
    kubectl -n kagent exec -it deployment/kagent-proxy -- kagent-proxy top
  From a workstation; first: kubectl -n kagent port-forward deployment/kagent-proxy 9091
    kagent-proxy top --show tools
  For a script
    kagent-proxy top --once --admin http://127.0.0.1:9091";

const TAP_EXAMPLES: &str = "\
Examples:
  Every call of one agent that fails
    kagent-proxy tap --caller team-a/parent --error any
  The next ten calls of a tool, as JSON
    kagent-proxy tap --tool add --max 10 --output json
  In the pod
    kubectl -n kagent exec deployment/kagent-proxy -- kagent-proxy tap --route tools.team-a";

const VERSION_EXAMPLES: &str = "\
Examples:
  kagent-proxy version
  kubectl -n kagent exec deployment/kagent-proxy -- kagent-proxy version";

#[cfg(feature = "demo")]
const DEMO_EXAMPLES: &str = "\
Examples:
  On the default ports, 8090 and 9090
    kagent-proxy demo
  Elsewhere, with one more route to an agent of yours
    kagent-proxy demo --listen 127.0.0.1:9000 --route helper.team-a=127.0.0.1:8081";

/// The reverse proxy behind kagent's `proxy.url`.
#[derive(Clone, Debug, Parser)]
#[command(name = "kagent-proxy", args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if nothing is named.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run` when no subcommand is named.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What the program can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Carry traffic (the default).
    #[command(after_help = RUN_EXAMPLES)]
    Run(ConfigArgs),
    /// Validate a configuration and print every fault; exit 0 or 64.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ConfigArgs),
    /// Say how a request would be routed, and why.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Show who calls whom, live: calls, errors and latency of each edge and tool.
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArgs),
    /// Print a line for each call, as it ends.
    #[command(after_help = TAP_EXAMPLES)]
    Tap(TapArgs),
    /// Look at the cluster and say what would go wrong; exit 0, 1 (an error was found) or 2 (could not look).
    #[cfg(feature = "kube")]
    Doctor(DoctorArgs),
    /// Run with an MCP server and an A2A agent of its own, on loopback, and print what to try.
    #[cfg(feature = "demo")]
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(ConfigArgs),
    /// Print the version.
    #[command(after_help = VERSION_EXAMPLES)]
    Version,
}

/// Flags that make up the configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file, YAML (`KAGENT_PROXY_CONFIG`).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to take traffic on; repeatable (`KAGENT_PROXY_LISTEN`).
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Address of the admin listener (`KAGENT_PROXY_ADMIN`).
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Address of the admin listener on loopback, which shows everything (`KAGENT_PROXY_ADMIN_LOCAL`).
    #[arg(long, value_name = "ADDR")]
    pub admin_local: Option<String>,
    /// Static route, HOST[/prefix]=TARGET[,TARGET...]; repeatable (`KAGENT_PROXY_ROUTES`).
    #[arg(long, value_name = "HOST=TARGET")]
    pub route: Vec<String>,
    /// Where requests without x-kagent-host go (`KAGENT_PROXY_DEFAULT_ROUTE`).
    #[arg(long, value_name = "TARGET")]
    pub default_route: Option<String>,
    /// Make routes from the objects of the Kubernetes cluster (`KAGENT_PROXY_DISCOVERY=true`).
    #[arg(long)]
    pub discovery: bool,
    /// How to reach the cluster, instead of the pod's service account (`KAGENT_PROXY_KUBECONFIG`).
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// File with keys for MCP sessions, 32 bytes as base64 on each line; repeatable, the first seals
    /// (`KAGENT_PROXY_SESSION_KEY_FILES`).
    #[arg(long, value_name = "FILE")]
    pub session_key_file: Vec<PathBuf>,
    /// Our zone, whose endpoints are preferred (`KAGENT_PROXY_ZONE`).
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// json or text (`KAGENT_PROXY_LOG_FORMAT`).
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Level or filter directives, such as info (`KAGENT_PROXY_LOG_LEVEL`).
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Threads that carry traffic (`KAGENT_PROXY_WORKERS`).
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
}

/// Flags of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The value of x-kagent-host; without it the request has no such header.
    #[arg(long)]
    pub host: Option<String>,
    /// Path of the request.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Method of the request.
    #[arg(long, default_value = "POST")]
    pub method: String,
    /// Host of the request, for default routes.
    #[arg(long, value_name = "HOST")]
    pub authority: Option<String>,
    /// Listener of the request, for default routes; the first one if not given.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Address that the request comes from: the Agent behind it may decide.
    #[arg(long, value_name = "IP")]
    pub from: Option<std::net::IpAddr>,
    /// Ask the running proxy with this admin listener; alone it is that of a port-forward.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "http://127.0.0.1:9091", conflicts_with_all = ["config", "route", "default_route"])]
    pub admin: Option<String>,
    /// Configuration file, YAML (`KAGENT_PROXY_CONFIG`).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Static route, HOST[/prefix]=TARGET[,TARGET...]; repeatable (`KAGENT_PROXY_ROUTES`).
    #[arg(long, value_name = "HOST=TARGET")]
    pub route: Vec<String>,
    /// Where requests without x-kagent-host go (`KAGENT_PROXY_DEFAULT_ROUTE`).
    #[arg(long, value_name = "TARGET")]
    pub default_route: Option<String>,
    /// text for people, json for programs.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Where the admin listener is that shows everything: in the pod, and at the end of a port-forward.
const LOCAL_ADMIN: &str = "http://127.0.0.1:9091";

/// Flags of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Admin listener of the running proxy.
    #[arg(long, value_name = "URL", default_value = LOCAL_ADMIN)]
    pub admin: String,
    /// Which table to begin with.
    #[arg(long, value_enum, default_value_t)]
    pub show: Tab,
    /// Print the table once as plain text; so does every standard output that is no terminal.
    #[arg(long)]
    pub once: bool,
}

/// The tables of `top`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tab {
    /// Who calls whom.
    #[default]
    Edges,
    /// Methods and tools.
    Tools,
    /// Open streams.
    Streams,
    /// MCP sessions of each route.
    Sessions,
}

/// Flags of `tap`.
#[derive(Args, Clone, Debug)]
pub struct TapArgs {
    /// Admin listener of the running proxy.
    #[arg(long, value_name = "URL", default_value = LOCAL_ADMIN)]
    pub admin: String,
    /// Only calls of this Agent, or of unknown.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub caller: Option<String>,
    /// Only calls to this host.
    #[arg(long, value_name = "HOST")]
    pub route: Option<String>,
    /// Only this method, such as tools/call.
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,
    /// Only this tool or prompt.
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// Only mcp or a2a.
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Only calls with this error, such as tool_error or 503; any for every error.
    #[arg(long, value_name = "ERROR")]
    pub error: Option<String>,
    /// End after so many calls.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max: Option<u64>,
    /// text for people, json for programs.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    /// How to reach the cluster; without it the pod's service account, else what kubectl would take
    /// (`KAGENT_PROXY_KUBECONFIG`), such as ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, such as kind-test; its current one if not given.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of kagent, such as kagent (the default, unless the configuration says otherwise).
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Deployment and Service of kagent's controller, such as kagent-controller.
    #[arg(long, value_name = "NAME[.NAMESPACE]")]
    pub controller: Option<String>,
    /// Service of this proxy, such as kagent-proxy.kagent; if no namespace is named, in the pod's own, else in
    /// kagent's.
    #[arg(long, value_name = "NAME[.NAMESPACE]", default_value = "kagent-proxy")]
    pub proxy_service: String,
    /// Whose rights are checked, such as kagent/kagent-proxy, or self for those of this user; without it the
    /// account of the pod, else that of the proxy's Deployment.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub service_account: Option<String>,
    /// The proxy's configuration, such as config.yaml (`KAGENT_PROXY_CONFIG`); without it what the proxy's
    /// Deployment says.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// text for people, json for programs.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  kagent-proxy doctor
  kagent-proxy doctor --kubeconfig ~/.kube/config --context kind-test --output json
  kagent-proxy doctor --namespace ai --controller my-kagent-controller --proxy-service kagent-proxy.edge
  kubectl -n kagent exec deployment/kagent-proxy -- kagent-proxy doctor";

// === impl ExplainArgs ===

impl ExplainArgs {
    /// The part that makes up the configuration.
    #[must_use]
    pub fn config_args(&self) -> ConfigArgs {
        ConfigArgs {
            config: self.config.clone(),
            route: self.route.clone(),
            default_route: self.default_route.clone(),
            ..ConfigArgs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_the_default_and_flags_repeat() {
        let cli =
            Cli::try_parse_from(["kagent-proxy", "--route", "a=b:1", "--route", "c=d:2"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.config.route, ["a=b:1", "c=d:2"]);
        let cli = Cli::try_parse_from(["kagent-proxy", "run", "--listen", "[::1]:0"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Run(args)) if args.listen == ["[::1]:0"]));
    }

    #[test]
    fn explain_takes_a_request_and_routes() {
        let cli =
            Cli::try_parse_from(["kagent-proxy", "explain", "--host", "a", "--route", "a=b:1"])
                .unwrap();
        let Some(Command::Explain(args)) = cli.command else { panic!("not explain") };
        assert_eq!(args.path, "/");
        assert_eq!(args.config_args().route, ["a=b:1"]);
        let both = ["kagent-proxy", "explain", "--admin", "http://a", "--route", "a=b:1"];
        assert!(Cli::try_parse_from(both).is_err(), "a running proxy has its own routes");
    }

    #[test]
    fn every_subcommand_has_examples_that_it_understands() {
        use clap::CommandFactory;

        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // What an example is for stands before it, two columns further left.
            let lines = help.lines().filter(|line| line.starts_with("    "));
            let lines = lines.chain(help.lines().filter(|line| line.starts_with("  kagent-proxy")));
            let examples: Vec<_> =
                lines.filter_map(|line| line.rsplit_once("kagent-proxy ")).collect();
            assert!(!examples.is_empty(), "{command}");
            for (_, words) in examples {
                let words = ["kagent-proxy"].into_iter().chain(words.split_whitespace());
                let cli = Cli::try_parse_from(words.clone()).unwrap();
                assert!(cli.command.is_some(), "{:?}", words.collect::<Vec<_>>());
            }
        }
    }
}
