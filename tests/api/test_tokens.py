"""Page and resume tokens."""

import base64

import pytest

from sidejudge.v1 import evaluation_service_pb2
from sidejudge_server.api.tokens import TokenCodec, page_scope
from sidejudge_server.errors import InvalidTokenError

REQUEST = evaluation_service_pb2.ListEvaluationsRequest(
    judge="judges/safety", labels={"b": "2", "a": "1"}, page_size=10
)


@pytest.fixture
def codec() -> TokenCodec:
    return TokenCodec("0190-a")


def test_page_token_returns_its_key(codec):
    """What goes in comes out, for the same arguments."""
    scope = page_scope(REQUEST)
    assert codec.read_page(codec.page(scope, "key-7"), scope) == "key-7"


def test_empty_tokens_mean_from_the_start(codec):
    """An empty token is the first page, not an error."""
    assert codec.read_page("", page_scope(REQUEST)) is None
    assert codec.read_resume("", "optimizations/x") is None


def test_page_size_may_change_between_pages(codec):
    """AIP-158 binds a token to the filters, not to the size."""
    token = codec.page(page_scope(REQUEST), "key-7")
    bigger = evaluation_service_pb2.ListEvaluationsRequest()
    bigger.CopyFrom(REQUEST)
    bigger.page_size, bigger.page_token = 20, token
    assert codec.read_page(token, page_scope(bigger)) == "key-7"


def test_page_token_is_refused_when_a_filter_changed(codec):
    """A token is bound to all other arguments."""
    other = evaluation_service_pb2.ListEvaluationsRequest(judge="judges/relevance")
    token = codec.page(page_scope(REQUEST), "key-7")
    with pytest.raises(InvalidTokenError, match="other arguments") as caught:
        codec.read_page(token, page_scope(other))
    assert caught.value.reason == "INVALID_PAGE_TOKEN"


def test_tokens_of_another_database_are_refused(codec):
    """The key comes from the database id."""
    other = TokenCodec("0190-b")
    scope = page_scope(REQUEST)
    with pytest.raises(InvalidTokenError):
        codec.read_page(other.page(scope, "key-7"), scope)
    with pytest.raises(InvalidTokenError) as caught:
        codec.read_resume(other.resume("run", "3"), "run")
    assert caught.value.reason == "INVALID_RESUME_TOKEN"


def test_resume_token_of_another_resource_is_refused(codec):
    """A token of one run says nothing about another."""
    with pytest.raises(InvalidTokenError):
        codec.read_resume(codec.resume("run-1", "3"), "run-2")


def test_page_and_resume_tokens_do_not_stand_in_for_each_other(codec):
    """Each kind names itself."""
    scope = page_scope(REQUEST)
    with pytest.raises(InvalidTokenError):
        codec.read_page(codec.resume(scope.method, "3"), scope)
    with pytest.raises(InvalidTokenError):
        codec.read_resume(codec.page(scope, "3"), scope.method)


@pytest.mark.parametrize(
    "token",
    ["%%%", "a", "====", "AAAA", " ", "é", "A" * 5000, "AAAA\n", "eyJhIjoxfQ=="],
)
def test_malformed_tokens_are_refused(codec, token):
    """Decoding is strict: no foreign letters, padding, white space or lengths."""
    with pytest.raises(InvalidTokenError):
        codec.read_page(token, page_scope(REQUEST))
    with pytest.raises(InvalidTokenError):
        codec.read_resume(token, "run")


def test_every_changed_character_is_noticed(codec):
    """The tag covers all of the payload, and unused bits of the last letter must be zero."""
    token = codec.resume("run", "3")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for position in range(len(token)):
        for letter in alphabet:
            changed = token[:position] + letter + token[position + 1 :]
            if changed == token:
                continue
            try:
                codec.read_resume(changed, "run")
            except InvalidTokenError:
                continue
            accepted.append(changed)
    assert accepted == []


def test_padding_and_standard_alphabet_are_refused(codec):
    """One token has one spelling."""
    for position in range(3):
        token = codec.resume("run", "3" * (position + 1))
        padded = token + "=" * (-len(token) % 4)
        data = base64.urlsafe_b64decode(padded)
        for spelling in {padded, token + "=", base64.b64encode(data).decode()} - {
            token
        }:
            with pytest.raises(InvalidTokenError):
                codec.read_resume(spelling, "run")
