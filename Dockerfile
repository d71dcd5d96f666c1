FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tp_retrieval tp_retrieval
COPY integrations integrations
RUN python -m venv /app \
    && /app/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && /app/bin/pip install --no-cache-dir ".[server,files,mcp]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home retrieval \
    && mkdir /data \
    && chown retrieval /data
COPY --from=build /app /app
USER retrieval
ENV TP_RETRIEVAL_CACHE=/data/.cache PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["/app/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["/app/bin/tp-retrieval"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--data", "/data/indexes", "--access-log"]
