# Triton with its native backends. The model repository is mounted at /models.
ARG TRITON_VERSION=26.06
FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3

# The base image's own triton-server, as a number: Kubernetes can check only a number for runAsNonRoot.
USER 1000:1000

EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM

# Big models take minutes to load, and until then Triton is right not to be ready.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5m --retries=6 \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "--noproxy", "*", "http://127.0.0.1:8000/v2/health/ready"]

# The exec form: no shell may see the star.
CMD ["tritonserver", \
     "--model-repository=/models", \
     "--model-control-mode=explicit", \
     "--load-model=*", \
     "--disable-auto-complete-config", \
     "--allow-sagemaker=false", \
     "--allow-vertex-ai=false", \
     "--http-port=8000", \
     "--grpc-port=8001", \
     "--metrics-port=8002", \
     "--exit-timeout-secs=20"]
