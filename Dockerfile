# maskrelay: one static binary on an empty file system.
#
#   docker build -t maskrelay --build-arg VERSION=1.0.0 --build-arg COMMIT=$(git rev-parse --short HEAD) .
#   docker run --network host --ulimit nofile=1048576:1048576 --stop-timeout 660 \
#     -e MASKRELAY_UPSTREAM=http://user:password@gateway.example:7777 -e MASKRELAY_ACCOUNTS=alice:secret:2000 maskrelay
#
# --stop-timeout must exceed MASKRELAY_DRAIN_GRACE + MASKRELAY_DRAIN_TIMEOUT, or the engine cuts tunnels that the relay would have let finish.

FROM golang:1.26-bookworm AS build

ARG VERSION=dev
ARG COMMIT=unknown

WORKDIR /src
COPY . .
# The version travels in GOFLAGS, so that the build line is a program with arguments and needs no shell to expand it.
ENV CGO_ENABLED=0 \
    GOTOOLCHAIN=local \
    GOFLAGS="-trimpath -buildvcs=false '-ldflags=-s -w -X main.version=$VERSION -X main.commit=$COMMIT'"
RUN ["/usr/local/go/bin/go", "build", "-o", "/out/maskrelay", "./cmd/maskrelay"]

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/maskrelay /maskrelay

# A number, so that Kubernetes' runAsNonRoot can check it without a passwd file.
USER 65532:65532
EXPOSE 8080
# The binary asks its own /readyz; MASKRELAY_ADMIN_LISTEN is loopback inside the container by default, which is where this runs.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/maskrelay", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/maskrelay"]
