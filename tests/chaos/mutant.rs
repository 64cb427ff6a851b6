//! kagent-proxy with a fault that `tests/chaos` has to find out: it sends a `tools/call` again that may have run.
//!
//! The fault is the feature `mutant-repeats`; this is the program under another name, so that neither build takes the
//! other's place.

use std::process::ExitCode;

#[path = "../../src/main.rs"]
mod program;

fn main() -> ExitCode {
    program::main()
}
