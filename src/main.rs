//! The program: flags in, exit code out; no logic.
//!
//! Exit codes: 0 done, 1 cannot run or the doctor found an error, 2 the doctor could not look, 64 the
//! configuration is at fault (`EX_USAGE`).

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kagent_proxy::app::{App, Bound};
#[cfg(feature = "kube")]
use kagent_proxy::cli::DoctorArgs;
use kagent_proxy::cli::{self, Cli, Command, ConfigArgs, ExplainArgs, Output, TapArgs, TopArgs};
use kagent_proxy::config::{self, Loaded};
#[cfg(feature = "demo")]
use kagent_proxy::config::{LogFormat, Source};
#[cfg(feature = "demo")]
use kagent_proxy::demo;
#[cfg(feature = "kube")]
use kagent_proxy::doctor;
use kagent_proxy::drain::{Phase, Trigger};
use kagent_proxy::explain::{self, Question};
use kagent_proxy::reload::Load;
use kagent_proxy::telemetry::log::{self, Log};
use kagent_proxy::workers::Workers;
use kagent_proxy::{tap, telemetry, tls, top};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAULTY_CONFIGURATION: u8 = 64;
/// What tasks may take to end, and to log their end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What the log may take to be written at the end; its reader may be stuck.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Waits for the log when it is dropped, after a panic too.
struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        log::flush(LAST_LINES);
    }
}

pub(crate) fn main() -> ExitCode {
    let _written_at_the_end = LastLines;
    let cli = Cli::parse();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match cli.command {
        None => run(&cli.config, &env),
        Some(Command::Run(args)) => run(&args, &env),
        Some(Command::Check(args)) => {
            let (report, code) = cli::check::check(&args, &env);
            say(&report);
            ExitCode::from(code)
        }
        Some(Command::Explain(args)) => explained(&args, &env),
        Some(Command::Top(args)) => watch(&args, &env),
        Some(Command::Tap(args)) => follow_calls(args),
        #[cfg(feature = "kube")]
        Some(Command::Doctor(args)) => examine(&args, &env),
        #[cfg(feature = "demo")]
        Some(Command::Demo(args)) => demonstrate(args, &env),
        Some(Command::Version) => {
            say(concat!("kagent-proxy ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

fn explained(args: &ExplainArgs, env: &BTreeMap<String, String>) -> ExitCode {
    let question = Question {
        host: args.host.clone(),
        path: args.path.clone(),
        method: args.method.clone(),
        authority: args.authority.clone(),
        listener: args.listener.clone(),
        from: args.from,
    };
    let answer = match &args.admin {
        Some(admin) => runtime().and_then(|runtime| {
            let asked = runtime.block_on(explain::ask(admin, &question));
            asked.map_err(|failure| failure.to_string())
        }),
        None => match config::load(&args.config_args(), env) {
            Ok(loaded) => {
                tls::install_provider();
                explain::explain_config(&loaded.config, &loaded.sources, &question)
            }
            Err(faults) => return complain(&faults.to_string(), FAULTY_CONFIGURATION),
        },
    };
    match answer {
        Ok(answer) => {
            say(&match args.output {
                Output::Text => explain::to_text(&answer),
                Output::Json => format!("{answer:#}"),
            });
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, 1),
    }
}

/// On a screen, or once as text where there is none.
fn watch(args: &TopArgs, env: &BTreeMap<String, String>) -> ExitCode {
    let is_screen = io::stdout().is_terminal() && env.get("TERM").is_none_or(|term| term != "dumb");
    finished(runtime().and_then(|runtime| {
        if is_screen && !args.once {
            return runtime.block_on(top::live(args));
        }
        let text = runtime.block_on(top::once(args));
        text.map(|text| say(&text)).map_err(|failure| failure.to_string())
    }))
}

/// Writes on a thread of its own, so that a signal ends it even while nobody reads what it writes.
fn follow_calls(args: TapArgs) -> ExitCode {
    let (end, ended) = tokio::sync::oneshot::channel();
    let tapping = move || {
        let mut out = io::BufWriter::new(io::stdout());
        let done = runtime()
            .and_then(|runtime| runtime.block_on(tap::tap(&args, &mut out, &mut io::stderr())));
        let _ended_by_a_signal = end.send(done);
    };
    let done = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let cannot = |error: io::Error| format!("cannot start: {error}");
            let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
            let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
            std::thread::Builder::new().name("tap".to_owned()).spawn(tapping).map_err(cannot)?;
            tokio::select! {
                done = ended => done.unwrap_or_else(|_| Err("tap has panicked".to_owned())),
                _ = term.recv() => Ok(()),
                _ = int.recv() => Ok(()),
            }
        })
    });
    finished(done)
}

/// For a command that asks and ends.
fn runtime() -> Result<Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start: {error}"))
}

fn finished(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why, 1),
    }
}

#[cfg(feature = "kube")]
fn examine(args: &DoctorArgs, env: &BTreeMap<String, String>) -> ExitCode {
    tls::install_provider();
    match runtime().and_then(|runtime| runtime.block_on(doctor::doctor(args, env))) {
        Ok((report, code)) => {
            say(&report);
            ExitCode::from(code)
        }
        Err(error) => complain(&error, doctor::NOT_LOOKED),
    }
}

fn run(args: &ConfigArgs, env: &BTreeMap<String, String>) -> ExitCode {
    let (args, env) = (args.clone(), env.clone());
    start(Box::new(move || config::load(&args, &env)), |_| Ok(()))
}

/// As [`run`], with backends of our own, and without the lag of a drain: no cluster has to learn that
/// we are leaving.
/// An Agent of the demo as the configuration has it.
#[cfg(feature = "demo")]
fn caller(agent: &demo::DemoAgent) -> config::CallerConfig {
    let uses = agent.uses.iter().map(|uses| {
        let (host, tools) = uses.split_once('=').unwrap_or((uses, ""));
        let tools = tools.split(',').filter(|tool| !tool.is_empty());
        config::Use { host: host.to_owned(), tools: tools.map(str::to_owned).collect() }
    });
    config::CallerConfig {
        agent: ("demo".to_owned(), agent.name.to_owned()),
        addresses: vec![ipnet::IpNet::from(std::net::IpAddr::V4(agent.address))],
        uses: uses.collect(),
    }
}

#[cfg(feature = "demo")]
fn demonstrate(mut args: ConfigArgs, env: &BTreeMap<String, String>) -> ExitCode {
    let opened = demo::Backends::bind().and_then(|backends| Ok((backends.routes()?, backends)));
    let (routes, backends) = match opened {
        Ok(opened) => opened,
        Err(error) => return complain(&format!("no port on loopback: {error}"), 1),
    };
    args.route.extend(routes);
    let env = env.clone();
    // At each reload too, or the difference would look like a change.
    let load = move || {
        let mut loaded = config::load(&args, &env)?;
        if loaded.sources.of("drain.lag") == Source::Default {
            loaded.config.drain.lag = Duration::ZERO;
        }
        if loaded.sources.of("log.format") == Source::Default {
            loaded.config.log.format = LogFormat::Text;
        }
        loaded.config.callers.extend(demo::AGENTS.iter().map(caller));
        Ok(loaded)
    };
    start(Box::new(load), |bound| {
        let servers = backends.serve(bound.addresses.first().copied())?;
        if let Some(listen) = bound.addresses.first() {
            say(&demo::guide(*listen, bound.admin_local));
        }
        Ok(servers)
    })
}

/// Serves until the drain is over. What `ready` returns, given the open ports, lives as long.
fn start<T>(load: Load, ready: impl FnOnce(&Bound) -> io::Result<T>) -> ExitCode {
    let loaded = match load() {
        Ok(loaded) => loaded,
        Err(faults) => return complain(&faults.to_string(), FAULTY_CONFIGURATION),
    };
    // First of all: much of what follows keeps a value for each worker.
    let traffic = match Workers::start(loaded.config.workers, loaded.config.scheduler) {
        Ok(traffic) => traffic,
        Err(error) => return complain(&format!("cannot start threads: {error}"), 1),
    };
    let log = match Log::standard_error() {
        Ok(log) => log,
        Err(error) => return complain(&format!("cannot start the log: {error}"), 1),
    };
    if let Err(fault) = telemetry::start_logging(&loaded.config.log, log) {
        return complain(&fault, FAULTY_CONFIGURATION);
    }
    // Signals, admin listener, reload and names: on this thread, beside the traffic.
    let beside = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match beside {
        Ok(beside) => {
            let code = beside.block_on(serve(loaded, load, traffic.handles(), ready));
            // A name server that does not answer must not hold up the end.
            traffic.end(LAST_WORDS);
            beside.shutdown_timeout(LAST_WORDS);
            code
        }
        Err(error) => complain(&format!("cannot start threads: {error}"), 1),
    }
}

async fn serve<T>(
    loaded: Loaded,
    load: Load,
    traffic: &[Handle],
    ready: impl FnOnce(&Bound) -> io::Result<T>,
) -> ExitCode {
    if !loaded.ignored_env.is_empty() {
        tracing::debug!(variables = ?loaded.ignored_env, "environment variables are not ours");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let bound = match App::build_beside(loaded.config, &loaded.sources, traffic).await {
        Ok(bound) => bound,
        Err(error) => return complain(&error.to_string(), 1),
    };
    let bound = bound.following(loaded.file, load);
    let listen: Vec<String> = bound.addresses.iter().map(ToString::to_string).collect();
    let (admin, admin_local) = (bound.admin_address, bound.admin_local);
    tracing::info!(listen = listen.join(" "), %admin, %admin_local, "serving");
    let _beside = match ready(&bound) {
        Ok(beside) => beside,
        Err(error) => return complain(&format!("cannot serve: {error}"), 1),
    };
    let signals = follow_signals(bound.trigger());
    tokio::select! {
        finished = bound.run() => {
            tracing::info!(finished, "drained");
            ExitCode::SUCCESS
        }
        code = signals => code,
    }
}

/// The first signal starts the drain, the second ends the program at once.
async fn follow_signals(trigger: Trigger) -> ExitCode {
    let (mut term, mut int) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(term), Ok(int)) => (term, int),
            (Err(error), _) | (_, Err(error)) => {
                return complain(&format!("cannot follow signals: {error}"), 1);
            }
        };
    for phase in [Phase::Draining, Phase::Closing] {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if phase == Phase::Draining {
            tracing::info!("draining; a second signal ends at once");
            trigger.advance(phase);
        }
    }
    ExitCode::from(1)
}

fn say(text: &str) {
    let _reader_may_be_gone = writeln!(io::stdout(), "{}", text.trim_end());
}

/// The way of all lines: after the log it may stand behind, and without waiting for a reader.
fn complain(text: &str, code: u8) -> ExitCode {
    let text = format!("{}\n", text.trim_end());
    match Log::standard_error() {
        Ok(log) => log.push(text.as_bytes()),
        Err(_) => {
            let _reader_may_be_gone = io::stderr().write_all(text.as_bytes());
        }
    }
    ExitCode::from(code)
}
