# The SIP edge: Debian's Kamailio and rtpengine under infra/sip/edge.py. Build from the root of the checkout:
#   docker build -f infra/compose/edge.Dockerfile -t parley-edge .
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        kamailio kamailio-tls-modules rtpengine-daemon python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home parley
COPY infra/__init__.py /opt/edge/infra/__init__.py
COPY infra/sip /opt/edge/infra/sip
USER parley
WORKDIR /opt/edge
ENV PYTHONDONTWRITEBYTECODE=1
# Healthy means that a call could be answered: rtpengine answers and there is a node that does.
HEALTHCHECK --interval=10s --timeout=10s --start-period=1m --retries=3 \
    CMD ["python3", "-m", "infra.sip.edge", "status", "--env", "/etc/parley/edge.env"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "infra.sip.edge"]
CMD ["run", "--env", "/etc/parley/edge.env"]
