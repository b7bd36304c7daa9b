"""Entries on disk: whole or not at all, checked, bounded, nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import stat
import sys
import time
from pathlib import Path

import pytest

from specinspect.cache.store import MAGIC, Contents, Name, Store

BODY = b'{"any": "bytes"}' * 3
NAME = Name("ab" * 16, "01" * 16)
posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links of POSIX")


def name(number: int, head: str = "ab") -> Name:
    return Name(head * 16, f"{number:032x}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cache"), 1 << 20)


def path(store: Store, entry: Name = NAME) -> Path:
    return Path(store.root, "results", entry.head[:2], str(entry))


def test_what_is_saved_is_loaded(store: Store) -> None:
    assert store.load(NAME) is None
    assert not store.asked_before(NAME.head)
    store.save(NAME, BODY)
    assert store.load(NAME) == BODY
    assert store.asked_before(NAME.head)
    assert not store.asked_before("ab" * 15 + "ac")
    assert store.load(name(2)) is None
    assert pickle.loads(pickle.dumps(store)).load(NAME) == BODY
    store.save(NAME, b"")
    assert store.load(NAME) == b""


def test_damage_at_any_byte_is_noticed(store: Store) -> None:
    store.save(NAME, BODY)
    good = path(store).read_bytes()
    for at in range(len(good)):
        for wrong in (
            good[:at],
            good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :],
            good[:at] + b"x" + good[at:],
        ):
            path(store).write_bytes(wrong)
            assert store.load(NAME) is None, at
            assert not path(store).exists()  # it will not be read again
    path(store).write_bytes(good)
    assert store.load(NAME) == BODY


def test_an_entry_under_another_name_or_of_another_format_is_not_believed(store: Store) -> None:
    store.save(NAME, BODY)
    path(store).rename(path(store, name(7)))
    assert store.load(name(7)) is None
    store.save(NAME, BODY)
    path(store).write_bytes(path(store).read_bytes().replace(MAGIC, MAGIC.replace(b"2", b"1")))
    assert store.load(NAME) is None


def many(count: int) -> list[tuple[Name, bytes]]:
    return [(name(number, f"{number:02x}"), b"%d " % number * 300) for number in range(count)]


@pytest.mark.parametrize("links", [True, False])
def test_entries_that_are_saved_together_are_entries_of_their_own(
    links: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", none)
    everything = many(150)
    store.save_all(everything)
    for entry, body in everything:
        assert store.load(entry) == body
        assert store.asked_before(entry.head)
    assert store.load(name(3, "04")) is None
    held = store.contents()
    assert held.entries == 150
    assert (held.bytes < 150 * 4096 / 2) == links
    assert not list(Path(store.root).rglob(".part-*"))
    store.save_all([(everything[1][0], b"new"), (name(151), b"newer")])  # in place of the old, others stay
    assert [store.load(everything[i][0]) for i in (0, 1, 2)] == [everything[0][1], b"new", everything[2][1]]
    assert store.clear().entries == 151
    assert store.contents() == Contents(0, 0)


def test_damage_to_one_entry_of_a_file_is_no_damage_to_the_others(store: Store) -> None:
    everything = many(20)
    store.save_all(everything)
    file = path(store, everything[0][0])
    data = bytearray(file.read_bytes())
    data[data.index(everything[7][1]) + 5] ^= 1
    file.write_bytes(data)
    assert [store.load(entry) == body for entry, body in everything] == [i != 7 for i in range(20)]
    assert not path(store, everything[7][0]).exists()
    file.write_bytes(data[:-1])
    assert [i for i, (entry, _) in enumerate(everything) if store.load(entry) is None] == [7, 19]


def test_what_was_used_last_stays_with_the_file_it_is_in(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"), 200_000)
    for round_ in range(40):
        entries = [(name(10 * round_ + i, f"{i:02x}"), bytes(1000)) for i in range(8)]
        store.save_all(entries)
        os.utime(path(store, entries[0][0]), ns=(round_, round_))
        if round_:
            assert store.load(name(3, "03")) is not None  # used all the time
        assert store.contents().bytes <= 200_000 * 9 / 8
    assert store.load(entries[7][0]) is not None
    assert store.load(name(11, "01")) is None


def test_a_process_killed_while_it_gives_names_leaves_whole_entries(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def killed(source: str, target: str, **options: bool) -> None:
        if list(Path(store.root).rglob("03*-*")):
            raise KeyboardInterrupt
        link(source, target, **options)

    monkeypatch.setattr(os, "link", killed)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # who is killed does not clean up
    everything = many(10)
    with pytest.raises(KeyboardInterrupt):
        store.save_all(everything)
    monkeypatch.undo()
    kept = [store.load(entry) for entry, _ in everything]
    assert kept == [None, *(body for _, body in everything[1:4]), *[None] * 6]
    (part,) = Path(store.root).rglob(".part-*")
    os.utime(part, (time.time() - 7200, time.time() - 7200))
    Store(store.root, store.limit).save(name(2), BODY)
    assert not part.exists()
    assert store.load(everything[2][0]) == everything[2][1]


def test_the_size_is_bounded_and_what_was_used_last_stays(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"), 200_000)  # 48 blocks
    for number in range(200):
        store.save(name(number, f"{number % 7:02x}"), bytes(2000))
        # Time stamps in the past, in order: the clock of the file system may be too coarse.
        os.utime(path(store, name(number, f"{number % 7:02x}")), ns=(number, number))
        if number > 3:
            assert store.load(name(3, "03")) is not None  # used all the time
        assert store.contents().bytes <= 200_000 * 9 / 8
    assert store.load(name(199, f"{199 % 7:02x}")) is not None
    assert store.load(name(4, "04")) is None
    held = store.contents()
    assert held.entries == held.bytes // 4096 >= 48 * 0.8 - 1


def test_an_entry_that_would_fill_the_cache_is_not_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"), 10_000)
    store.save(NAME, bytes(5000))
    assert store.load(NAME) is None


def test_remains_of_killed_processes_go(store: Store) -> None:
    store.save(NAME, BODY)
    old, new = path(store).with_name(".part-old"), path(store).with_name(".part-new")
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    Store(store.root, store.limit).save(name(2), BODY)
    assert not old.exists()
    assert new.exists()  # perhaps of a process that is writing it now
    assert store.contents().entries == 2


def test_clear_removes_entries_and_nothing_else(store: Store, tmp_path: Path) -> None:
    assert store.clear().entries == 0
    for number in range(5):
        store.save(name(number), BODY)
    mine = [path(store).with_name("notes.txt"), Path(store.root, "results", "mine"), tmp_path / "cache" / "x"]
    for file in mine:
        file.write_text("mine")
    path(store).with_name(".part-1").write_text("half")
    removed = store.clear()
    assert removed.entries == 5
    assert removed.bytes == 5 * 4096
    assert store.contents().entries == 0
    assert all(file.read_text() == "mine" for file in mine)
    assert not path(store).with_name(".part-1").exists()


@posix
def test_links_lead_nowhere(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    other = Store(str(outside), 1 << 20)
    other.save(NAME, BODY)
    other.save(name(1, "cd"), BODY)
    store.save(name(2), BODY)

    path(store).symlink_to(path(other))  # an entry
    Path(store.root, "results", "cd").symlink_to(Path(other.root, "results", "cd"))  # a folder of entries
    assert store.load(NAME) is None
    assert store.load(name(1, "cd")) is None
    with pytest.raises(OSError, match="a link"):
        store.save(name(3, "cd"), BODY)
    assert store.contents().entries == 1
    assert store.clear().entries == 1
    assert other.contents().entries == 2
    store.save(NAME, BODY)  # takes the place of the link, not of what it points to
    assert not path(store).is_symlink()

    Path(tmp_path / "third").mkdir()
    Path(tmp_path / "third" / "results").symlink_to(Path(other.root, "results"))
    third = Store(str(tmp_path / "third"), 1 << 20)
    assert third.load(NAME) is None
    assert third.clear().entries == 0
    with pytest.raises(OSError, match="a link"):
        third.save(NAME, BODY)


@posix
def test_a_pipe_in_place_of_an_entry_does_not_hang(store: Store) -> None:
    store.save(name(1), BODY)
    os.mkfifo(path(store))
    assert store.load(NAME) is None


@posix
def test_only_the_owner_may_look(store: Store) -> None:
    before = os.umask(0)
    try:
        store.save(NAME, BODY)
    finally:
        os.umask(before)
    for folder in (Path(store.root), Path(store.root, "results"), path(store).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path(store).stat().st_mode) == 0o600
    store.check()
    Path(store.root).chmod(0o770)
    with pytest.raises(PermissionError, match="others may write"):
        store.check()


def _write(root: str, rounds: int) -> None:
    store = Store(root, 1 << 20)
    for number in range(rounds):
        store.save(name(number % 10), b"%d" % (number % 10) * 500)
        found = store.load(name((number + 5) % 10))
        assert found in {None, b"%d" % ((number + 5) % 10) * 500}
        if number % 50 == 49:
            store.clear()


def test_several_processes_write_the_same_entries(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(store.root, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for number in range(10):
        assert store.load(name(number)) in {None, b"%d" % number * 500}
    assert not list(Path(store.root).rglob(".part-*"))
