# Programs only, built by `make build` for the machine's architecture.
FROM scratch
COPY holdfast holdfast-cni /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/holdfast"]
