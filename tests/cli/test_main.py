"""What the command does before any subcommand."""

from entracte.cli.main import ALLOCATOR, set_allocator


def test_memory_grows_in_place() -> None:
    environment: dict[str, str] = {}
    set_allocator(environment)
    assert environment == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def test_what_the_user_says_of_the_allocator_stands() -> None:
    for name in ALLOCATOR:
        environment = {name: "max_split_size_mb:128"}
        set_allocator(environment)
        assert environment == {name: "max_split_size_mb:128"}
