"""Files that are torn, damaged, cut, replaced or deleted while somebody looks at them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hrm_engine.store.reader import MetricsReader
from hrm_engine.store.tail import LineTail
from tests.store.rows import line, points, read, steps


@settings(max_examples=40, deadline=None)
@given(
    cut=st.integers(min_value=0, max_value=10_000),
    looks=st.lists(st.integers(min_value=0, max_value=10_000), max_size=4),
)
def test_after_any_truncation_all_whole_rows_are_there(
    tmp_path_factory: pytest.TempPathFactory, cut: int, looks: list[int]
) -> None:
    """Also when the reader looks at the file at any moments while it grows to that length."""
    content = b"".join(line(step=step, loss=step / 3, text='ü😀"\n\\') for step in range(12))
    cut = cut % (len(content) + 1)
    path = tmp_path_factory.mktemp("cut") / "m.jsonl"
    reader = MetricsReader(path)
    total = 0
    for length in [*sorted(look % (cut + 1) for look in looks), cut]:
        path.write_bytes(content[:length])
        result = reader.refresh()
        assert not result.replaced
        total += result.new_rows
    # A row is whole with its last brace; its newline may be missing.
    expected = content[:cut].count(b"\n") + content[:cut].endswith(b"}")
    assert steps(reader) == list(range(expected))
    assert (total, reader.skipped_lines) == (expected, 0)


def test_a_last_row_without_its_newline_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(line(step=1, loss=1.0) + line(step=2, loss=2.0)[:-1])
    reader = MetricsReader(path)
    assert reader.refresh().new_rows == 2
    with path.open("ab") as file:
        file.write(b"\n" + line(step=3, loss=3.0))
    assert reader.refresh().new_rows == 1
    assert steps(reader) == [1, 2, 3]


def test_a_torn_row_replaced_by_one_that_ends_at_the_same_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    row = line(step=2, loss=2.0)
    torn = line(step=2, loss=2.0, text="never finished")[: len(row)]
    path.write_bytes(line(step=1, loss=1.0) + torn)
    reader = MetricsReader(path)
    assert (reader.refresh().new_rows, reader.refresh().new_rows) == (1, 0)
    path.write_bytes(line(step=1, loss=1.0) + row)
    assert reader.refresh().new_rows == 1


def test_a_line_beyond_the_bound_is_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "tail"
    path.write_bytes(b"one\n" + b"x" * 1000 + b"\ntwo\n" + b"y" * 500)
    tail = LineTail(path, block_bytes=64, max_line_bytes=300)
    with path.open("rb") as file:
        assert b"".join(tail.blocks(file)) == b"one\ntwo\n"
    assert tail.overlong_lines == 1
    with path.open("ab") as file:
        file.write(b"y\nthree\n")
    with path.open("rb") as file:
        assert not tail.begin(file)
        assert b"".join(tail.blocks(file)) == b"three\n"
    assert tail.overlong_lines == 2


@settings(max_examples=30, deadline=None)
@given(garbage=st.lists(st.binary(max_size=30) | st.text(max_size=30).map(str.encode), max_size=5))
@example(garbage=[b"\x00" * 20, b"\xff\xfe", b"[1, 2]", b"12", b"null", b'"text"', b'{"a": }', b"{", b"\r", b"   "])
@example(garbage=[b"[" * 100_000, b'{"a":' * 50_000])
def test_garbage_is_counted_and_hides_nothing(tmp_path_factory: pytest.TempPathFactory, garbage: list[bytes]) -> None:
    junk = [piece for block in garbage for piece in block.split(b"\n")]
    junk = [piece for piece in junk if not piece.strip().startswith(b"{") or piece.count(b"{") != piece.count(b"}")]
    content = line(step=1, loss=1.0) + b"".join(piece + b"\n" for piece in junk) + line(step=2, loss=2.0)
    reader = read(tmp_path_factory.mktemp("junk") / "m.jsonl", content)
    assert points(reader.series("loss")) == [(1, 1.0), (2, 2.0)]
    blank = sum(not piece.decode("utf-8", errors="replace").strip() for piece in junk)
    assert reader.skipped_lines == len(junk) - blank


def test_byte_order_mark_carriage_returns_and_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"")
    reader = MetricsReader(path)
    assert reader.refresh().new_rows == 0
    assert (reader.events, reader.names(), len(reader.series("loss")), len(reader.rows("train"))) == ([], [], 0, 0)
    path.write_bytes(b"\xef\xbb\xbf" + line(step=1, loss=1.0).replace(b"\n", b"\r\n") + line(step=2, loss=2.0))
    assert reader.refresh().new_rows == 2
    assert points(reader.series("loss")) == [(1, 1.0), (2, 2.0)]
    with path.open("ab") as file:
        file.write(line(step=3, loss=3.0))
    result = reader.refresh()
    assert (result.new_rows, result.replaced, reader.skipped_lines) == (1, False, 0)


def test_a_line_of_ten_megabytes_arrives_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    long = line("sample", 2, text="é" * 5_000_000)
    half = len(long) // 2
    path.write_bytes(line(step=1, loss=1.0) + long[:half])
    reader = MetricsReader(path)
    assert reader.refresh().new_rows == 1
    with path.open("ab") as file:
        file.write(long[half:] + line(step=3, loss=3.0))
    assert reader.refresh().new_rows == 2
    assert reader.rows("sample")["text"].str.len().tolist() == [5_000_000]
    assert points(reader.series("loss")) == [(1, 1.0), (3, 3.0)]


def test_a_file_that_was_cut_replaced_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    reader = MetricsReader(path)
    result = reader.refresh()
    assert result.missing
    assert str(path) in result.message

    def fresh(loss: float, number: int) -> bytes:
        return b"".join(line(step=step, loss=loss) for step in range(number))

    path.write_bytes(fresh(1.0, 5) + b"garbage\n")
    assert not reader.refresh().replaced
    path.write_bytes(fresh(1.0, 3))
    result = reader.refresh()
    assert (result.replaced, result.new_rows, len(steps(reader)), reader.skipped_lines) == (True, 3, 3, 0)
    assert "again" in result.message
    path.rename(tmp_path / "m.1.jsonl")
    result = reader.refresh()
    assert (result.missing, len(steps(reader))) == (True, 3)
    path.write_bytes(fresh(2.0, 50))  # longer than before, so that its size alone gives nothing away
    result = reader.refresh()
    assert (result.replaced, result.new_rows, result.missing) == (True, 50, False)
    assert set(reader.series("loss")["last"]) == {2.0}
    path.write_bytes(b"")
    assert reader.refresh().replaced
    assert reader.events == []
    assert not reader.refresh().replaced
    path.unlink()
    path.mkdir()
    assert reader.refresh().missing


def test_a_file_cut_in_the_middle_and_grown_beyond_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    begin = b"".join(line(step=step, fill="x" * 100) for step in range(100))
    reader = read(path, begin + line(step=100, loss=1.0))
    path.write_bytes(begin + line(step=100, loss=2.0) * 3)
    assert reader.refresh().replaced
    assert reader.series("loss")["last"].tolist() == [2.0]


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_an_impossible_path_is_a_message(path: str) -> None:
    result = MetricsReader(Path(path)).refresh()
    assert result.missing
    assert result.message


def test_memory_has_a_bound_and_passing_it_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with path.open("wb") as file:
        for step in range(40):
            file.write(line("sample", step, text=str(step) * 1_000_000))
    reader = MetricsReader(path, memory_limit="32MB")
    result = reader.refresh()
    assert result.missing
    assert "memory" in result.message
    assert reader.events in ([], ["sample"])
