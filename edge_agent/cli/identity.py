"""``identity``: the node's keys, its public document, tokens; asked of its identity service."""

from __future__ import annotations

import argparse
import os
import time
from types import ModuleType

from . import exits
from .context import CommandError, Context, complain, say, show_json
from .parsing import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..services.client import Identity
    from ..services.documents import Document

ACTIONS = ("show", "rotate", "revoke", "token", "challenge", "check")
NEEDED = {"revoke": ("key",), "token": ("audience",), "check": ("token", "audience")}
"""What an action cannot do without."""
CODES = {"denied": exits.PERMISSION, "busy": exits.BUSY}
"""Codes of the service; every other one is FAILED."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="show", metavar="ACTION", help=", ".join(ACTIONS))
    add = parser.add_argument
    add("--overlap", type=seconds, metavar="SECONDS", help="rotate: how long the old key stays valid (a day)")
    add("--service", metavar="SERVICE", help="rotate: the CURVE key of this bundled service, not the node's key")
    add("--key", metavar="KEY", help="revoke: current, next, or a key as --key=KEY")
    add("--reason", default="", metavar="TEXT", help="revoke: why, for everybody to read")
    add("--audience", metavar="NAME", help="token, check: whom the token is for")
    add("--subject", metavar="NAME", help="token: whom it speaks of (the node)")
    add("--scope", metavar="WORDS", help="token: what it allows, words with blanks between")
    add("--lifetime", type=seconds, metavar="SECONDS", help="token: how long it is valid (300)")
    add("--nonce", metavar="NONCE", help="token: the challenge of a verifier")
    add("--token", metavar="TOKEN", help="check: the token")
    add("--document", metavar="FILE", help="check: the identity document of the node it is from (this one)")
    add("--pin", metavar="KEY", help="check: a key that this node has had, as --pin=KEY; it leads to the document")
    parser.add_argument("--json", action="store_true", help="as JSON; show: the signed document as well")


def run(context: Context, options: argparse.Namespace) -> int:
    """Ask the service."""
    from ..services import client

    action = options.action
    missing = [name for name in NEEDED.get(action, ()) if not getattr(options, name)]
    if (options.document is None) != (options.pin is None):
        missing.append("pin" if options.pin is None else "document")
    if missing:
        raise CommandError(exits.USAGE, f"cannot {action}: --{missing[0]} is missing; fix: edge-agent identity --help")
    try:
        with client.Identity.local(os.path.join(context.directories.run, "bundled/identity")) as service:
            if action == "rotate" and options.service:
                return _rekey(context, options.service)
            if action == "show":
                return _show(context, service)
            if action == "check":
                return _check(context, service, options)
            return _do(context, service, options)
    except client.UnreachableError as error:
        code = exits.PERMISSION if "permission" in str(error) else exits.FAILED
        raise CommandError(code, str(error)) from error
    except client.TimedOutError as error:
        raise CommandError(exits.TIMEOUT, f"{error}; fix: see `edge-agent status`") from error
    except client.ServiceError as error:
        raise CommandError(CODES.get(error.code, exits.FAILED), f"cannot {action}: {error}") from error


def _do(context: Context, service: Identity, options: argparse.Namespace) -> int:
    if options.action == "challenge":
        return _told(context, "nonce", service.challenge())
    if options.action == "token":
        given = {name: getattr(options, name) for name in ("subject", "scope", "nonce") if getattr(options, name)}
        if options.lifetime:
            given["lifetime"] = int(options.lifetime)
        answer = service.ask("token", audience=options.audience, **given)
        if answer["doubt"] and not options.nonce:
            complain([f"{answer['doubt']}: elsewhere only a token with a --nonce is valid"])
        return _told(context, "token", answer["token"])
    if options.action == "rotate":
        text = service.rotate(None if options.overlap is None else int(options.overlap))
    else:
        document, jws = _read(service.document())
        roles = {"current": document.current, "next": document.next}
        key = jws.encode(roles[options.key]) if options.key in roles else options.key
        text = service.revoke(key, options.reason)
    document, jws = _read(text)
    if context.json:
        show_json({"document": text, "sequence": document.sequence, "current": jws.encode(document.current)})
    else:
        say(f"document {document.sequence}, current key {jws.encode(document.current)}")
    return exits.OK


def _rekey(context: Context, name: str) -> int:
    """The service's own key, in its own directory: it is the one to ask."""
    from ..services import client

    class Any(client.Client):
        service = name

    with Any.local(os.path.join(context.directories.run, "bundled", name)) as service:
        keys = service.ask("rekey")["keys"]
    if context.json:
        show_json({"service": name, "keys": keys})
    else:
        say(f"{name} has {', '.join(keys)} from its next start on; next: edge-agent restart {name}")
    return exits.OK


def _told(context: Context, name: str, value: str) -> int:
    if context.json:
        show_json({name: value})
    else:
        say(value)
    return exits.OK


def _check(context: Context, service: Identity, options: argparse.Namespace) -> int:
    document, pinned = "", b""
    if options.document is not None:
        from ..services import jws

        with open(options.document, encoding="ascii", errors="replace") as file:
            document = file.read().strip()
        try:
            pinned = jws.decode(options.pin)
        except jws.JwsError as error:
            fix = "a key as `edge-agent identity show` prints it"
            raise CommandError(exits.USAGE, f"cannot check: --pin is not a key; fix: {fix}") from error
    answer = service.check(options.token, options.audience, document, pinned)
    told = {key: value for key, value in answer.items() if key not in ("v", "id", "ok")}
    if context.json:
        show_json(told)
    elif told["valid"]:
        claims = told["claims"]
        say(f"valid: {claims['subject']}, by {claims['issuer']}, for {claims['audience']}: {claims['scope'] or '-'}")
    else:
        raise CommandError(exits.FAILED, f"refused: {told['why']}" + (f"; fix: {told['fix']}" if told["fix"] else ""))
    return exits.OK if told["valid"] else exits.FAILED


def _show(context: Context, service: Identity) -> int:
    text = service.document()
    health = service.health()
    document, jws = _read(text)
    if context.json:
        show_json(
            {
                "node": document.node,
                "sequence": document.sequence,
                "current": jws.encode(document.current),
                "next": jws.encode(document.next),
                "previous": [{"key": jws.encode(each.key), "until": each.until} for each in document.previous],
                "revoked": [{"key": each.key, "reason": each.reason} for each in document.revoked],
                "services": {name: list(keys) for name, keys in document.services.items()},
                "sealed": health["sealed"],
                "credential": health["credential"],
                "doubt": health["doubt"],
                "document": text,
            }
        )
        return exits.OK
    lines = [("node", f"{document.node}, document {document.sequence}{_date(', of ', document.issued)}")]
    lines += [("current", jws.encode(document.current)), ("next", jws.encode(document.next))]
    lines += [("previous", f"{jws.encode(each.key)}{_date(', until ', each.until)}") for each in document.previous]
    lines += [("revoked", f"{each.key}{f', {each.reason}' if each.reason else ''}") for each in document.revoked]
    lines += [(name, ", next ".join(keys)) for name, keys in sorted(document.services.items())]
    sealed = f"sealed by {health['credential']}" if health["sealed"] else "in files of mode 0600, not sealed"
    lines += [("secrets", sealed), ("clock", f"not believed: {health['doubt']}" if health["doubt"] else "believed")]
    width = max(len(name) for name, _ in lines)
    say(*(f"{name:<{width}}  {told}" for name, told in lines))
    return exits.OK


def _date(before: str, instant: int) -> str:
    return before + time.strftime("%Y-%m-%d %H:%M", time.localtime(instant)) if instant else ""


def _read(text: str) -> tuple[Document, ModuleType]:
    """The document, and the module that writes its keys. Raises CommandError."""
    from ..services import documents, jws

    try:
        return documents.parse(text), jws
    except documents.DocumentError as error:
        raise CommandError(exits.FAILED, f"cannot read the identity document: {error}; fix: report this") from error
