"""Whom a server's failure is about, and what the user can do where it is about everybody."""

from g4eval.engines.retry import Failure, RequestFailedError

# HTTP status -> what to do, where no request can succeed.
_BY_STATUS = {
    401: "set G4EVAL_API_KEY (or OPENAI_API_KEY) to a key this server takes",
    402: "give the account credit, then run the same command: what is stored is kept",
    403: "set G4EVAL_API_KEY (or OPENAI_API_KEY) to a key this server takes",
    429: "give the account credit, then run the same command: what is stored is kept",
}
_CHECK_ADDRESS = "check --base-url, which ends in /v1 for most servers, and --model"
_BY_WORDS = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "set SSL_CERT_FILE to a file with the server's certificate, or its authority's",
    ),
    (
        "one answer came from two models",
        "serve one model behind this address, then run the same command",
    ),
    ("HTML", _CHECK_ADDRESS),
)


def is_about_one(error: RequestFailedError) -> bool:
    """Whether a failure may be about one request, and others still be answered."""
    return error.failure is not Failure.REFUSED or error.status == 403


def advice(error: RequestFailedError, refused_field: str | None) -> str:
    """Return what to do about a failure that ended the engine.

    Args:
        error: the failure.
        refused_field: the field of the body that the server doesn't know; None: it isn't that.
    """
    if refused_field is not None:
        return f"leave the field out: --set engine.omit=[{refused_field}] (docs/servers.md)"
    for words, what in _BY_WORDS:
        if words in error.message:
            return what
    if error.failure is Failure.UNREACHABLE:
        return "start the server, then run the same command: what is stored is not made again"
    if error.failure is Failure.REFUSED:
        return _BY_STATUS.get(error.status or 0, _CHECK_ADDRESS)
    if error.failure is Failure.REJECTED:
        return "a field it doesn't know is left out with --set engine.omit=[NAME]"
    return "see the server's log, then run the same command: what is stored is not made again"
