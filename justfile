# Commands of every day; `just` lists them. Each is one line that works without just, too.

_list:
    @just --list

# The program with an MCP server and an agent of its own.
demo:
    cargo run --release -- demo

# Before every commit: format, lints, unit and scenario tests.
fast:
    bash tests/run fast

# Every test, or the topics that are named: just test framing gate
test *topics:
    bash tests/run {{topics}}

# Unit and scenario tests by a part of their name: just it retry::
it name="":
    cargo test --locked --test it {{name}}

# Unit tests by a part of their name.
unit name="":
    cargo test --locked --lib {{name}}

# Format what is not.
format:
    cargo fmt

# What a request costs, and where.
gate:
    bash benches/pgo/build.sh
    python3 benches/gate.py target/shipped/release/kagent-proxy --top

# The hook that runs `fast` before each commit.
hook:
    git config core.hooksPath .githooks
