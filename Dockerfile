# Builds a small image that runs as nobody. Not built where Flipgate is made: no Docker engine there.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY src src
COPY benches benches
RUN cargo build --profile dist --locked --bin flipgate
# The image has the stripped binary. Debuggers and `addr2line` find the symbols in a file beside it.
WORKDIR /build/target/dist
RUN objcopy --only-keep-debug flipgate flipgate.debug \
    && objcopy --strip-all --add-gnu-debuglink=flipgate.debug flipgate

# `docker build --target symbols --output . .` writes the symbols of the same build to this folder.
FROM scratch AS symbols
COPY --from=build /build/target/dist/flipgate.debug /

FROM debian:bookworm-slim
COPY --from=build /build/target/dist/flipgate /usr/local/bin/flipgate
# Whom the machine trusts, for https:// endpoints that name no authorities of their own.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# The state is the truth that survives a restart: mount a volume there.
RUN useradd --system --uid 10001 --home-dir /var/lib/flipgate flipgate \
    && install -d -o flipgate -g flipgate /var/lib/flipgate /etc/flipgate
USER flipgate
WORKDIR /var/lib/flipgate
VOLUME /var/lib/flipgate
EXPOSE 8080 8443
# Lives if its admin API answers; FLIPGATE_ADMIN says where that is, if not on the default address.
HEALTHCHECK --interval=10s --timeout=3s CMD ["flipgate", "status", "--json"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["flipgate"]
CMD ["run", "--config", "/etc/flipgate/flipgate.toml"]
