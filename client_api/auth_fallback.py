"""The page on which a browser completes a stage of authentication that a client does not know.

Everything that comes from outside is escaped, and the one script bears a nonce.

Source: client-server-api/_index.md, "Fallback" (of User-Interactive Authentication); security C12, C13.
"""

from __future__ import annotations

import secrets
from html import escape
from string import Template

from attrs import frozen

from client_api.paths import v3
from client_api.register import TOKEN
from homeserver.accounts.interactive_auth import DUMMY, InteractiveAuth
from homeserver.accounts.registration import Registration
from homeserver.http.calls import Call, Query, Reply, Response
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import MatrixError, NotFound

MAX_FORM = 4096
_FORM = Template("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Confirm</title></head>
<body>
<h1>Confirm</h1>
<p>$message</p>
<form method="post">
$field
<button type="submit">Continue</button>
</form>
</body>
</html>
""")
_DONE = Template("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Done</title></head>
<body>
<h1>Done</h1>
<p>You can close this page and go back to your client.</p>
<script nonce="$nonce">
if (window.onAuthDone) { window.onAuthDone(); }
else if (window.opener) { window.opener.postMessage("authDone", "*"); }
</script>
</body>
</html>
""")
_FIELDS = {
    DUMMY: "",
    TOKEN: '<label>Registration token <input name="token" autocomplete="off"></label>',
}
_MESSAGES = {
    DUMMY: "Nothing is asked of you.",
    TOKEN: "This server lets in whoever has a registration token.",
}


@frozen(eq=False)
class AuthFallback:
    """Shows the pages."""

    auth: InteractiveAuth
    registration: Registration

    async def show(self, call: Call[None]) -> Reply:
        """GET /auth/{authType}/fallback/web."""
        kind, _ = _stage_of(call)
        return _form(kind, _MESSAGES[kind])

    async def submit(self, call: Call[bytes]) -> Reply:
        """POST /auth/{authType}/fallback/web."""
        kind, session = _stage_of(call)
        proof = None
        try:
            if kind == TOKEN:
                proof = Query(call.body).get("token") or ""
                if not await self.registration.is_valid_token(proof, call.now):
                    return _form(kind, "This registration token is not valid.")
            await self.auth.complete_outside(session, kind, proof, call.now)
        except MatrixError as error:
            return _form(kind, error.error)
        nonce = secrets.token_urlsafe(16)
        return _page(_DONE.substitute(nonce=nonce), f"script-src 'nonce-{nonce}'")

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        paths = v3("/auth/{authType}/fallback/web")
        limit = RateClass.REGISTRATION
        return (
            Route("GET", paths, self.show, auth=Auth.NONE, limit=limit, over_websocket=False, cors=False),
            Route(
                "POST",
                paths,
                self.submit,
                body=bytes,
                auth=Auth.NONE,
                limit=limit,
                max_body=MAX_FORM,
                over_websocket=False,
                cors=False,
            ),
        )


def _stage_of(call: Call[None] | Call[bytes]) -> tuple[str, str]:
    """Give the stage and the session; raises NotFound for a stage without a page."""
    kind = call.path["authType"]
    if kind not in _FIELDS:
        raise NotFound("There is no page for this stage")
    return kind, call.query.required("session")


def _form(kind: str, message: str) -> Response:
    return _page(_FORM.substitute(message=escape(message), field=_FIELDS[kind]), "form-action 'self'")


def _page(text: str, allowed: str) -> Response:
    policy = f"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; {allowed}"
    headers = (("Content-Security-Policy", policy),)
    return Response(200, text.encode(), headers, "text/html; charset=utf-8")
