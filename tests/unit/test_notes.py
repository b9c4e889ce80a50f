"""Signed notes, checkpoints and cosignatures against every published vector found, and liars.

Sources: C2SP signed-note, tlog-checkpoint, tlog-cosignature; golang.org/x/mod/sumdb/note and /tlog (note_test.go);
checkpoints of sum.golang.org; github.com/transparency-dev/formats (note, log); sigsum-go (pkg/checkpoint).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable

import pytest

from edge_agent.notes import (
    COSIGNATURE,
    ED25519,
    MAX_NOTE,
    Checkpoint,
    Note,
    NoteError,
    Signature,
    Signer,
    Verifier,
    open_checkpoint,
    parse,
)

TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
GO = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_CHECKPOINTS = [
    (
        6476701,
        "mb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=",
        "Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEyVnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=",
    ),
    (
        30055305,
        "mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=",
        "Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=",
    ),
    (
        65664258,
        "WVVNVD2qx+fTq31zkj6UAqxT5X6HvGphGM+o8Thnbsg=",
        "Az3grligJmgX7KGyGPKybykNTh3VgsbLvUuvOwrM5zLVlulmFp2wdvbxOw74/gcNxURShXEpb7RXcs3+BYflYN+w0gQ=",
    ),
]


def from_log(size: int, root: str, signature: str) -> bytes:
    return f"go.sum database tree\n{size}\n{root}\n\n— sum.golang.org {signature}\n".encode()


SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
QUASIMODO = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


# -- signed-note -------------------------------------------------------------------------------------------------------


def test_the_note_of_the_specification() -> None:
    note = parse(FOO_NOTE.encode())
    assert note.text == "This is an example message.\n"
    assert Verifier.parse(FOO).verifies(note)
    assert Verifier.parse(FOO).vkey() == FOO


def test_a_text_may_have_empty_lines() -> None:
    note = parse(QUASIMODO.encode())
    assert note.text.splitlines()[2:] == ["", "ed è subito sera."]
    assert [(each.name, f"{each.key_hash:08x}", len(each.data)) for each in note.signatures] == [
        ("quasimodo.example/salvatore", "367ba04b", 64)
    ]
    assert note.encode() == QUASIMODO.encode()


def test_signing_gives_the_bytes_of_go() -> None:
    signer = Signer("PeterNeumann", PETER_SEED)
    assert signer.verifier.vkey() == PETER
    assert signer.sign(TEXT).decode() == TEXT + "\n" + PETER_LINE


def test_each_known_key_is_verified_and_others_are_ignored() -> None:
    peter, enoch = Verifier.parse(PETER), Verifier.parse(ENOCH)
    both = parse((TEXT + "\n" + PETER_LINE + ENOCH_LINE).encode())
    assert peter.verifies(both)
    assert enoch.verifies(both)
    assert Verifier.parse(GO).verifies(both) is False
    twice = parse((TEXT + "\n" + PETER_LINE * 2 + ENOCH_LINE * 2 + ENOCH_LINE[:60] + "ABCD" + ENOCH_LINE[60:]).encode())
    assert peter.verifies(twice)
    assert not enoch.verifies(twice)  # one of its signatures is wrong


def test_a_wrong_signature_is_not_verified() -> None:
    peter = Verifier.parse(PETER)
    assert not peter.verifies(parse((TEXT + "\n" + PETER_LINE[:60] + "ABCD" + PETER_LINE[60:]).encode()))
    assert not peter.verifies(parse(("x" + TEXT + "\n" + PETER_LINE).encode()))
    assert not peter.verifies(parse((TEXT + "\n" + PETER_LINE.replace("PeterNeumann", "CarmenSandiego")).encode()))
    assert not peter.verifies(parse((TEXT + "\n" + PETER_LINE.replace("x08g", "xxxx")).encode()))


@pytest.mark.parametrize(
    "bad",
    [
        TEXT,
        TEXT + "\n",
        TEXT + "\n" + PETER_LINE[:-1],
        "\x01" + TEXT + "\n" + PETER_LINE,
        TEXT.replace("\n", "\r\n") + "\n" + PETER_LINE,
        TEXT
        + "\n— Bad Name x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=",
        TEXT + "\n" + PETER_LINE + "Unexpected line.\n",
        TEXT + "\n" + PETER_LINE * 101,
        TEXT + "\n— example.org/log DEADB\n",
        TEXT + "\n— example.org/log DEAD\n",  # three bytes have no key hash
        TEXT + "\n— a+b AAAAAAAA\n",
        TEXT + "\n— a\u2003b AAAAAAAA\n",
        TEXT + "\n- example.org/log AAAAAAAA\n",
        TEXT + "\n—  AAAAAAAA\n",
        TEXT + "\n— name\n",
        TEXT + "\n— name AAAAAAB=\n",  # bits that no byte has
        TEXT + "\n— name AAAAAAA=AAAA\n",
        TEXT + "\n— name AAAA-_AA\n",
        "x" * MAX_NOTE + "\n\n" + PETER_LINE,
    ],
)
def test_what_is_no_note_is_refused(bad: str) -> None:
    with pytest.raises(NoteError):
        parse(bad.encode())


def test_not_utf8_is_refused() -> None:
    with pytest.raises(NoteError, match="UTF-8"):
        parse(b"\xff" + TEXT.encode() + b"\n" + PETER_LINE.encode())


def test_sixteen_large_signatures_are_taken() -> None:
    line = Signature("pq.example", 1, bytes(5000)).line()
    assert len(parse((TEXT + "\n" + line * 16).encode()).signatures) == 16


def test_every_mangled_key_is_refused() -> None:
    mangled = [PETER[i:j] for i in range(len(PETER)) for j in range(i + 1, len(PETER) + 1) if (i, j) != (0, len(PETER))]
    mangled += [PETER[:i] + chr(ord(PETER[i]) + 1) + PETER[i + 1 :] for i in range(len(PETER))]
    for vkey in ["", *mangled]:
        with pytest.raises(NoteError):
            Verifier.parse(vkey)


@pytest.mark.parametrize(
    "bad",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "bananas.sigstore.dev+12344556",
        "rekor.sigstore.dev+12345678+THIS_IS_NOT_BASE64!",
        "rekor.sigstore.dev+12345678+AwEB",
        "rekor.sigstore.dev+NOT_A_NUMBER+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l",
        PETER.replace("c74f20a3", "0xc74f2a"),
        PETER.replace("c74f20a3", "c7_4f20a"),
        "Peter Neumann" + PETER[12:],
        "\ud800" + PETER[12:],
    ],
)
def test_bad_keys_are_refused(bad: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(bad)


@pytest.mark.parametrize("bad", [None, 1, b"x\n\n", "x\n\n", [], {}, True])
def test_nonsense_has_the_one_error(bad: object) -> None:
    calls: list[Callable[[], object]] = [
        lambda: parse(bad),  # type: ignore[arg-type]
        lambda: Signer("name", bad),  # type: ignore[arg-type]
        lambda: Signer("name", bytes(32)).sign(bad if bad != "x\n\n" else "x"),  # type: ignore[arg-type]
        lambda: Verifier.parse(bad),  # type: ignore[arg-type]
        lambda: Verifier.of("name", bad),  # type: ignore[arg-type]
        lambda: Verifier.of(bad, bytes(32)),  # type: ignore[arg-type]
        lambda: open_checkpoint(bad, []),  # type: ignore[arg-type]
        lambda: Checkpoint.parse(bad),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(NoteError):
            call()


@pytest.mark.parametrize("bad", ["", "no newline", "a\tb\n", "a\rb\n", "\ud800\n", "x" * MAX_NOTE + "\n"])
def test_no_other_text_is_signed(bad: str) -> None:
    with pytest.raises(NoteError):
        Signer("name", bytes(32)).sign(bad)


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "root", "signature"), GO_CHECKPOINTS)
def test_checkpoints_of_go_s_checksum_database(size: int, root: str, signature: str) -> None:
    data = from_log(size, root, signature)
    found = open_checkpoint(data, [Verifier.parse(GO)], origin="go.sum database tree")
    assert found == Checkpoint("go.sum database tree", size, base64.b64decode(root))
    assert parse(data).encode() == data
    assert data.decode().startswith(found.text())
    for other in (data.replace(b"tree\n", b"tree\n1"), data.replace(b"go.sum", b"no.sum")):
        with pytest.raises(NoteError, match="wrong signature"):
            open_checkpoint(other, [Verifier.parse(GO)])
    with pytest.raises(NoteError, match="another log"):
        open_checkpoint(data, [Verifier.parse(GO)], origin="Go rocks but I might have the wrong ID")
    with pytest.raises(NoteError, match="not signed"):
        open_checkpoint(data, [Verifier.parse(PETER)])
    with pytest.raises(NoteError, match="not signed"):
        open_checkpoint(data, [])


def test_every_changed_bit_of_a_checkpoint_is_noticed() -> None:
    data, verifier = from_log(*GO_CHECKPOINTS[0]), Verifier.parse(GO)
    for place in range(len(data)):
        for bit in range(8):
            changed = data[:place] + bytes((data[place] ^ 1 << bit,)) + data[place + 1 :]
            with pytest.raises(NoteError):
                open_checkpoint(changed, [verifier])


def test_the_checkpoint_of_a_record() -> None:
    text = "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
    root = base64.b64decode("TszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=")
    assert Checkpoint("go.sum database tree", 123456789012, root).text() == text
    assert Checkpoint.parse(text) == Checkpoint("go.sum database tree", 123456789012, root)
    assert Checkpoint.parse(text + "JOE\n" * 1000).extensions == ("JOE",) * 1000


ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


@pytest.mark.parametrize(
    "bad",
    [
        "Head\n9944\n",
        f"\n9944\n{ROOT}\n",
        f"Log\n123\n{ROOT}",
        f"Log\nbananas\n{ROOT}\n",
        f"Log\n-34\n{ROOT}\n",
        f"Log\n+34\n{ROOT}\n",
        f"Log\n034\n{ROOT}\n",
        f"Log\n00\n{ROOT}\n",
        f"Log\n3_4\n{ROOT}\n",
        f"Log\n 34\n{ROOT}\n",
        f"Log\n0xabcdef\n{ROOT}\n",
        f"Log\n\u0663\n{ROOT}\n",  # a digit, not an ASCII one
        f"Log\n3438945738945739845734895735\n{ROOT}\n",
        f"Log\n9223372036854775808\n{ROOT}\n",
        "Log\n123\nThisIsn'tBase64\n",
        "Log\n123\nYmFuYW5hcw==\n",  # not a SHA-256
        "Log\n123\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBTOOBIG=\n",
        f"Log\n123\n{ROOT[:-2]}J=\n",
        f"Log\n123\n{ROOT}\n\n",
        f"Log\n123\n{ROOT}\n\nextension\n",
        f"Log\n123\n{ROOT}\nx\ty\n",
        "a" * 256 + f"\n1\n{ROOT}\n",
        "é" * 128 + f"\n1\n{ROOT}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(bad: str) -> None:
    with pytest.raises(NoteError):
        Checkpoint.parse(bad)


@pytest.mark.parametrize("origin", ["a", "a" * 255, "é" * 127 + "a", "example log+origin"])
@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_a_checkpoint_comes_back(origin: str, size: int) -> None:
    checkpoint = Checkpoint(origin, size, base64.b64decode(ROOT), ("extension",))
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    "bad", [Checkpoint("a\n1", 1, bytes(32)), Checkpoint("a", -1, bytes(32)), Checkpoint("a", 1, bytes(31))]
)
def test_a_checkpoint_that_would_not_come_back_has_no_text(bad: Checkpoint) -> None:
    with pytest.raises(NoteError):
        bad.text()


KEYS = [
    "Log+2271c621+AemuH5ooBpEPcr+W8onrjA1NfuzBVHdezakU81Ekarvs",
    "Known+451c786d+AXAQ0T7lbwuY4ABJ9/MYY9bWV3hmSyOGVt2x42NkmdUH",
    "KnownAgain+4893b26c+AQ+LR7BFF/F/dkpIBjBpSvT0crkteizuUkavAoGeaYMj",
    "Unknown+fdbb2e08+AWgRIYZ+8x1Vl+1Q+sR8zciNHiYI1SdlBjNw+RV0rots",
]
SEEDS = [
    "AdEIq9FLRQni54Wg68T96VJO+iayOaulswav2DUMKgvQ",
    "AQPRoE2+Z+Ed1HaHBA9F/FfracvcZ2rDU39kCecMEoci",
    "ARhZda/l25zjGZswYLDZsLNRzNpmv5wYTN9IoTr1OJ2+",
    "Aav2knTC6orbhXX8pMWuNiWgO+Wwk2DB+h1eU2Q1W1nU",
]


def many(*who: int, text: str = f"TestParseCheckpoint\n42\n{ROOT}\n") -> bytes:
    signers = [Signer(KEYS[one].split("+")[0], base64.b64decode(SEEDS[one])[1:]) for one in who]
    lines = [line for signer in signers for line in parse(signer.sign(text)).signatures]
    return Note(text, tuple(lines)).encode()


@pytest.mark.parametrize("number", range(4))
def test_keys_of_others_give_their_verifiers(number: int) -> None:
    signer = Signer(KEYS[number].split("+")[0], base64.b64decode(SEEDS[number])[1:])
    assert signer.verifier.vkey() == KEYS[number]


@pytest.mark.parametrize(
    ("who", "quorum"), [([0], 0), ([0, 1], 1), ([0, 1, 3], 1), ([2, 0, 1], 2), ([0, 1, 1], 1), ([0, 1, 2, 3], 2)]
)
def test_a_log_and_enough_of_the_others(who: list[int], quorum: int) -> None:
    log, *others = map(Verifier.parse, KEYS[:3])
    assert open_checkpoint(many(*who), [log], others, quorum).size == 42
    with pytest.raises(NoteError, match="are wanted"):
        open_checkpoint(many(*who), [log], others, quorum + 1)


@pytest.mark.parametrize("who", [[3], [1, 2]])
def test_others_do_not_stand_for_the_log(who: list[int]) -> None:
    log, *others = map(Verifier.parse, KEYS[:3])
    with pytest.raises(NoteError, match="not signed"):
        open_checkpoint(many(*who), [log], others)


def test_what_a_log_has_signed_may_be_no_checkpoint() -> None:
    data = many(0, text="if this is a valid checkpoint then I'll eat my hat\n")
    with pytest.raises(NoteError, match="checkpoint"):
        open_checkpoint(data, [Verifier.parse(KEYS[0])])


# -- cosignatures ------------------------------------------------------------------------------------------------------


def test_the_cosigned_checkpoint_of_the_specification() -> None:
    note = parse(SOFA.encode())
    assert note.encode() == SOFA.encode()
    assert Checkpoint.parse(note.text) == Checkpoint("example.com/behind-the-sofa", 20852163, base64.b64decode(ROOT))
    log, witness = note.signatures
    assert (log.name, len(log.data)) == ("example.com/behind-the-sofa", 64)
    assert (witness.name, f"{witness.key_hash:08x}") == ("witness.example.com/w1", "8d66cf3f")
    assert struct.unpack(">Q64s", witness.data)[0] == 1679315147


def test_a_native_key_of_a_witness() -> None:
    vkey = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert Verifier.parse(vkey).algorithm == COSIGNATURE
    assert Verifier.parse(vkey).vkey() == vkey


SIGSUM_SEED = bytes((17,)) + bytes(31)
SIGSUM = "sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69"
SIGSUM_NOTE = (
    f"{SIGSUM}\n10\nHA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"
    f"— {SIGSUM} gJ2ho0n8F8olcerUF1FFdv235A/5as/coWrpLrtE7ovMeP5whgwouYExowG/lTznxu6OUGjjt5yJQ6bXtTcf718MqAQ=\n"
)
WITNESSED = (
    "example.org/log\n10\nHA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"
    "— example.org/log "
    "DEADBEEFAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    "— example.org/witness "
    "yX8uUAAAAAAAAATSftMzceM8zssdZ9jin9SjwIxzx9iADMf63VqirX2hafol9RsqNqbofIz0LVRqHXI2kpEBSki5RTXFtxz1vo9+Cg==\n"
    "— example.org/witness "
    "ys8uUAAAAAAAAATSftMzceM8zssdZ9jin9SjwIxzx9iADMf63VqirX2hafol9RsqNqbofIz0LVRqHXI2kpEBSki5RTXFtxz1vo9+Cg==\n"
    "— example.org/witness-2 "
    "ys8uUAAAAAAAAATSftMzceM8zssdZ9jin9SjwIxzx9iADMf63VqirX2hafol9RsqNqbofIz0LVRqHXI2kpEBSki5RTXFtxz1vo9+Cg==\n"
)


def test_sigsum_s_checkpoint_and_cosignature() -> None:
    assert Signer(SIGSUM, SIGSUM_SEED).sign(parse(SIGSUM_NOTE.encode()).text) == SIGSUM_NOTE.encode()
    signer = Signer("example.org/witness", SIGSUM_SEED, COSIGNATURE)
    note = parse(WITNESSED.encode())
    assert signer.verifier.verifies(note)
    assert signer.verifier.time(note) == 1234
    assert signer.cosign(note, 1234) == note.signatures[2]


def test_a_cosignature_s_time_is_signed() -> None:
    log, witness = Signer("log", bytes(32)), Signer("witness", bytes((1,)) * 32, COSIGNATURE)
    note = parse(log.sign(Checkpoint("log", 3, bytes(32), ("extended",)).text()))
    first, second = witness.cosign(note, 1_700_000_000), witness.cosign(note, 1_700_000_100)
    both = Note(note.text, (*note.signatures, first, second))
    assert open_checkpoint(both.encode(), [log.verifier], [witness.verifier], 1).size == 3
    assert witness.verifier.time(both) == 1_700_000_100
    later = first._replace(data=(1_700_000_001).to_bytes(8, "big") + first.data[8:])
    with pytest.raises(NoteError, match="wrong signature in the name of witness"):
        open_checkpoint(Note(note.text, (*note.signatures, later)).encode(), [log.verifier], [witness.verifier])
    other = Note(note.text.replace("extended", "extendee"), (first,))
    assert not witness.verifier.verifies(other)  # extension lines are signed as well


def test_a_cosignature_is_no_signature_and_the_other_way_round() -> None:
    seed = bytes(32)
    plain, witness = Signer("name", seed), Signer("name", seed, COSIGNATURE)
    assert plain.verifier.key == witness.verifier.key
    assert plain.verifier.key_hash != witness.verifier.key_hash
    note = parse(plain.sign(Checkpoint("log", 0, bytes(32)).text()))
    assert not witness.verifier.verifies(note)
    disguised = note.signatures[0]._replace(key_hash=witness.verifier.key_hash)
    assert not witness.verifier.verifies(Note(note.text, (disguised,)))
    with pytest.raises(NoteError):
        witness.sign("text\n")
    with pytest.raises(NoteError):
        plain.cosign(note, 1)
    with pytest.raises(NoteError):
        plain.verifier.time(note)
    with pytest.raises(NoteError):
        witness.verifier.time(note)


@pytest.mark.parametrize("time", [-1, 2**63, 2**64])
def test_a_time_outside_of_the_format_is_refused(time: int) -> None:
    witness = Signer("witness", bytes(32), COSIGNATURE)
    with pytest.raises(NoteError):
        witness.cosign(Note(Checkpoint("log", 0, bytes(32)).text(), ()), time)


def test_the_same_key_under_two_names_is_one_witness() -> None:
    log, seed = Signer("log", bytes(32)), bytes((1,)) * 32
    one, two = Signer("one", seed, COSIGNATURE), Signer("two", seed, COSIGNATURE)
    note = parse(log.sign(Checkpoint("log", 3, bytes(32)).text()))
    data = Note(note.text, (*note.signatures, one.cosign(note, 1), two.cosign(note, 1))).encode()
    open_checkpoint(data, [log.verifier], [one.verifier, two.verifier], 1)
    with pytest.raises(NoteError, match="cosigned by 1 witnesses, 2 are wanted"):
        open_checkpoint(data, [log.verifier], [one.verifier, two.verifier], 2)


def test_only_known_kinds_of_keys() -> None:
    for algorithm in (0, 2, 3, 5, 6, 255):
        with pytest.raises(NoteError, match="another kind"):
            Verifier.of("name", bytes(32), algorithm)
    assert Verifier.of("name", bytes(32)).algorithm == ED25519
