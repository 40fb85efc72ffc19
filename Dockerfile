# The image is the program, certificate authorities, and a user: no shell, no libraries, nothing else to keep up to date.
#   docker build --build-arg COMMIT="$(git rev-parse --short=12 HEAD)" -t torq-connector .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
# The program brings its C library along, for it will be alone. (Told with a target, this is not about what runs while building.)
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN rustc -vV | sed -n 's/^host: //p' > /target

# The dependencies, without a line of ours: this layer is made anew only when they change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/poll \
    && touch src/lib.rs build.rs \
    && echo 'fn main() {}' | tee build.rs src/main.rs > benches/poll/main.rs \
    && cargo build --release --locked --target "$(cat /target)"

COPY build.rs ./
COPY config config
COPY src src
ARG COMMIT=unknown
# What stands in for the sources above has a time of its own; cargo goes by times.
RUN touch build.rs src/lib.rs src/main.rs \
    && TORQ_CONNECTOR_COMMIT="$COMMIT" cargo build --release --locked --target "$(cat /target)" \
    && install -D -m 755 "target/$(cat /target)/release/torq-connector" /image/usr/bin/torq-connector \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && echo 'torq-connector:x:65532:65532::/var/lib/torq-connector:/sbin/nologin' > /image/etc/passwd \
    && echo 'torq-connector:x:65532:' > /image/etc/group \
    && install -d -m 1777 /image/var/lib/torq-connector

FROM scratch
ARG COMMIT=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="torq-connector" \
      org.opencontainers.image.description="The JumpCloud SaaS Management connector for Torq" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /image/ /

# A number, so that Kubernetes' runAsNonRoot can see that it is not root. Any other user will do as well: what is to be written
# is in the volume, which takes files of anybody.
USER 65532:65532
# Secrets with bare names in the configuration are looked for where Docker and Kubernetes mount them. They must be readable for
# this user or group, and for nobody else.
ENV PATH=/usr/bin \
    TORQ_CONNECTOR_CONFIG=/etc/torq-connector/config.toml \
    CREDENTIALS_DIRECTORY=/run/secrets \
    TMPDIR=/var/lib/torq-connector \
    MALLOC_ARENA_MAX=1
# What is known about each connector. Losing it costs a new first collection, and no second accounts.
VOLUME /var/lib/torq-connector
# Status page, health and metrics. The default address is this container's own loopback, which nobody outside reaches: set
# http.listen = "0.0.0.0:8686" for health and metrics, and http.password_file as well for the page and /api, which name people.
EXPOSE 8686
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["/usr/bin/torq-connector", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/torq-connector"]
CMD ["run"]
