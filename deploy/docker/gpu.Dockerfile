# tesserad for NVIDIA GPUs (and CPUs: --device chooses). From the repository's root:
#   docker build -f deploy/docker/gpu.Dockerfile -t tesserad:gpu .
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
# Only when the list of packages changes are they installed again.
COPY cmake/prepare.sh cmake/
RUN source cmake/prepare.sh && install_packages "${BUILD_PACKAGES[@]}" ca-certificates
COPY . .
# ON, not AUTO: an image without CUDA code must not come out of this file.
RUN source cmake/prepare.sh && cmake --preset release -DTESSERA_CUDA=ON \
    && build_preset release tesserad tessera \
    && cmake --install build/release --prefix /opt/tessera --strip

FROM nvidia/cuda:13.0.1-base-ubuntu24.04
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tesserad" \
      org.opencontainers.image.description="Serves LLaVA-family vision-language models over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# cublasLt is opened at run time; its library must be where the loader looks. The package's name
# holds its version as far as CUDA's does.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcublas-13-0 \
    && rm -rf /var/lib/apt/lists/* \
    && ldconfig \
    && ldconfig -p | grep -F libcublasLt.so.13
COPY --from=build /opt/tessera /usr/local
# Whom --image_url_hosts trusts.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# By number, so that Kubernetes can tell that it is not root. Nothing is written to the root file
# system: run with --read-only.
USER 10001:10001
EXPOSE 8600 9090
STOPSIGNAL SIGTERM
# Ready to take requests? Kubernetes has probes of its own and does not look at this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["/usr/local/bin/tessera", "health", "--address=127.0.0.1:8600", "--timeout=3s"]
# No listener beyond loopback unless the flags say so.
ENTRYPOINT ["/usr/local/bin/tesserad"]
