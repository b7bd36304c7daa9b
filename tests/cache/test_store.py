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

from specinspect.cache.store import MAGIC, Name, Store

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
    path(store).write_bytes(path(store).read_bytes().replace(MAGIC, MAGIC.replace(b"1", b"0")))
    assert store.load(NAME) is None


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
