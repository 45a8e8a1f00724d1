# A station in a container, on a CPU:
#
#     docker build -t sfiin .
#     docker run -d --restart=always --network=none --read-only --tmpfs /tmp --cap-drop=ALL \
#         --security-opt=no-new-privileges --user "$(id -u):$(id -g)" \
#         -v /srv/in:/in -v /srv/out:/out sfiin watch /in /out --quicklook
#
# The watcher is process 1: it ends on SIGTERM within ten seconds, waits for its own children, and takes up
# after a restart what it had taken before, as claims are locks and no process numbers.

FROM python:3.12-slim AS build
COPY . /src
RUN python -m venv /opt/sfiin && /opt/sfiin/bin/pip install --no-cache-dir "/src[cpu,station]"

FROM python:3.12-slim
COPY --from=build /opt/sfiin /opt/sfiin
ENV PATH=/opt/sfiin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --no-create-home sfiin
USER 10001
STOPSIGNAL SIGTERM
# The watcher looks at its inbox every few seconds and renews its lease with it; one that has stopped to do so
# for two minutes is not healthy.
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s \
    CMD ["sh", "-c", "test -n \"$(find ${SFIIN_INBOX:-/in}/.taken-*/lease -mmin -2 2>/dev/null)\""]
ENTRYPOINT ["sfiin"]
CMD ["watch", "/in", "/out"]
