import pytest

from fopro_lab.data.pack import Chunk, Journal

HEAD = {"rows": 100}
CHUNKS = {0: Chunk(5, {}), 2: Chunk(2**32 - 1, {70: "cut\nin two", 71: "ümlaut"})}


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "a.journal", HEAD)
    made.start({0: CHUNKS[0]})
    with made:
        made.add(2, CHUNKS[2])
    return made


def test_journal_returns_what_was_added(journal):
    assert journal.read() == CHUNKS
    assert Journal(journal.path.with_name("b"), HEAD).read() == {}


def test_journal_of_something_else_is_not_read(journal):
    assert Journal(journal.path, {"rows": 101}).read() == {}


def test_journal_that_is_cut_anywhere_gives_whole_lines_alone(journal):
    whole = journal.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    for length in range(len(whole)):
        journal.path.write_bytes(whole[:length])
        lines = sum(end <= length for end in ends)
        assert len(journal.read()) == max(lines - 1, 0)


def test_journal_with_a_wrong_byte_anywhere_is_believed_up_to_there(journal):
    whole = journal.path.read_bytes()
    for place in range(len(whole)):
        journal.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        lines = whole[:place].count(b"\n")
        assert journal.read() == dict(list(CHUNKS.items())[: max(lines - 1, 0)])


def test_journal_adds_after_a_new_start(journal):
    journal.start({2: CHUNKS[2]})
    with journal:
        journal.add(0, Chunk(9, {}))
    assert journal.read() == {2: CHUNKS[2], 0: Chunk(9, {})}
