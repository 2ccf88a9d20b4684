"""The settings of what the node serves: the kubelet's API with those who may use it, the read-only port, the local API.

A group of the table in `agent.option_table`, in its order.
"""

from __future__ import annotations

from agent import option_values as form
from agent.option import Option

NODE_API: tuple[Option, ...] = (
    Option("port", "port", form.whole(0, 65535), "PORT", "HTTPS port of the node's API; 0: none", env="KUBELET_PORT"),
    Option(
        "address", "address", form.address, "ADDRESS", "where the node's API listens",
        default="every address",
    ),
    Option(
        "tls_cert_file", "tls-cert-file", form.optional_path, "FILE", "certificate of the node's API",
        env="APISERVER_CERT_LOCATION", default="a self-signed one",
    ),
    Option(
        "tls_private_key_file", "tls-private-key-file", form.optional_path, "FILE", "its private key",
        env="APISERVER_KEY_LOCATION", default="that of the self-signed certificate",
    ),
    Option(
        "client_ca_file", "client-ca-file", form.optional_path, "FILE",
        "who signs the certificates of the node API's clients",
        key="clientCAFile", env="APISERVER_CA_CERT_LOCATION", default="the cluster's CA in the kubeconfig",
    ),
    Option(
        "authentication_token_webhook", "authentication-token-webhook", form.switch, "BOOL",
        "the node's API takes bearer tokens and has the API server review them",
    ),
    Option(
        "authentication_token_webhook_cache_ttl", "authentication-token-webhook-cache-ttl", form.duration, "DURATION",
        "how long a token that was found good counts as good", default="2m",
    ),
    Option(
        "authorization_mode", "authorization-mode", form.choice("Webhook", "AlwaysAllow"), "MODE",
        "who decides what a client of the node's API may do: Webhook, the API server; AlwaysAllow, nobody: every"
        " client that is known may do everything",
    ),
    Option(
        "authorization_webhook_cache_authorized_ttl", "authorization-webhook-cache-authorized-ttl", form.duration,
        "DURATION", "how long its yes holds", default="5m",
    ),
    Option(
        "authorization_webhook_cache_unauthorized_ttl", "authorization-webhook-cache-unauthorized-ttl", form.duration,
        "DURATION", "how long its no holds", default="30s",
    ),
    Option(
        "streaming_connection_idle_timeout", "streaming-connection-idle-timeout", form.duration, "DURATION",
        "an exec, attach or port-forward without a byte for so long is ended", default="4h",
    ),
    Option(
        "enable_system_log_handler", "enable-system-log-handler", form.switch, "BOOL",
        "the node's API shows the files in /var/log to those who may get nodes/log",
    ),
    Option(
        "read_only_port", "read-only-port", form.whole(0, 65535), "PORT",
        "HTTP port for health, pods and figures, without authentication; 0: none",
    ),
    Option(
        "local_api", "local-api", form.listening, "ADDRESS:PORT",
        "where this node itself answers Kubernetes requests, also while cut off (docs/local-api.md); empty: nowhere",
        key="localAPI", default="127.0.0.1:10550",
    ),
    Option(
        "inject_local_api", "inject-local-api", form.switch, "BOOL",
        "pods find the local API where they look for the API server, and trust it; on loopback: those on the host's"
        " network",
        key="injectLocalAPI",
    ),
    Option(
        "local_api_secrets", "local-api-secrets", form.switch, "BOOL", "the local API shows recorded Secrets too",
        key="localAPISecrets",
    ),
)  # fmt: skip
