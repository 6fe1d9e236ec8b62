"""Several engines on one page."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.block import Block
from exporter.exposition.layout import PageReader
from exporter.exposition.merge import LabelledSource, MergedBlocks, MergedPages, label_page
from exporter.exposition.model import Family
from exporter.exposition.page import PassThroughBlock

UP = Family("engine_up", "gauge", "Whether it is up.")
SEEN = Family("seen_total", "counter", "Seen.", ("what",))

PAGE = b"""# HELP vllm:tokens_total Tokens.
# TYPE vllm:tokens_total counter
vllm:tokens_total{model_name="a"} %d
# HELP vllm:ttft_seconds Time.
# TYPE vllm:ttft_seconds histogram
vllm:ttft_seconds_bucket{le="1.0",model_name="a"} 1
vllm:ttft_seconds_bucket{le="+Inf",model_name="a"} 2
vllm:ttft_seconds_count{model_name="a"} 2
vllm:ttft_seconds_sum{model_name="a"} 3
"""


def shown(*pages: bytes) -> MergedPages:
    sources = []
    for name, page in zip("ab", pages, strict=False):
        reader = PageReader(sample_limit=1000, label_limit=64, reserved_prefixes=("vllm_exporter_",))
        reader.read(page, openmetrics=False)
        block = PassThroughBlock()
        block.show(reader.passthrough())
        sources.append(LabelledSource("instance", name, block))
    return MergedPages(sources)


def test_a_family_of_two_blocks_stands_in_one_piece_with_the_labels_of_each() -> None:
    blocks = [Block((("instance", name),)) for name in "ab"]
    for number, block in enumerate(blocks):
        block.gauge(UP).set(number)
        block.counter(SEEN, "x").set(number)
    merged = MergedBlocks(blocks)
    assert merged.render(openmetrics=False).decode() == (
        "# HELP engine_up Whether it is up.\n# TYPE engine_up gauge\n"
        'engine_up{instance="a"} 0\nengine_up{instance="b"} 1\n'
        "# HELP seen_total Seen.\n# TYPE seen_total counter\n"
        'seen_total{instance="a",what="x"} 0\nseen_total{instance="b",what="x"} 1\n'
    )
    before = merged.version
    blocks[1].gauge(UP).set(5)
    assert merged.version > before


def test_the_labels_of_a_block_are_stored_with_its_series() -> None:
    block = Block((("instance", "a"),))
    block.counter(SEEN, "x").set(1)
    (series,) = block.columns()[0]
    assert series.labels == (("instance", "a"), ("what", "x"))


def test_pages_of_two_engines_are_one_valid_page() -> None:
    pages = shown(PAGE % 1, PAGE % 2)
    text = pages.render(openmetrics=False).decode()
    assert text.count("# TYPE vllm:tokens_total counter") == 1
    families = {family.name: family for family in parse_text(text)}
    assert {(sample.labels["instance"], sample.value) for sample in families["vllm:tokens"].samples} == {
        ("a", 1),
        ("b", 2),
    }
    assert len(families["vllm:ttft_seconds"].samples) == 8
    strict = pages.render(openmetrics=True).decode() + "# EOF\n"
    assert {family.name for family in parse_openmetrics(strict)} == {"vllm:tokens", "vllm:ttft_seconds"}


def test_an_engine_that_is_gone_leaves_the_page_to_the_other() -> None:
    pages = shown(PAGE % 1, PAGE % 2)
    pages._sources[0].page.show(None)
    text = pages.render(openmetrics=False).decode()
    assert 'instance="a"' not in text
    assert text.count('instance="b"') == 5


def test_lines_of_every_form_get_the_label() -> None:
    page = (
        b'bare 1\nempty{} 2\nfull{a="b"} 3\nclash{instance="x",b="instance=\\"y"} 4\n'
        b'last{b="c",instance="x"} 5\nother{my_instance="x"} 6\n{"new.name",a="b"} 7\n{"alone"} 8\n'
    )
    lines = b"".join(text for _, text in label_page(page, "instance", 'e"1').values()).decode().splitlines()
    assert lines == [
        'bare{instance="e\\"1"} 1',
        'empty{instance="e\\"1"} 2',
        'full{instance="e\\"1",a="b"} 3',
        'clash{instance="e\\"1",exported_instance="x",b="instance=\\"y"} 4',
        'last{instance="e\\"1",b="c",exported_instance="x"} 5',
        'other{instance="e\\"1",my_instance="x"} 6',
        '{"new.name",instance="e\\"1",a="b"} 7',
        '{"alone",instance="e\\"1"} 8',
    ]
