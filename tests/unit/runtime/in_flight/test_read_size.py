"""How many entries a read may ask for, by what entries weigh and by what failed: pure."""

from __future__ import annotations

from hyperbus.runtime.in_flight.read_size import ANY, FIRST_SIZE, READ_BYTES, TRY_AGAIN, ReadSize

MIB = 1024 * 1024


def test_the_first_entries_are_taken_to_be_as_large_as_any() -> None:
    """So the first read fits whatever comes."""
    assert ReadSize().fits(16 * MIB) == 16 * MIB // FIRST_SIZE


def test_small_sizes_are_learnt_in_steps_and_large_ones_at_once() -> None:
    """Four reads lead from the largest entries to usual ones; one read leads back."""
    sizes, fits = ReadSize(), list[int]()
    for _ in range(8):
        sizes.saw(10, 2_000)
        fits.append(sizes.fits(READ_BYTES))
    assert fits[:2] == [64, 256]
    assert fits[-1] == READ_BYTES // 200
    sizes.saw(1, MIB)
    assert sizes.fits(READ_BYTES) == READ_BYTES // MIB


def test_no_read_asks_for_more_bytes_than_that_however_much_room_there_is() -> None:
    """A worker that may hold a gigabyte does not read it at once."""
    assert ReadSize().fits(1024 * MIB) == READ_BYTES // FIRST_SIZE


def test_after_a_failure_less_is_asked_for_until_it_passes() -> None:
    """Down to one entry; up again, but for long not as far as what failed."""
    sizes = ReadSize()
    sizes.failed(100)
    assert sizes.most == 25
    sizes.failed(25)
    assert sizes.most == 6
    for _ in range(10):
        sizes.passed(sizes.most)
    assert sizes.most == 24
    for _ in range(10):
        sizes.failed(sizes.most)
    assert sizes.most == 1
    for _ in range(TRY_AGAIN - 1):
        sizes.passed(1)
    assert sizes.most == 1
    for _ in range(60):
        sizes.passed(sizes.most)
    assert sizes.most >= ANY


def test_reads_that_bring_little_prove_nothing() -> None:
    """Only those count that brought as much as was asked for."""
    sizes = ReadSize()
    sizes.failed(100)
    for _ in range(1_000):
        sizes.passed(24)
    assert sizes.most == 25
