# syntax=docker/dockerfile:1
# Built on Alpine, so that the binary is static and the image contains only it: no shell, no libc, no package manager.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY . .
# Without the feature `dev`: no Lua, no built-in Redis-protocol server. The caches keep dependencies between builds; the binary is copied
# out of the cache, because a cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin taskgate --no-default-features --features worker,dashboard,otel,export \
    && cp target/release/taskgate /taskgate
# /tmp has answers to large batches until they are sent; /var/lib/taskgate is for the worker and for files of requests. All else may be
# read-only.
RUN mkdir -p /rootfs/etc /rootfs/tmp /rootfs/var/lib/taskgate/files \
    && chmod 1777 /rootfs/tmp && chown -R 65532:65532 /rootfs/var/lib/taskgate \
    && echo 'taskgate:x:65532:65532::/var/lib/taskgate:/sbin/nologin' >/rootfs/etc/passwd

FROM scratch
COPY --from=build /rootfs/ /
COPY --from=build /taskgate /usr/local/bin/taskgate
USER 65532:65532
WORKDIR /var/lib/taskgate
ENV PATH=/usr/local/bin
ENV TASKGATE_HTTP__LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/local/bin/taskgate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/taskgate"]
CMD ["serve"]
