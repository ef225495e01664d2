"""How many samples an estimate is of."""

from pathlib import Path

import pytest
import webdataset

from distillcache.cache.estimate import index_some


@pytest.mark.parametrize(("shards", "indexed"), [(1, [0]), (16, list(range(16))), (31, list(range(0, 31, 2)))])
def test_up_to_sixteen_shards_evenly_spread_are_looked_into(
    tmp_path: Path, photos: list[bytes], shards: int, indexed: list[int]
) -> None:
    urls = [str(tmp_path / f"{number:02d}.tar") for number in range(shards)]
    for url in urls:
        with webdataset.TarWriter(url) as tar:
            tar.write({"__key__": "x", "jpg": photos[0], "cls": 1})
    found = index_some(urls)
    assert [index.url for index in found] == [urls[i] for i in indexed]
    assert [bool(index.shard.sha256) for index in found] == [i == 0 for i in indexed]
