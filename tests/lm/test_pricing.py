"""What calls cost."""

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.lm.pricing import price_of
from sidejudge_server.lm.wires import TokenCounts

MILLION = 1_000_000


def test_cached_and_written_tokens_have_their_own_price():
    """A prompt is split into plain, read and written tokens."""
    price = price_of(LMSettings("anthropic/claude-haiku-4-5"))
    tokens = TokenCounts(
        prompt=3 * MILLION, cache_read=MILLION, cache_write=MILLION, generated=MILLION
    )

    assert price.cost_usd(tokens) == pytest.approx(1.0 + 0.1 + 1.25 + 5.0)


def test_snapshot_costs_what_its_model_costs():
    """A date at the end of the name changes no price."""
    dated = price_of(LMSettings("openai/gpt-4o-mini-2024-07-18"))

    assert dated == price_of(LMSettings("openai/gpt-4o-mini"))


@pytest.mark.parametrize("model", ["openai/never-heard-of", "mine/gpt-4o", "x/y"])
def test_unknown_price_is_none(model):
    """It is not taken for free."""
    assert price_of(LMSettings(model)) is None


def test_foreign_endpoint_has_no_list_price():
    """The same name at another address may cost anything."""
    settings = LMSettings("openai/gpt-4o", base_url="http://gateway/v1")

    assert price_of(settings) is None


@pytest.mark.parametrize("model", ["local/smollm2-135m", "ollama/llama3"])
def test_own_machine_is_free(model):
    """Models that run here have no price."""
    assert price_of(LMSettings(model)).cost_usd(TokenCounts(MILLION)) == 0.0


def test_configured_prices_win():
    """One or both prices can be configured; the other is taken from the list."""
    model = "openai/gpt-4o-mini"
    both = price_of(LMSettings(model, input_usd_per_mtok=1, output_usd_per_mtok=2))
    output = price_of(LMSettings(model, output_usd_per_mtok=2))
    half_known = price_of(LMSettings("x/y", output_usd_per_mtok=2))

    assert (both.prompt, both.generated, both.cache_read) == (1, 2, 1)
    assert (output.prompt, output.generated) == (0.15, 2)
    assert half_known is None
