"""TLS: which authorities to trust, who the client is, and whether the node's certificate is verified.

It is verified unless a URL's ssl_options explicitly say otherwise. pika ignores ``cert_reqs`` and ``check_hostname``,
and what its context does without them depends on the protocol: with PROTOCOL_TLS or PROTOCOL_TLSv1_2, it accepts any
certificate.
"""

import ast
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pika

#: pika's names for files in ssl_options.
FILES: Final = ("ca_certs", "cafile", "certfile", "keyfile")

MODES: Final = {mode.value: mode for mode in ssl.VerifyMode}


@dataclass(frozen=True)
class TLS:
    """The settings for TLS: files in PEM format, or a context of the application's own.

    Attributes:
        ca: the certificates of the authorities to trust; None for those that the system trusts.
        certificate: the client's certificate, followed by those of its issuers.
        key: the private key, if it is not in the certificate's file.
        context: the context to use instead of all this.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    context: ssl.SSLContext | None = None

    @property
    def given(self) -> str:
        """The names of the settings that are given; empty if none is."""
        names = ("tls_ca", self.ca), ("tls_certificate", self.certificate), ("tls_context", self.context)
        return ", ".join(name for name, value in names if value is not None)

    def options(self, host: str) -> pika.SSLOptions:
        """Return pika's options for a node, reading the files afresh. Raises ValueError, naming the bad file."""
        return pika.SSLOptions(self.context or self._read(), host)

    def _read(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ValueError(f"tls_ca {self.ca!r}: {file_trouble(error, 'has no certificate in PEM format')}") from None
        if self.certificate is not None:
            files = f"tls_certificate {self.certificate!r}" + (f", tls_key {self.key!r}" if self.key else "")
            try:
                context.load_cert_chain(self.certificate, self.key, _refuse_password)
            except OSError as error:
                problem = file_trouble(error, "are not a matching certificate and private key in PEM format")
                raise ValueError(f"{files}: {problem}") from None
            except ValueError as error:
                raise ValueError(f"{files}: {error}") from None
        return context


NO_TLS: Final = TLS()


def _refuse_password() -> str:
    # Otherwise OpenSSL would ask on the terminal, and block the loop.
    raise ValueError("the private key is encrypted: decrypt it, or give a tls_context that has loaded it")


def file_trouble(error: OSError, otherwise: str) -> str:
    """Say why a file could not be used: why it cannot be read, or else what is wrong with its contents."""
    if not isinstance(error, ssl.SSLError):
        return str(error.strerror)
    return f"{otherwise} ({error.reason})" if error.reason else otherwise


def unreadable(options: dict[str, Any]) -> str:
    """Name the first file in ssl_options that cannot be read, and why; empty if all can."""
    for name in FILES:
        path = options.get(name)
        if isinstance(path, str):
            try:
                Path(path).open("rb").close()
            except (OSError, ValueError) as error:
                return f"{name} {path!r}: {getattr(error, 'strerror', None) or error}"
    return ""


def read_options(text: str) -> dict[str, Any]:
    """Read a URL's ssl_options; anything but a dict has no options."""
    try:
        options = ast.literal_eval(text)
    except Exception:
        options = None
    return options if isinstance(options, dict) else {}


def contradiction(options: dict[str, Any]) -> str:
    """Say what is wrong with the options for verification; empty if nothing is."""
    mode, names = options.get("cert_reqs"), options.get("check_hostname")
    if mode is not None and (type(mode) is not int or mode not in MODES):
        return "cert_reqs must be 2 (the default: the certificate is verified) or 0 (it is not)"
    if names is not None and not isinstance(names, bool):
        return "check_hostname must be True (the default) or False"
    if mode == ssl.CERT_NONE and names:
        return "check_hostname cannot be True if cert_reqs is 0: the name in an unverified certificate proves nothing"
    return ""


def verify(context: ssl.SSLContext, options: dict[str, Any]) -> None:
    """Make the context verify the node's certificate and host name, except as far as the options say otherwise."""
    mode = MODES[options.get("cert_reqs", ssl.CERT_REQUIRED)]
    # ssl refuses contradictory values, even in between.
    context.check_hostname = False
    context.verify_mode = mode
    context.check_hostname = options.get("check_hostname", mode is not ssl.CERT_NONE)


def unverified(parameters: pika.connection.Parameters) -> str:
    """Say what is not verified about the node's certificate; empty if everything is, and without TLS."""
    if parameters.ssl_options is None:
        return ""
    context = parameters.ssl_options.context
    if context.verify_mode is ssl.CERT_NONE:
        return "the certificate is not verified (cert_reqs in ssl_options): anyone can pose as the node"
    if not context.check_hostname:
        return "the certificate may be for any host (check_hostname in ssl_options): its owner can pose as the node"
    return ""
