"""A Qdrant server that is killed, silent, emptied or put back to an older copy; its key and its certificate.

Every trouble is `MemoryUnavailable`, never fewer neighbours, and the same store goes on when the trouble is over.
"""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import threading
import time

import pytest
from memory_model import EPOCH, plain
from servers.qdrant import own_server
from store_contract import Asker
from test_qdrant_memory_store import Life, assert_same, everything

from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.engine import EngineError
from memory_service.qdrant.memory_store import QdrantMemoryStore
from memory_service.qdrant.server import ServerEngine
from memory_service.sqlite_store import SqliteMemoryStore
from schemas.errors import MemoryUnavailable

_BACK_S = 20


@pytest.fixture
def server():
    """A server of the test's own."""
    server = own_server()
    yield server
    server.close()


@pytest.fixture
def opened():
    """What has to be closed at the end."""
    stores = []
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def open_store(server, vectoriser, opened):
    def open_(create=False, deadline=5.0):
        engine = ServerEngine(server.url, deadline=deadline)
        opened.append(QdrantMemoryStore(engine, vectoriser, EPOCH, create=create))
        return opened[-1]

    return open_


@pytest.fixture
def exact(tmp_path, vectoriser):
    store = SqliteMemoryStore(tmp_path / "exact.db", vectoriser, EPOCH)
    yield store
    store.close()


def in_the_end(question):
    """What a question gives once the server can be reached again, be it an answer or a refusal."""
    deadline = time.monotonic() + _BACK_S
    while True:
        try:
            return question()
        except MemoryUnavailable as error:
            if "can't be reached" not in error.message or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def ask(store, vectoriser, version):
    return lambda: plain(Asker(store, vectoriser).ask(version=version))


def test_a_killed_server_is_unavailable_and_the_same_store_goes_on_after_its_restart(server, open_store, vectoriser):
    writer, worker, life = open_store(create=True), open_store(), Life(31)
    events = life.events(40)
    writer.apply(events[:30])
    before = ask(worker, vectoriser, 30)()
    server.kill()
    for question in (ask(worker, vectoriser, 30), worker.watermark, worker.version):
        with pytest.raises(MemoryUnavailable, match="can't be reached") as caught:
            question()
        assert caught.value.where == server.url and "lumyn doctor" in caught.value.help
    with pytest.raises(MemoryUnavailable):
        writer.apply(events)
    server.start()
    assert in_the_end(ask(worker, vectoriser, 30)) == before, "what was written survives kill -9"
    assert in_the_end(lambda: writer.apply(events)).version == 40
    assert worker.watermark().version == 40


def test_a_server_killed_while_it_takes_labels_in_holds_all_of_each_version_or_none(
    server, open_store, exact, vectoriser
):
    life = Life(37)
    events = life.events(3000, again=0.2)
    writer = open_store(create=True)
    failed = threading.Event()

    def write() -> None:
        try:
            for start in range(0, 3000, 50):
                writer.apply(events[start : start + 50])
        except MemoryUnavailable:
            failed.set()

    thread = threading.Thread(target=write)
    thread.start()
    worker = open_store()
    while worker.version() < 500:
        time.sleep(0.01)
    server.kill()
    thread.join()
    assert failed.is_set(), "the server was killed too late to matter"
    server.start()
    stands = in_the_end(worker.watermark).version
    assert 500 <= stands < 3000
    exact.apply(events[:stands])
    assert everything(worker) == everything(exact)
    open_store(create=True).apply(events)
    exact.apply(events)
    assert everything(worker) == everything(exact)
    assert_same(worker, exact, life.searches(vectoriser, 40))


def test_a_silent_server_is_unavailable_at_the_deadline_and_asked_again_later(server, open_store, vectoriser):
    open_store(create=True).apply(Life(31).events(20))
    worker = open_store(deadline=0.5)
    before = ask(worker, vectoriser, 20)()
    server.pause()
    try:
        with pytest.raises(MemoryUnavailable, match=r"within 0\.5 s"):
            ask(worker, vectoriser, 20)()
    finally:
        server.resume()
    assert in_the_end(ask(worker, vectoriser, 20)) == before


def test_a_server_restarted_empty_is_unavailable_until_the_label_agent_filled_it_again(server, open_store, vectoriser):
    writer, worker, events = open_store(create=True), open_store(), Life(31).events(40)
    writer.apply(events)
    before = ask(worker, vectoriser, 40)()
    server.kill()
    shutil.rmtree(server.storage)
    server.start()

    with pytest.raises(MemoryUnavailable, match="collection") as caught:
        in_the_end(ask(worker, vectoriser, 40))
    assert "lumyn memory rebuild" in caught.value.help
    with pytest.raises(MemoryUnavailable):
        ask(open_store(), vectoriser, 0)()
    with pytest.raises(MemoryUnavailable, match="collection"):
        writer.apply(events)
    restarted = open_store(create=True)
    with pytest.raises(MemoryUnavailable, match="older copy"):
        worker.watermark()
    restarted.apply(events)
    assert ask(worker, vectoriser, 40)() == before


def test_a_server_put_back_to_an_older_copy_is_unavailable_until_it_has_caught_up(
    server, open_store, exact, vectoriser
):
    writer, worker, life = open_store(create=True), open_store(), Life(41)
    early, late = life.events(30, again=0.6), life.events(30, again=0.8)
    writer.apply(early)
    server.stop()
    copy = server.folder / "copy"
    shutil.copytree(server.storage, copy)
    server.start()
    in_the_end(lambda: writer.apply(late))
    exact.apply(early + late)
    assert worker.watermark().version == 60
    server.stop()
    shutil.rmtree(server.storage)
    copy.rename(server.storage)
    server.start()
    with pytest.raises(MemoryUnavailable, match="after 60: an older copy was put back") as caught:
        in_the_end(ask(worker, vectoriser, 60))
    assert "lumyn memory rebuild" in caught.value.help
    with pytest.raises(MemoryUnavailable, match="an older copy was put back"):
        writer.apply(life.events(1))
    restarted = open_store(create=True)
    assert restarted.watermark().version == 30
    restarted.apply(late)
    assert everything(worker) == everything(exact)
    assert_same(worker, exact, life.searches(vectoriser, 20, newest=60))


def test_an_edge_folder_put_back_to_an_older_copy_catches_up_from_its_watermark(tmp_path, exact, vectoriser, opened):
    def open_store():
        opened.append(QdrantMemoryStore(EdgeEngine(tmp_path / "edge"), vectoriser, EPOCH, create=True))
        return opened[-1]

    life = Life(43)
    early, late = life.events(30, again=0.6), life.events(30, again=0.8)
    store = open_store()
    store.apply(early)
    store.close()
    shutil.copytree(tmp_path / "edge", tmp_path / "copy")
    store = open_store()
    store.apply(late)
    store.close()
    shutil.rmtree(tmp_path / "edge")
    (tmp_path / "copy").rename(tmp_path / "edge")
    store = open_store()
    assert store.watermark().version == 30
    with pytest.raises(MemoryUnavailable, match="stands at version 30, asked for 60"):
        ask(store, vectoriser, 60)()
    store.apply(late)
    exact.apply(early + late)
    assert everything(store) == everything(exact)
    assert_same(store, exact, life.searches(vectoriser, 20))


@pytest.mark.parametrize("older", ["lumyn-memory", "lumyn-memory-labels"])
def test_edge_collections_from_copies_of_different_times_never_answer_wrongly(
    tmp_path, exact, vectoriser, opened, older
):
    def open_store():
        opened.append(QdrantMemoryStore(EdgeEngine(tmp_path / "edge"), vectoriser, EPOCH, create=True))
        return opened[-1]

    life = Life(47)
    early, late = life.events(30, again=0.6), life.events(30, again=0.8)
    store = open_store()
    store.apply(early)
    store.close()
    shutil.copytree(tmp_path / "edge" / older, tmp_path / "copy")
    store = open_store()
    for one in late:
        store.apply([one])
    store.close()
    shutil.rmtree(tmp_path / "edge" / older)
    (tmp_path / "copy").rename(tmp_path / "edge" / older)
    with pytest.raises(MemoryUnavailable) as caught:
        open_store().apply(late + life.events(5, again=1))
    assert "lumyn memory rebuild" in caught.value.help


# who may ask


def test_an_api_key_is_asked_for_sent_and_never_shown(vectoriser):
    server = own_server({"QDRANT__SERVICE__API_KEY": "s3cret-key"})
    try:
        engine = ServerEngine(server.url, api_key="s3cret-key")
        engine.ensure_collection("c", 4, {})
        assert engine.count("c") == 0
        engine.close()
        for key in (None, "wr0ng-key"):
            other = ServerEngine(server.url, api_key=key)
            with pytest.raises(EngineError, match="refused the API key") as caught:
                other.count("c")
            shown = str(caught.value) + repr(caught.value) + repr(other) + other.where
            assert "s3cret" not in shown and "wr0ng" not in shown
            other.close()
    finally:
        server.close()


def test_tls_is_checked_against_the_certificate_given(tmp_path):
    certificate, key = self_signed()
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    server = own_server(
        {
            "QDRANT__SERVICE__ENABLE_TLS": "true",
            "QDRANT__TLS__CERT": str(tmp_path / "cert.pem"),
            "QDRANT__TLS__KEY": str(tmp_path / "key.pem"),
        }
    )
    try:
        url = server.url.replace("http:", "https:")
        engine = ServerEngine(url, ca_certificate=certificate)
        engine.ensure_collection("c", 4, {})
        assert engine.exists("c")
        engine.close()
        for address, trusted in ((url, None), (url, self_signed()[0]), (server.url, None)):
            other = ServerEngine(address, ca_certificate=trusted, deadline=2)
            with pytest.raises(EngineError, match=r"can't be reached|within"):
                other.exists("c")
            other.close()
    finally:
        server.close()


def self_signed() -> tuple[bytes, bytes]:
    """A certificate for the loopback, and its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "qdrant")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
