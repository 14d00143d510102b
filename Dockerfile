# The neurofv server as an image: `make image`, or `docker build -t neurofv .`
#
#   BASE            a Debian bookworm (Python 3.11); pin it by digest in production
#   TORCH_INDEX     another index for torch, such as PyTorch's own of CPU builds (a tenth of the size);
#                   empty: pip's default, whose build runs on NVIDIA GPUs too
#   PIP_EXTRA_ARGS  more options for pip
#   VERSION, REVISION, CREATED  for the labels
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS builder
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends ca-certificates python3 python3-pip python3-venv
# Without pip: nothing in the image can install anything.
RUN python3 -m venv --without-pip /opt/neurofv
WORKDIR /build
ARG TORCH_INDEX=
ARG PIP_EXTRA_ARGS=
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# The dependencies first: they change less often than the code. The secret `pip` is an optional
# pip.conf; it stays out of the layers, for it may hold a password.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt
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
# What serves only those who compile against torch or test the libraries: a sixth of the whole.
RUN chmod 755 /opt/neurofv/bin/neurofv-ready \
    && cd /opt/neurofv/lib/python3.11/site-packages \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && rm -rf torch/include torch/share/cmake

FROM ${BASE} AS runtime
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 neurofv \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /var/lib/neurofv \
    --skel /nonexistent --shell /usr/sbin/nologin neurofv
COPY --from=builder /opt/neurofv /opt/neurofv

# The server writes nothing to its file system, which may be mounted read-only without even a /tmp.
# It listens on every address of the container. Beyond loopback it starts only with a certificate and callers
# it can tell apart (docs/how-to/secure-the-service.md), or with NEUROFV_INSECURE=true, where ports are published
# on loopback or something in front brings TLS: that is the operator's to say, not the image's.
# torch only asks where its compiler's cache would be, and would look for a place that is writable.
ENV PATH=/opt/neurofv/bin:/usr/bin:/bin \
    HOME=/var/lib/neurofv \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/neurofv \
    NEUROFV_HOST=0.0.0.0 \
    NEUROFV_HTTP_HOST=0.0.0.0
WORKDIR /var/lib/neurofv
USER 10001:10001
EXPOSE 50051 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["neurofv-ready"]
ENTRYPOINT ["neurofv-server"]

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="neurofv" \
    org.opencontainers.image.description="Feature visualization for 3D CNNs that read structural MRI, as a gRPC service. For research and audit, not for diagnosis." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
