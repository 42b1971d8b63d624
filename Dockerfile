# syntax=docker/dockerfile:1

# --- Build: the Rust image brings compilers, make and perl, which librdkafka and
# OpenSSL are built with.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && install -D target/release/tally99 /out/tally99

# --- Run: the binary, its configurations, and the certificates to trust.
FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tally99
RUN install -d -o 10001 /var/lib/tally99
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/config /etc/tally99
COPY --from=build /out/tally99 /usr/local/bin/
USER 10001
# SIGTERM, which `docker stop` sends, ends it cleanly. Run it with `docker run
# --init`: the first process of a container does not end by a signal that it has no
# handler for, and short commands such as `tally99 totals` have none.
ENTRYPOINT ["tally99"]
CMD ["--help"]
