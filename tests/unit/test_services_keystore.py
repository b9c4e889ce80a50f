"""The identity's files: those of earlier releases, a power cut at every write, sealed keys."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.services import documents, jws, keyfile, keystore, rotation, sealing
from edge_agent.services.errors import StartError
from edge_agent.services.keystore import KeyStore
from edge_agent.services.sealing import Sealing

FIXTURES = Path(__file__).parents[1] / "fixtures/identity"
PLAIN, SEALED = keyfile.PLAIN, Sealing(b"s" * 32, "/run/credentials/identity")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def load(home: Path, seal: Sealing = PLAIN, node: str | None = None) -> KeyStore:
    return KeyStore(str(home), seal, node, 1_800_000_000.0, lambda: 1_800_000_000)


def rotate(store: KeyStore) -> None:
    fresh = store.fresh()
    store.change(rotation.rotate(store.document, store.after, fresh, 0, 0), fresh)


def names(home: Path) -> set[str]:
    return {entry.name for entry in home.iterdir()}


FILES = {keystore.CURRENT, keystore.NEXT, keystore.DOCUMENT}


def test_the_first_start_makes_two_keys_and_a_document(home: Path) -> None:
    store = load(home)
    assert names(home) == FILES
    assert store.document.sequence == 1
    assert documents.parse((home / keystore.DOCUMENT).read_text().strip()) == store.document
    assert store.document.node == f"node-{store.current.key[:8].hex()}"
    assert load(home).text == store.text, "the same after a restart, to the last byte"
    for name in (keystore.CURRENT, keystore.NEXT):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_the_key_of_an_earlier_release_is_taken_over_and_left_as_it_is(home: Path) -> None:
    shutil.copy(FIXTURES / "identity.key-0.1.0", home / keystore.CURRENT)
    (home / keystore.CURRENT).chmod(0o600)
    before = (home / keystore.CURRENT).read_bytes()
    store = load(home)
    assert store.current.key == jws.Signer(bytes(range(32))).key
    assert store.document.node == "node-03a107bff3ce10be", "as that release named itself"
    assert store.created == 1_764_030_000
    assert (home / keystore.CURRENT).read_bytes() == before


def test_an_earlier_release_finds_the_current_key_where_it_looks_for_it(home: Path) -> None:
    store = load(home)
    for _ in range(2):
        rotate(store)
        found = keyfile.load_or_make(str(home / "identity.key"), "ed25519", 44, lambda: "", 0.0)
        assert jws.Signer(keystore._seed("", found.text)).key == store.current.key


def test_a_rotation_is_on_disk_and_keeps_the_name(home: Path) -> None:
    store = load(home)
    first, after = store.current.key, store.after.key
    rotate(store)
    assert (store.current.key, store.document.previous[0].key) == (after, first)
    assert names(home) == FILES, "the secret of the old key is gone"
    again = load(home)
    assert (again.text, again.document.node) == (store.text, f"node-{first[:8].hex()}")
    assert again.after.key == store.after.key


class PowerCutError(Exception):
    """Nothing after this happens."""


def cut_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    left = [calls]

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object) -> None:
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            real(*args)

        return call

    for name in ("rename", "unlink"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("seal", [PLAIN, SEALED])
def test_a_power_cut_anywhere_leaves_the_keys_of_before_or_after(home: Path, seal: Sealing) -> None:
    (home / "a").mkdir(0o700)
    store = load(home / "a", seal)
    first, after = store.current.key, store.after.key
    outcomes = []
    for calls in range(20):
        place = home / str(calls)
        shutil.copytree(home / "a", place)
        with pytest.MonkeyPatch.context() as patch:
            tried = load(place, seal)
            cut_after(patch, calls)
            try:
                rotate(tried)
                done = True
            except PowerCutError:
                done = False
        found = load(place, seal)
        assert names(place) <= FILES | {f"{keystore.FRESH}.new", f"{keystore.DOCUMENT}.new"}
        assert found.current.key in (first, after)
        assert found.document.sequence == (1 if found.current.key == first else 2)
        rotate(found)  # and it goes on
        outcomes.append((done, found.document.sequence))
    assert outcomes[0] == (False, 2)
    assert outcomes[-1] == (True, 3)
    assert (False, 3) in outcomes, "a cut behind the document"


def test_a_power_cut_at_the_first_start_is_made_up_for(home: Path) -> None:
    for calls in range(6):
        place = home / str(calls)
        place.mkdir(0o700)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, calls)
            with contextlib.suppress(PowerCutError):
                load(place)
        assert load(place).document.sequence == 1
        assert names(place) <= FILES | {f"{name}.new" for name in FILES}


def test_a_secret_that_is_missing_is_said_or_replaced(home: Path) -> None:
    store = load(home)
    lost = store.after.key
    (home / keystore.NEXT).unlink()
    again = load(home)
    assert again.document.revokes(lost)
    assert again.after.key != lost
    documents.update(store.document, again.document)
    assert names(home) == FILES
    (home / keystore.CURRENT).unlink()
    with pytest.raises(StartError, match="secret of its current key is missing"):
        load(home)
    assert (home / keystore.DOCUMENT).exists()


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100, b"a.b.c", b"x" * 99_999])
def test_a_document_that_is_none_is_refused_and_left_alone(home: Path, content: bytes) -> None:
    load(home)
    (home / keystore.DOCUMENT).write_bytes(content)
    with pytest.raises(StartError, match=r"identity\.document.*; fix: restore it"):
        load(home)
    assert (home / keystore.DOCUMENT).read_bytes() == content


def test_another_name_is_a_new_document(home: Path) -> None:
    first = load(home, node="kitchen").document
    assert first.node == "kitchen"
    assert load(home, node="kitchen").document == first
    renamed = load(home, node="cellar").document
    assert (renamed.node, renamed.sequence, renamed.current) == ("cellar", 2, first.current)
    assert load(home).document == renamed, "without one it keeps its name"


# -- sealed


def test_keys_become_sealed_where_there_is_a_credential(home: Path) -> None:
    store = load(home)
    again = load(home, SEALED)
    assert again.text == store.text
    for name in (keystore.CURRENT, keystore.NEXT):
        kind, text, _ = (home / name).read_text().split()
        assert kind == "ed25519-sealed"
        assert len(text) == sealing.length(keystore.LENGTH)
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    rotate(again)
    assert load(home, SEALED).current.key == again.current.key


def test_sealed_keys_cannot_be_opened_without_their_credential(home: Path) -> None:
    load(home, SEALED)
    before = (home / keystore.CURRENT).read_bytes()
    with pytest.raises(StartError, match=r"it is sealed, and there is no credential /run/x.*; fix: give edge-agent"):
        load(home, Sealing(None, "/run/x"))
    with pytest.raises(StartError, match=r"not sealed by the credential /y; fix: restore the credential"):
        load(home, Sealing(b"t" * 32, "/y"))
    assert (home / keystore.CURRENT).read_bytes() == before


def test_a_sealed_key_of_which_a_bit_has_changed_is_refused(home: Path) -> None:
    load(home, SEALED)
    path = home / keystore.CURRENT
    kind, text, created = path.read_text().split()
    path.write_text(f"{kind} {text[:40]}{'A' if text[40] != 'A' else 'B'}{text[41:]} {created}\n")
    with pytest.raises(StartError, match="cannot open the key"):
        load(home, SEALED)


def credential(path: Path, mode: int = 0o400, size: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"s" * size)
    path.chmod(mode)
    return path


def test_the_credential_is_looked_for_where_systemd_and_the_drop_in_put_it(tmp_path: Path) -> None:
    run = tmp_path / "run/bundled/identity"
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    none = sealing.find("identity", str(run), environ)
    assert not none.active
    assert none.where == f"{tmp_path}/credentials/edge-agent.identity or {tmp_path}/run/credentials/identity"
    copied = credential(tmp_path / "run/credentials/identity")
    assert sealing.find("identity", str(run), environ).where == str(copied)
    given = credential(tmp_path / "credentials/edge-agent.identity", 0o440)  # 0440: the mask of an ACL
    assert sealing.find("identity", str(run), environ).where == str(given)
    assert sealing.find("identity", str(run), {"CREDENTIALS_DIRECTORY": "relative"}).where == str(copied)


@pytest.mark.parametrize("mode", [0o404, 0o460, 0o402])
def test_a_credential_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    credential(tmp_path / "run/credentials/identity", mode)
    with pytest.raises(StartError, match="others have access"):
        sealing.find("identity", str(tmp_path / "run/bundled/identity"), {})


@pytest.mark.parametrize("size", [0, 15, 4097])
def test_a_credential_of_no_useful_size_is_refused(tmp_path: Path, size: int) -> None:
    credential(tmp_path / "run/credentials/identity", size=size)
    with pytest.raises(StartError, match=f"{size} bytes"):
        sealing.find("identity", str(tmp_path / "run/bundled/identity"), {})
