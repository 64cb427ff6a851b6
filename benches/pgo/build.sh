#!/usr/bin/env bash
# Builds the program as it is shipped, as target/shipped/kagent-proxy: with the features of the image, laid out for the
# work that a proxy does most (profile-guided optimisation), and without the names of its functions, which would be a
# sixth of it. target/shipped/release/kagent-proxy is the same with them, for tools that read where time goes.
#
# Usage: build.sh [OPTION OF CARGO...]. `train.py` beside makes the profile, and sets PROFILE_FLAGS for that. A function
# that has changed since is built as if there were no profile, so a stale one costs speed and nothing else. MORE_FLAGS
# are rustc's, as -Cstrip=none: settings of Cargo's profile would give everything other names, and the profile goes by
# names.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}/shipped
# Cargo compiles in many folders.
case $target in /*) ;; *) target=$PWD/$target ;; esac
if [ -z "${PROFILE_FLAGS:-}" ]; then
    # The profile is packed, for it says of most functions that they never run: those are built small.
    mkdir -p "$target"
    xz -dc benches/pgo/kagent-proxy.profdata.xz >"$target/new"
    rm -f "$target"/*.profdata
    # Cargo knows the profile by its name only.
    name=$target/$(cksum <"$target/new" | cut -d' ' -f1).profdata
    mv "$target/new" "$name"
    PROFILE_FLAGS="-Cprofile-use=$name"
    # By default what makes up the last twentieth of all that ran is built small, and so what runs once in a request.
    PROFILE_FLAGS+=" -Cllvm-args=-pgso-cutoff-instr-prof=999900"
    # Relocations in their packed form, half a megabyte less to read at each start; needs glibc 2.36 or later.
    if [ "$(uname -m)" = x86_64 ]; then PROFILE_FLAGS+=" -Clink-arg=-Wl,-z,pack-relative-relocs"; fi
fi
case $target in *[[:space:]]*) echo "build.sh: rustc's flags take no blank, and $target has one" >&2; exit 1 ;; esac
unset CARGO_ENCODED_RUSTFLAGS
export RUSTFLAGS="$PROFILE_FLAGS ${MORE_FLAGS:-}" CARGO_TARGET_DIR=$target
cargo build --release --locked --bin kagent-proxy --no-default-features --features kube,jemalloc,traces "$@"
strip -o "$target/kagent-proxy" "$target/release/kagent-proxy"
