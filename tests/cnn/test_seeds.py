from __future__ import annotations

import hashlib

from cnn.seeds import derive_seed


def test_the_seed_is_the_first_63_bits_of_a_hash_of_its_place() -> None:
    digest = hashlib.blake2b(b'[7, "order", 3, 12]', digest_size=8).hexdigest()
    assert derive_seed(7, "order", 3, 12) == int(digest, 16) // 2


def test_seeds_differ_by_seed_purpose_and_place() -> None:
    positions: list[tuple[int, ...]] = [(), (0,), (1,), (10,), (0, 1), (1, 0)]
    seeds = {derive_seed(seed, purpose, *at) for seed in (0, 1) for purpose in ("a", "b") for at in positions}
    assert len(seeds) == 24
