"""`lumyn keys`: the home's signing key, and the keys of others that it trusts."""

from __future__ import annotations

from pathlib import Path

import typer

from lumyn.cli.output import out, out_json, say

app = typer.Typer(help="The home's signing key, and keys that it trusts.", no_args_is_help=True, rich_markup_mode=None)


@app.command("show")
def show(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Print the home's public key, making the key at first use.

    \b
    Example: lumyn keys show
    """
    from lumyn.wiring import operator_home

    public = operator_home().signing_key().public
    if json_:
        out_json({"key_id": public.key_id, "public_key": public.text})
    else:
        out(f"{public.key_id} {public.text}")


@app.command("list")
def list_(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List the keys that this home believes.

    \b
    Example: lumyn keys list
    """
    from lumyn.config import resolve
    from lumyn.replaying import trusted_keys

    known = trusted_keys(resolve().home) or {}
    if json_:
        out_json([{"key_id": key, "is": kind} for key, kind in sorted(known.items())])
        return
    for key, kind in sorted(known.items()):
        out(f"{key} {kind}")
    if not known:
        say("no keys yet; `lumyn keys show` makes this home's own")


@app.command("trust")
def trust(
    source: str = typer.Argument(
        ..., metavar="PACK.zip | ATTESTATION.json | PUBLIC_KEY", help="What it signed, or the key itself."
    ),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Trust a signing key: packs that it signed are believed here from now on.

    \b
    Example: lumyn keys trust incident.zip
    """
    from lumyn.attesting import attester, is_attestation
    from lumyn.config import resolve
    from lumyn.exporting import write_whole
    from lumyn.wiring import TRUSTED_FOLDER
    from schemas.errors import UsageError
    from streams.packs import read_pack
    from streams.signing import PublicKey

    if Path(source).exists():
        signer = attester(Path(source)) if is_attestation(Path(source)) else read_pack(Path(source)).signer
        if signer is None:
            raise UsageError("the pack is not signed", where=source)
    else:
        signer = PublicKey.from_text(source)
    folder = resolve().home / TRUSTED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{signer.key_id}.pub", signer.text.encode() + b"\n")
    if json_:
        out_json({"key_id": signer.key_id, "is": "trusted"})
    else:
        out(f"trusted {signer.key_id}")
