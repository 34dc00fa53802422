# syntax=docker/dockerfile:1
# docker build -t flipgate .
#
# packaging/README.md says what of this file is checked without Docker, and how.

FROM rust:1.95-slim-bookworm AS base
WORKDIR /build
RUN cargo install --locked cargo-chef@0.1.78

# The recipe lists the dependencies. It stays the same as long as they do.
FROM base AS recipe
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY src src
COPY benches benches
COPY tests tests
RUN cargo chef prepare --bin flipgate --recipe-path recipe.json

FROM base AS build
COPY --from=recipe /build/recipe.json recipe.json
# This layer builds the dependencies only; it is used again until the recipe changes.
RUN cargo chef cook --profile dist --locked --package flipgate --bin flipgate --recipe-path recipe.json
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY src src
COPY benches benches
COPY tests tests
RUN cargo build --profile dist --locked --package flipgate --bin flipgate
# The image has the stripped program. Debuggers and `addr2line` find the symbols in a file beside it.
WORKDIR /build/target/dist
RUN objcopy --only-keep-debug flipgate flipgate.debug \
    && objcopy --strip-all --add-gnu-debuglink=flipgate.debug flipgate

# `docker build --target symbols --output . .` writes the symbols of the same build to this folder.
FROM scratch AS symbols
COPY --from=build /build/target/dist/flipgate.debug /

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Flipgate" \
      org.opencontainers.image.description="A layer-7 reverse proxy that switches services between blue and green" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="0.2.0"
# Certificate authorities, for https:// endpoints that name none of their own.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 flipgate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/flipgate --shell /usr/sbin/nologin flipgate \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/flipgate
COPY --from=build /build/target/dist/flipgate /usr/local/bin/flipgate
COPY packaging/container/flipgate.toml /etc/flipgate/flipgate.toml
# A number, so that Kubernetes can check `runAsNonRoot`.
USER 10001:10001
WORKDIR /var/lib/flipgate
# The state survives the container: mount a volume here.
VOLUME /var/lib/flipgate
EXPOSE 8080
# Asks the admin API on loopback whether Flipgate is ready. FLIPGATE_ADMIN names another address.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["flipgate", "ready"]
# SIGTERM completes requests in progress for up to shutdown.delay + shutdown.patience: 0 s + 30 s here.
# Docker kills after 10 s by itself, so give it more time: `docker run --stop-timeout 45`,
# `stop_grace_period: 45s` (Compose), `terminationGracePeriodSeconds: 45` (Kubernetes).
STOPSIGNAL SIGTERM
ENTRYPOINT ["flipgate"]
CMD ["run", "--config", "/etc/flipgate/flipgate.toml"]
