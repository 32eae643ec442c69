"""`lumyn serve`: the HTTP API for holders of API keys; `lumyn dev`: the same on loopback, without keys."""

from __future__ import annotations

from pathlib import Path

import typer

from lumyn.cli.output import say

_POLICY = typer.Option(None, "--policy", help="Decides while no policy is active; read again when it changes.")
_PORT = typer.Option(8700, "--port", min=0, max=65535, help="The port; 0 picks a free one.")


def serve(
    host: str = typer.Option("127.0.0.1", "--host", help="The address to listen on."),
    port: int = _PORT,
    policy: Path | None = _POLICY,
    dev_: bool = typer.Option(False, "--dev", help="No keys: whoever is on this machine may do all. Loopback only."),
    tls_cert: Path | None = typer.Option(None, "--tls-cert", help="Serve HTTPS: the certificate chain, as PEM."),
    tls_key: Path | None = typer.Option(None, "--tls-key", help="Its private key, as PEM."),
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C. Every request needs an API key, unless `--dev`.

    \b
    Example: lumyn serve --host 0.0.0.0 --port 8700 --tls-cert cert.pem --tls-key key.pem
    Keys are made by `lumyn keys create`.
    """
    from lumyn.api.server import Address
    from lumyn.api.server import serve as serve_app
    from lumyn.config import LumynConfig

    config = LumynConfig(policy_path=policy, policy_until_active=True)
    serve_app(config, Address(host, port, tls_cert, tls_key), say, dev=dev_)


def dev(policy: Path | None = _POLICY, port: int = _PORT) -> None:
    """Run everything embedded: the HTTP API on 127.0.0.1, deciding in this process. For development: no keys.

    \b
    Example: lumyn dev --policy policy.yml --port 8700
    The same as `serve --dev`.
    """
    serve("127.0.0.1", port, policy, True, None, None)
