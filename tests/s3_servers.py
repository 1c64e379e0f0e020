"""What stands before, or instead of, a real S3 server: silent, refusing, busy, changing, with TLS."""

from __future__ import annotations

import datetime
import http.client
import http.server
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

XML = "<Error><Code>{}</Code><Message>{}</Message></Error>"


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]  # names in small letters


@dataclass(frozen=True)
class Said:
    """An answer of one's own: a code of S3, or a text as it is."""

    status: int
    code: str
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        plain = self.code.startswith("<") or not self.code
        return (self.code if plain else XML.format(self.code, self.message)).encode()


class Relay:
    """Passes requests on to a server, but those that ``answer`` answers itself."""

    def __init__(self, target: str, answer: Callable[[Asked], Said | None]) -> None:
        self.asked: list[Asked] = []
        relay, host = self, target.removeprefix("http://")

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers)
                relay.asked.append(asked)
                said = answer(asked)
                if said is not None:
                    self._say(said.status, [*said.headers.items()], said.body)
                    return
                with closing(http.client.HTTPConnection(host)) as behind:
                    behind.putrequest(
                        self.command, self.path, skip_host=True, skip_accept_encoding=True
                    )
                    for name, value in self.headers.items():
                        behind.putheader(name, value)
                    behind.endheaders(data)
                    found = behind.getresponse()
                    status, headers, body = found.status, found.getheaders(), found.read()
                self._say(status, headers, body)

            def _say(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                length = {k.lower(): v for k, v in headers}.get("content-length")
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("content-length", str(length or len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                return

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                return  # a client that has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def relay(target: str, answer: Callable[[Asked], Said | None]) -> Iterator[Relay]:
    """A `Relay` for a while."""
    started = Relay(target, answer)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a port that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def make_certificate(folder: Path) -> None:
    """A key and a certificate that nobody signed but itself, for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / "key.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@contextmanager
def tls_server(target: str, folder: Path) -> Iterator[str]:
    """The https:// address of TLS before a server, with a certificate made in ``folder``."""
    make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    host, port = target.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=_accept, args=(listener, context, (host, int(port))), daemon=True
        ).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(inner, context, target), daemon=True).start()


def _serve(inner: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    try:
        with (
            context.wrap_socket(inner, server_side=True) as client,
            socket.create_connection(target) as server,
        ):
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
    except OSError:
        return


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
