# docker build -t skein .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -buildid=' -o /skein ./cmd/skein

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /skein /skein
# The folder is copied for its owner: a new volume takes it over.
COPY --chown=65532:65532 scripts/docker/data /data
ENV SKEIN_DATA_DIR=/data SKEIN_LISTEN=tcp://:1883,ws://:8083 SKEIN_HTTP_LISTEN=:8080
USER 65532:65532
VOLUME /data
EXPOSE 1883 8083 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["/skein", "healthcheck"]
ENTRYPOINT ["/skein"]
CMD ["run"]
