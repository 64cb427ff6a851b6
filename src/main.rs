//! The program: flags in, exit code out; no logic.
//!
//! Exit codes: 0 done, 1 cannot run, 64 the configuration is at fault (`EX_USAGE`).

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use kagent_proxy::app::App;
use kagent_proxy::cli::{Cli, Command, ConfigArgs};
use kagent_proxy::config::{self, Loaded};
use kagent_proxy::drain::{Phase, Trigger};
use kagent_proxy::{explain, telemetry};
use tokio::signal::unix::{SignalKind, signal};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAULTY_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match cli.command {
        None => run(&cli.config, &env),
        Some(Command::Run(args)) => run(&args, &env),
        Some(Command::Check(args)) => {
            let (report, code) = config::check(&args, &env);
            say(&report);
            ExitCode::from(code)
        }
        Some(Command::Explain(args)) => match config::load(&args.config_args(), &env) {
            Ok(loaded) => {
                say(&explain::explain(&loaded.config, &args.host, &args.path).to_string());
                ExitCode::SUCCESS
            }
            Err(faults) => complain(&faults.to_string(), FAULTY_CONFIGURATION),
        },
        Some(Command::Version) => {
            say(concat!("kagent-proxy ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

fn run(args: &ConfigArgs, env: &BTreeMap<String, String>) -> ExitCode {
    let loaded = match config::load(args, env) {
        Ok(loaded) => loaded,
        Err(faults) => return complain(&faults.to_string(), FAULTY_CONFIGURATION),
    };
    if let Err(fault) = telemetry::start_logging(&loaded.config.log) {
        return complain(&fault, FAULTY_CONFIGURATION);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = loaded.config.workers {
        builder.worker_threads(workers.get());
    }
    match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(loaded, args.clone(), env.clone())),
        Err(error) => complain(&format!("cannot start threads: {error}"), 1),
    }
}

async fn serve(loaded: Loaded, args: ConfigArgs, env: BTreeMap<String, String>) -> ExitCode {
    if !loaded.ignored_env.is_empty() {
        tracing::debug!(variables = ?loaded.ignored_env, "environment variables are not ours");
    }
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let bound = match App::build(loaded.config, &loaded.sources).await {
        Ok(bound) => bound,
        Err(error) => return complain(&error.to_string(), 1),
    };
    let bound = bound.following(loaded.file, Box::new(move || config::load(&args, &env)));
    let listen: Vec<String> = bound.addresses.iter().map(ToString::to_string).collect();
    tracing::info!(listen = listen.join(" "), admin = %bound.admin_address, "serving");
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
    let _reader_may_be_gone = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _reader_may_be_gone = writeln!(std::io::stderr(), "{}", text.trim_end());
    ExitCode::from(code)
}
