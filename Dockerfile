# neurofv as images: `make image`, or `docker build -t neurofv .`; `make images` builds all three.
#
#   --target service     the server; the last stage, so it is what is built where no target is named
#   --target training    `python -m training`, with everything that training and exporting need
#   --target torchserve  TorchServe with neurofv's handler, for archives (.mar) in /models
#
#   BASE            a Debian bookworm (Python 3.11); pin it by digest in production
#   TORCH_INDEX     another index for torch, such as PyTorch's own of CPU builds (a tenth of the size);
#                   empty: pip's default, whose build runs on NVIDIA GPUs too
#   PIP_EXTRA_ARGS  more options for pip
#   the secrets `pip`, `npm` and `npm-ca`  an optional pip.conf, an optional .npmrc, and authorities for npm (PEM);
#                   they stay out of the layers, for they may hold passwords
#   VERSION, REVISION, CREATED  for the labels
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS builder
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    binutils ca-certificates python3 python3-pip python3-venv
# Without pip: nothing in the image can install anything.
RUN python3 -m venv --without-pip /opt/neurofv
WORKDIR /build
ARG TORCH_INDEX=
ARG PIP_EXTRA_ARGS=
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# The dependencies first: they change less often than the code.
COPY pyproject.toml constraints.txt deploy/image/requirements.py ./
RUN python3 requirements.py > requirements.txt
# A "+cpu" version ranks above the plain one of the same number, so the CPU build is taken.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/neurofv install --quiet ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
    ${PIP_EXTRA_ARGS} -c constraints.txt -r requirements.txt

COPY README.md LICENSE ./
COPY client client
COPY engine engine
COPY models models
COPY service service
COPY training training
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/neurofv install --quiet ${PIP_EXTRA_ARGS} -c constraints.txt .
COPY deploy/image/ready.py /opt/neurofv/bin/neurofv-ready
# What serves only those who compile against torch, debug it or test the libraries: a fourth of the whole.
RUN chmod 755 /opt/neurofv/bin/neurofv-ready \
    && cd /opt/neurofv/lib/python3.11/site-packages \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && rm -rf torch/include torch/share/cmake torch/test \
    && strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so

# NiiVue, which draws volumes at /ui: npm's package, checked by its SHA-512.
FROM ${BASE} AS viewer
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends ca-certificates npm python3
COPY --from=builder /opt/neurofv /opt/neurofv
RUN --mount=type=secret,id=npm,target=/root/.npmrc \
    --mount=type=secret,id=npm-ca,target=/run/npm-ca.pem \
    NODE_EXTRA_CA_CERTS=/run/npm-ca.pem XDG_CACHE_HOME=/viewer /opt/neurofv/bin/python -m neurofv.viewer \
    && tar --extract --gzip --file /viewer/neurofv/niivue-*.tgz --directory /viewer --strip-components 2 \
    package/dist/niivue.umd.js

FROM builder AS training-builder
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 requirements.py training > training.txt \
    && python3 requirements.py torchserve | grep '^torch-model-archiver' >> training.txt \
    && python3 -m pip --python /opt/neurofv install --quiet ${PIP_EXTRA_ARGS} -c constraints.txt -r training.txt \
    && find /opt/neurofv/lib/python3.11/site-packages -type d -name tests -prune -exec rm -rf {} +

FROM builder AS torchserve-builder
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 requirements.py torchserve > torchserve.txt \
    && python3 -m pip --python /opt/neurofv install --quiet ${PIP_EXTRA_ARGS} -c constraints.txt -r torchserve.txt
COPY deploy/torchserve /opt/neurofv/share/torchserve
COPY deploy/image/torchserve.sh /opt/neurofv/bin/neurofv-torchserve
RUN chmod 755 /opt/neurofv/bin/neurofv-torchserve

FROM ${BASE} AS runtime
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 neurofv \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /var/lib/neurofv \
    --skel /nonexistent --shell /usr/sbin/nologin neurofv \
    && install -d -o 10001 -g 10001 -m 0700 /data
# What a container writes goes to /data, which outlives it, and nothing to the rest of its file system, which may
# be mounted read-only without even a /tmp.
# torch only asks where its compiler's cache would be, and would look for a place that is writable.
ENV PATH=/opt/neurofv/bin:/usr/bin:/bin \
    HOME=/var/lib/neurofv \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/neurofv
VOLUME /data
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS training
COPY --from=training-builder /opt/neurofv /opt/neurofv
# What is trained lies in /data unless --out says otherwise; so do drafts and matplotlib's cache.
ENV TMPDIR=/data \
    MPLCONFIGDIR=/data/.matplotlib
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="neurofv-training" \
    org.opencontainers.image.description="Trains and exports the 3D CNNs that neurofv visualizes. For research and audit, not for diagnosis." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"

FROM runtime AS torchserve
# The runtime of Java links its manual pages, for which a slim image has no folder.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && install -d -m 0755 /models
COPY --from=torchserve-builder /opt/neurofv /opt/neurofv
# TorchServe unpacks archives, and writes its logs and its tokens (key_file.json, in the working directory).
# Calls come from outside the container; the management stays on its loopback.
ENV TS_INFERENCE_ADDRESS=http://0.0.0.0:8080 \
    TS_METRICS_ADDRESS=http://0.0.0.0:8082 \
    TS_GRPC_INFERENCE_ADDRESS=0.0.0.0 \
    TMPDIR=/data \
    TEMP=/data \
    LOG_LOCATION=/data/logs \
    METRICS_LOCATION=/data/logs \
    JAVA_TOOL_OPTIONS="-Djava.io.tmpdir=/data -XX:-UsePerfData"
WORKDIR /data
USER 10001:10001
EXPOSE 7070 8080 8082
ENTRYPOINT ["neurofv-torchserve"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="neurofv-torchserve" \
    org.opencontainers.image.description="TorchServe with neurofv's handler, for platforms that are built around it. For research and audit, not for diagnosis." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"

FROM runtime AS service
COPY --from=builder /opt/neurofv /opt/neurofv
COPY --from=viewer /viewer/niivue.umd.js /opt/neurofv/share/niivue.umd.js
# It listens on every address of the container. Beyond loopback it starts only with a certificate and callers
# it can tell apart (docs/how-to/secure-the-service.md), or with NEUROFV_INSECURE=true, where ports are published
# on loopback or something in front brings TLS: that is the operator's to say, not the image's.
ENV NEUROFV_DATA=/data \
    NEUROFV_HOST=0.0.0.0 \
    NEUROFV_HTTP_HOST=0.0.0.0 \
    NEUROFV_VIEWER=/opt/neurofv/share/niivue.umd.js
WORKDIR /var/lib/neurofv
USER 10001:10001
EXPOSE 50051 8002
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["neurofv-ready"]
ENTRYPOINT ["neurofv-server"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
ENV NEUROFV_REVISION=${REVISION}
LABEL org.opencontainers.image.title="neurofv" \
    org.opencontainers.image.description="Feature visualization for 3D CNNs that read structural MRI, as a gRPC service. For research and audit, not for diagnosis." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
