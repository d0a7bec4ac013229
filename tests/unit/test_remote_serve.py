"""``robopolicy serve`` as a process of its own: bundles, tokens, TLS, its end; and ``ws://`` in ``eval``."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_remote_support import DIGEST, TOKEN, Plain, call_of
from test_runtime_support import tiny_graphs, tiny_specs, tiny_window, write_tiny_bundle

from robopolicy.cli import serve
from robopolicy.cli.eval import load_any
from robopolicy.core.errors import BundleError, ConfigError, WorkerError
from robopolicy.core.policy import draw_candidates, keyed_rng
from robopolicy.runtime import Bundle, BundlePolicy
from robopolicy.runtime.remote import PolicyServer, RemotePolicy, ServerConfig, connect, read_token, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("served") / "bundle", image=True)


@contextlib.contextmanager
def command(*arguments: str, token: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the URL it tells."""
    environment = {**os.environ, "ROBOPOLICY_TOKEN": token, "COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "robopolicy.cli.main", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdout is not None
    try:
        said = ""
        while (found := re.search(r"wss?://\S+?:\d+", said)) is None:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield process, found.group()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_served_bundle_is_bit_equal_and_sigterm_ends_it_cleanly(bundle: Bundle) -> None:
    here = BundlePolicy(bundle, provider="cpu")
    arguments = ("--bundle", str(bundle.directory), "--digest", bundle.digest, "--provider", "cpu")
    with command(*arguments, token=TOKEN) as (process, url):
        with pytest.raises(WorkerError, match="wrong or missing token"):
            connect(url)
        with RemotePolicy(url, TOKEN, expect_digest=bundle.digest, request_timeout_s=20) as remote:
            assert remote.policy_specs == bundle.policy_specs
            for step, n in enumerate((1, 16, 3)):
                window = tiny_window(bundle.policy_specs, np.random.default_rng(step))
                found, expected = (
                    draw_candidates(policy, window, n, rng=keyed_rng(7, step)) for policy in (remote, here)
                )
                np.testing.assert_array_equal(found, expected)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stdout is not None
            rest = process.stdout.read()
            assert "closed" in rest and "Traceback" not in rest and TOKEN not in rest
            with pytest.raises(WorkerError, match="lost the server"):
                draw_candidates(remote, window, 1, rng=keyed_rng(0))


def test_nothing_is_loaded_without_a_token_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROBOPOLICY_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"'0\.0\.0\.0' needs a token"):
        serve.run(serve.Args(bundle=Path("no such bundle"), host="0.0.0.0"))
    with pytest.raises(ConfigError, match="either a --bundle or a --policy"):
        serve.run(serve.Args())
    with pytest.raises(ConfigError, match="both --cert and --key"):
        PolicyServer(Plain(), ServerConfig(cert=Path("c.pem")), digest=DIGEST)


def test_a_served_engine_takes_the_largest_request(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def policy(bundle: Bundle, **options: Any) -> BundlePolicy:
        given.update(options)
        return BundlePolicy(bundle, **options)

    monkeypatch.setattr(serve, "BundlePolicy", policy)
    serve.load(serve.Args(bundle=bundle.directory, provider="cpu", max_batch=3, max_candidates=5))
    assert given["max_rows"] == 15


def test_a_policy_that_fails_is_not_served(tmp_path: Path) -> None:
    graphs = tiny_graphs(tiny_specs(), scale=np.nan)
    broken = write_tiny_bundle(tmp_path / "bundle", graphs=graphs)
    with pytest.raises(WorkerError, match="the first inference failed: NonFiniteValueError: the sampler"):
        serve.run(serve.Args(bundle=broken.directory, provider="cpu", port=0))


def test_a_bundle_with_another_digest_is_not_served(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="digest"):
        serve.run(serve.Args(bundle=bundle.directory, digest="0" * 64))


def test_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    monkeypatch.setenv("ROBOPOLICY_TOKEN", "from-the-environment")
    assert read_token(file) == TOKEN and read_token() == "from-the-environment"
    monkeypatch.delenv("ROBOPOLICY_TOKEN")
    assert read_token() == ""
    for bad in ("", "short", "sixteen chars and spaces", "x" * 20 + "é"):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError, match="at least 16 printable") as caught:
            read_token(file)
        assert not bad or bad not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the token file"):
        read_token(tmp_path / "none")


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "robot")])
    now = datetime.datetime.now(datetime.timezone.utc)
    host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert, private


def test_tls_is_checked_by_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = write_certificate(tmp_path)
    config = ServerConfig(cert=cert, key=key)
    call = call_of(Plain().policy_specs)
    with serving(PolicyServer(Plain(), config, digest=DIGEST, token=TOKEN)) as url:
        assert url.startswith("wss://")
        with pytest.raises(WorkerError, match="certificate verify failed"):
            connect(url, TOKEN)
        with pytest.raises(WorkerError, match="cannot connect"):
            connect(url.replace("wss", "ws"), TOKEN)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        with RemotePolicy(url, TOKEN) as remote:
            np.testing.assert_array_equal(remote.sample(*call), Plain().sample(*call))
    with pytest.raises(ConfigError, match="cannot use the certificate"):
        PolicyServer(Plain(), ServerConfig(cert=key, key=cert), digest=DIGEST)


@pytest.mark.parametrize("text", ["{url}", "{url}/"])
def test_eval_takes_a_url_for_a_policy(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOPOLICY_TOKEN", TOKEN)
    call: Any = call_of(Plain().policy_specs, batch=5)
    with serving(PolicyServer(Plain(), digest=DIGEST, token=TOKEN)) as url:
        policy = load_any(Path(text.format(url=url)))  # the command line makes a path of it: ws:/host
        assert isinstance(policy, RemotePolicy) and policy.digest == DIGEST
        np.testing.assert_array_equal(policy.sample(*call), Plain().sample(*call))
        policy.close()
