# The image of kagent-proxy: one binary on distroless, no shell, not root, read-only root file system.
#
# NOT BUILT in this project's CI, which has no container engine; the steps are those that CI runs on a
# plain machine, and tests/deploy.py checks what can be checked without an engine.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The demo stays out of production.
RUN cargo build --release --locked --no-default-features --features kube,jemalloc

# glibc of the same Debian as the builder's; carries the system's certificate authorities.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/kagent-proxy /usr/local/bin/kagent-proxy
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/kagent-proxy"]
CMD ["run"]
