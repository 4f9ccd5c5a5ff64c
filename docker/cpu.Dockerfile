# The server that `tritium serve` runs on a laptop: Triton 2.51 from pip. The model repository is mounted at /models.
FROM python:3.11-slim-bookworm

ENV TRITIUM_CACHE_DIR=/opt/tritium \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# At its first start the server makes the environment of its backend processes in the cache, so the cache is its own.
RUN useradd --uid 1000 --create-home tritium \
    && install --directory --owner=tritium --group=tritium "$TRITIUM_CACHE_DIR"

WORKDIR /src

# The package index for torch alone, such as PyTorch's own index of CPU builds. Left empty, torch comes from pip's
# usual index, on x86-64 with gigabytes of CUDA libraries that this image has no use for.
ARG TORCH_INDEX_URL=
COPY constraints.txt ./
# Without dependencies first: that index need not have them in the versions that the constraints name.
RUN pip install --no-deps --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch \
    && pip install --constraint constraints.txt torch

# .dockerignore lets in only what the package is built from.
COPY . .
RUN pip install --constraint constraints.txt '.[server]'

# The backend processes need libpython3.11.so: this Python's own is in /usr/local/lib, so apt has nothing to add.
USER 1000:1000
WORKDIR /home/tritium
# Here and not at the start, so that the container needs no network. There is no C++ compiler in this image: pip fetches
# zig for this moment.
RUN tritium runtime install

EXPOSE 8000 8001 8002 8003
STOPSIGNAL SIGTERM

# Triton goes on saying that it is ready when a backend process has died; its supervisor, on 8003, knows better.
HEALTHCHECK --interval=5s --timeout=5s --start-period=2m --retries=6 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler as P, build_opener as b; \
         b(P({})).open('http://127.0.0.1:8003/ready', timeout=3)"]

# Inside a container loopback is out of reach for everybody else; who may reach the ports is decided where they are
# published.
CMD ["tritium", "serve", "--repository", "/models", "--expose", \
     "--http-port", "8000", "--grpc-port", "8001", "--metrics-port", "8002", "--health-port", "8003"]
