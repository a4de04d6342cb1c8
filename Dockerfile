# The base images are arguments, so that they can be pinned by digest or come from a registry of your own.
# GO_IMAGE must have Go, make, a shell, sed and /etc/ssl/certs/ca-certificates.crt.
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
ARG VERSION=unknown
WORKDIR /src
COPY . .
RUN make build VERSION=${VERSION} && mkdir -p build/storage

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/karrot /karrot
COPY config/*.yaml /config/
COPY config/burrow /config/burrow
# For config/storage.yaml, where nothing is mounted.
COPY --from=build --chown=10001:10001 /src/build/storage /var/lib/karrot
# Inside the container the outside is elsewhere.
ENV KARROT_ENDPOINT=0.0.0.0:5000 \
    KARROT_PROMETHEUS_ENDPOINT=0.0.0.0:8889 \
    KARROT_HEALTH_ENDPOINT=0.0.0.0:13133 \
    KARROT_TELEMETRY_HOST=0.0.0.0
EXPOSE 5000 8888 8889 13133
# Kept by Docker's format of images only; Kubernetes asks by HTTP itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/karrot", "healthcheck"]
USER 10001:10001
WORKDIR /
# Without arguments it starts the default configuration.
ENTRYPOINT ["/karrot"]
