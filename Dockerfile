# The image of kagent-proxy: one binary on distroless, no shell, not root, read-only root file system.
#
# `tests/run image` builds and runs it. Both bases are named by tag here; a build that must repeat to the bit pins
# their digests by arguments:
#   docker build --build-arg RUST=rust:1.95.0-bookworm@sha256:... --build-arg BASE=gcr.io/distroless/cc-debian12:nonroot@sha256:... .

ARG RUST=docker.io/library/rust:1.95.0-bookworm
# glibc of the same Debian as the builder's; carries the system's certificate authorities.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST} AS build
WORKDIR /src
COPY . .
# Builders set it: amd64 or arm64.
ARG TARGETARCH
# The demo stays out of production. The target folder may be a cache; the program is copied out of it. Kernels of arm64
# have pages of 4, 16 or 64 KiB, and jemalloc aborts where they are larger than those that it was built for.
RUN if [ "$TARGETARCH" = arm64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && bash benches/pgo/build.sh \
    && cp target/shipped/kagent-proxy /kagent-proxy

FROM ${BASE}
COPY --from=build /kagent-proxy /usr/local/bin/kagent-proxy
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/kagent-proxy"]
CMD ["run"]
