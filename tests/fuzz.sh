#!/usr/bin/env bash
# Each fuzz target for SECONDS (10 if not given), from the seeds of fuzz/seeds; a finding fails.
# Installs cargo-fuzz under .work; stable Rust, without a sanitizer. Loopback only.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/.work/cargo-fuzz-0.13.2
[ -x "$tools/bin/cargo-fuzz" ] ||
    cargo install cargo-fuzz --locked --quiet --version 0.13.2 --root "$tools"
export PATH=$tools/bin:$PATH
unset CARGO_TARGET_DIR
cargo fuzz build -s none
for target in $(cargo fuzz list); do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    echo "== $target"
    cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="${1:-10}" -timeout=10
done
