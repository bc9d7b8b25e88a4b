"""Whether the node's certificate is verified: always, unless a URL's ssl_options say exactly that it is not to be.

pika passes over ``cert_reqs`` and ``check_hostname``, and what its context does without them depends on the protocol:
with PROTOCOL_TLS or PROTOCOL_TLSv1_2, any certificate is taken.
"""

import ast
import ssl
from typing import Any, Final

import pika

MODES: Final = {mode.value: mode for mode in ssl.VerifyMode}


def read_options(text: str) -> dict[str, Any]:
    """Read a URL's ssl_options; what is no dict has no option."""
    try:
        options = ast.literal_eval(text)
    except Exception:
        options = None
    return options if isinstance(options, dict) else {}


def contradiction(options: dict[str, Any]) -> str:
    """Say what is wrong with what the options say about verification; empty where nothing is."""
    mode, names = options.get("cert_reqs"), options.get("check_hostname")
    if mode is not None and (type(mode) is not int or mode not in MODES):
        return "cert_reqs must be 2 (the default: the certificate is verified) or 0 (it is not)"
    if names is not None and not isinstance(names, bool):
        return "check_hostname must be True (the default) or False"
    if mode == ssl.CERT_NONE and names:
        return "check_hostname cannot be True where cert_reqs is 0: a name that nobody vouches for says nothing"
    return ""


def verify(context: ssl.SSLContext, options: dict[str, Any]) -> None:
    """Have the context verify the node's certificate and its host, as far as the options do not ask otherwise."""
    mode = MODES[options.get("cert_reqs", ssl.CERT_REQUIRED)]
    # Neither may be set against the other.
    context.check_hostname = False
    context.verify_mode = mode
    context.check_hostname = options.get("check_hostname", mode is not ssl.CERT_NONE)


def unverified(parameters: pika.connection.Parameters) -> str:
    """Say what is not verified of the node's certificate; empty where all of it is, and where there is no TLS."""
    if parameters.ssl_options is None:
        return ""
    context = parameters.ssl_options.context
    if context.verify_mode is ssl.CERT_NONE:
        return "the certificate is not verified (cert_reqs in ssl_options): anybody may pose as the node"
    if not context.check_hostname:
        return "the certificate may be for any host (check_hostname in ssl_options): its owner may pose as the node"
    return ""
