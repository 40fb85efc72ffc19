# The image has the daemon, certificate authorities, and a user without a name. Build: docker build -t torq-connector .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM docker.io/library/debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 0700 -o 65532 -g 65532 /var/lib/torq-connector
COPY --from=build /src/target/release/torq-connector /usr/local/bin/torq-connector

# A number, so that Kubernetes' runAsNonRoot can see that it is not root. The files with secrets must be readable for this
# user or group, and for nobody else.
USER 65532:65532
ENV TORQ_CONNECTOR_CONFIG=/etc/torq-connector/config.toml
# What is known about each connector. Losing it costs a new first collection, and no second accounts.
VOLUME /var/lib/torq-connector
# Status page, health and metrics. The default address is this container's own loopback, which nobody outside reaches: set
# http.listen = "0.0.0.0:8686" for health and metrics, and http.password_file as well for the page and /api, which name people.
EXPOSE 8686
STOPSIGNAL SIGTERM
ENTRYPOINT ["torq-connector"]
CMD ["run"]
