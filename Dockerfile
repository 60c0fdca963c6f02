# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches hold the dependencies between two builds; the binary is copied out because a cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin taskgate && cp target/release/taskgate /taskgate

FROM debian:bookworm-slim
RUN useradd --system --home-dir /var/lib/taskgate --create-home taskgate
COPY --from=build /taskgate /usr/local/bin/taskgate
USER taskgate
WORKDIR /var/lib/taskgate
ENV TASKGATE_HTTP__LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["taskgate", "healthcheck"]
ENTRYPOINT ["taskgate"]
CMD ["serve"]
