# Locust with Tritium's load tests: the arguments are those of `tritium load`.
FROM python:3.11-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN useradd --uid 1000 --create-home tritium

WORKDIR /src
# .dockerignore lets in only what the package is built from.
COPY . .
RUN pip install --constraint constraints.txt '.[loadtest]'

USER 1000:1000
# Stays writable where the root file system is read-only.
WORKDIR /tmp

STOPSIGNAL SIGTERM
ENTRYPOINT ["tritium", "load"]
CMD ["--help"]
