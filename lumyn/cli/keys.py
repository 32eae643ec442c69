"""`lumyn keys`: API keys for HTTP; the home's signing key, and the signing keys of others that it trusts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import one_line, out, out_json, say

if TYPE_CHECKING:
    from lumyn.access.store import KeyStore

_HELP = "API keys, the home's signing key, and keys that it trusts."
app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)


@app.command("create")
def create(
    role: list[str] = typer.Option(..., "--role", help="decide, label, read, admin; several with commas."),
    tenant: str | None = typer.Option(None, "--tenant", help="Whose decisions; default: LUMYN_TENANT."),
    name: str = typer.Option("", "--name", help="What the key is for; audits show it."),
    rate: str | None = typer.Option(None, "--rate", help="How many requests it may make: `100/s`, `600/m`."),
    expires: str | None = typer.Option(None, "--expires", help="When it ends: `90d`, `12h`, or a day, `2027-01-31`."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Make an API key. It is shown this once: only a digest of it is kept.

    \b
    Example: lumyn keys create --tenant acme --role decide,read --name checkout --rate 100/s
    """
    from lumyn.access.principal import roles_of
    from lumyn.access.rates import Rate
    from lumyn.access.store import described
    from lumyn.access.times import ends_at
    from lumyn.config import resolve
    from streams.local_log import wall_clock_ms

    settings, now = resolve(), wall_clock_ms()
    store = _store()
    kept, key = store.create(
        tenant or settings.tenant,
        roles_of(role),
        actor=settings.actor,
        name=name,
        rate=Rate.parse(rate) if rate else None,
        expires_ms=ends_at(expires, now) if expires else None,
    )
    if json_:
        out_json({"key": key, **described(kept, now)})
    else:
        out(key)
        say(f"keep it: it can't be shown again. `lumyn keys revoke {kept.key_id}` ends it")


@app.command("revoke")
def revoke(
    key_id: str = typer.Argument(..., metavar="KEY_ID", help="As `keys list` shows it; a unique start will do."),
    why: str = typer.Option("", "--why", help="The reason, for the audit."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Take an API key's force away, at once and for good, in running servers too.

    \b
    Example: lumyn keys revoke 3f2a91c0de57 --why "left the company"
    """
    from lumyn.access.store import described
    from lumyn.config import resolve
    from streams.local_log import wall_clock_ms

    done = _store().revoke(key_id, actor=resolve().actor, why=why)
    if json_:
        out_json(described(done, wall_clock_ms()))
    else:
        out(f"revoked {done.key_id} {done.name}".rstrip())


def _store() -> KeyStore:
    from lumyn.access.store import KeyStore
    from lumyn.config import resolve

    return KeyStore(resolve().home.absolute())


@app.command("show")
def show(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Print the home's public key, making the key at first use.

    \b
    Example: lumyn keys show
    """
    from lumyn.cli.new_key import telling_new_key
    from lumyn.wiring import operator_home

    home = operator_home()
    with telling_new_key(home):
        public = home.signing_key().public
    if json_:
        out_json({"key_id": public.key_id, "public_key": public.text})
    else:
        out(f"{public.key_id} {public.text}")


@app.command("list")
def list_(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List the API keys, and the signing keys that this home believes. No secret is shown.

    \b
    Example: lumyn keys list
    """
    from lumyn.access.store import described
    from lumyn.config import resolve
    from lumyn.replaying import trusted_keys
    from streams.local_log import wall_clock_ms

    known = trusted_keys(resolve().home) or {}
    api = [{"is": "api", **described(key, wall_clock_ms())} for key in _store().all_keys()]
    if json_:
        out_json([*({"key_id": key, "is": kind} for key, kind in sorted(known.items())), *api])
        return
    for key, kind in sorted(known.items()):
        out(f"{key} {kind}")
    for one in api:
        limits = [f"rate {one['rate']}"] if one["rate"] else []
        limits += [f"until {one['expires_at']}"] if one["expires_at"] else []
        words = [one["key_id"], "api", one["tenant"], ",".join(one["roles"]), one["state"], *limits, one["name"]]
        out(one_line(" ".join(map(str, words)).rstrip()))
    if not known and not api:
        say("no keys yet; `lumyn keys create` makes an API key, `lumyn keys show` this home's signing key")


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
    import base64

    from lumyn.attesting import attester, is_attestation
    from lumyn.config import resolve
    from lumyn.exporting import write_whole
    from lumyn.home import TRUSTED_FOLDER
    from schemas.errors import NotFound, UsageError
    from streams.packs import read_pack
    from streams.signing import PublicKey

    if Path(source).exists():
        signer = attester(Path(source)) if is_attestation(Path(source)) else read_pack(Path(source)).signer
        if signer is None:
            raise UsageError("the pack is not signed", where=source)
    else:
        try:
            base64.b64decode(source, validate=True)
        except ValueError:
            raise NotFound(
                f"`{source}` is no file that is there, and no public key",
                help="a pack, an attestation, or the second word that `lumyn keys show` prints where it was signed",
            ) from None
        signer = PublicKey.from_text(source)
    folder = resolve().home / TRUSTED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{signer.key_id}.pub", signer.text.encode() + b"\n")
    if json_:
        out_json({"key_id": signer.key_id, "is": "trusted"})
    else:
        out(f"trusted {signer.key_id}")
