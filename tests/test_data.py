"""Corpora and tokenizers, the good cases; the bad ones are in test_bad_input.py."""

import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import tiktoken
import tokenizers

from helpers import data
from helpers.base.files import ROOT
from helpers.base.vocabulary import GPT2_FILES, fill_tiktoken_cache
from helpers.data import CharTokenizer, gpt2_tokenizer, load_corpus
from helpers.tokenizer import last_merge

HOSTILE = [
    "",
    " ",
    "   \n\n\n   \t",
    "a" * 500,
    " " * 257 + "x",
    "CR\r\nLF\rCR",
    "e\u0301 é \u0308\u0301\u0300",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🙂🙂🙂",
    "<|endoftext|> and <|endoftext|><|endoftext|>",
    "שלום עולם  مرحبا",
    "日本語テキスト 한국어",
    "\x00\x01\x7f\u200b\ufeff",
    "don't we'll they've I'M YOU'RE 's's",
    "1234567890 3.14159 ½ Ⅷ ４２",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁ ß ẞ",
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A workspace of the test's own, without tiny Shakespeare in it."""
    monkeypatch.delenv("SHAKESPEARE_PATH", raising=False)
    monkeypatch.setattr(data, "workspace", lambda: tmp_path)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def book(monkeypatch):
    """Bytes that stand in for tiny Shakespeare."""
    content = b"First Citizen:\nA text for the tests.\n" * 50
    monkeypatch.setattr(data, "TINY_SHAKESPEARE_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(data, "TINY_SHAKESPEARE_BYTES", len(content))
    return content


@pytest.fixture
def serve():
    """serve(answers) -> address of a server that gives the answers (status, body, claimed length) in turn."""
    servers = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/input.txt"

    yield start
    for server in servers:
        server.shutdown()


def test_the_sample_is_the_text_its_readme_describes():
    corpus = load_corpus("sample")
    readme = (ROOT / "data/README.md").read_text(encoding="utf-8")
    assert 16_384 <= len(corpus.text.encode()) <= 32_768
    assert corpus.sha256 in readme
    assert corpus.text.isascii()


def test_the_sample_has_tiny_shakespeares_format(sample):
    speeches = sample.rstrip("\n").split("\n\n")
    assert all(speech.split("\n")[0].endswith(":") and len(speech.split("\n")) > 1 for speech in speeches)
    assert len({speech.split("\n")[0] for speech in speeches}) >= 5


def test_tiny_shakespeare_is_downloaded_once_after_failed_tries(elsewhere, book, serve):
    url = serve([(503, b"busy", 4), (500, b"oops", 4), (200, book[:9], len(book)), (200, book, len(book))])
    assert load_corpus("tinyshakespeare", url=url).text == book.decode()
    assert (elsewhere / "data/input.txt").read_bytes() == book
    assert load_corpus("tinyshakespeare", url="http://127.0.0.1:1/never-asked").text == book.decode()
    assert [p.name for p in (elsewhere / "data").iterdir()] == ["input.txt"]


def test_a_cut_off_download_is_refused_and_leaves_nothing_behind(elsewhere, book, serve):
    for answer in ((200, book[:100], len(book)), (200, book[:100], 100)):
        with pytest.raises(data.DataError, match=r"Without network|cut-off"):
            load_corpus("tinyshakespeare", url=serve([answer]))
        assert not list(elsewhere.rglob("*input*"))


def test_an_error_page_on_the_last_try_is_no_text(elsewhere, book, serve):
    broken = (200, book[:9], len(book))
    url = serve([broken, broken, broken, (404, b"<html>gone</html>", 17)])
    with pytest.raises(data.DataError, match=r"cannot download .*404"):
        load_corpus("tinyshakespeare", url=url)
    assert not list(elsewhere.rglob("*input*"))


def test_shakespeare_path_comes_first_and_may_be_relative_to_the_series(elsewhere, book, monkeypatch):
    (elsewhere / "mine.txt").write_bytes(book)
    monkeypatch.setenv("SHAKESPEARE_PATH", "mine.txt")
    assert load_corpus("tinyshakespeare", url="http://127.0.0.1:1/").source == str(elsewhere / "mine.txt")


def test_any_text_file_can_be_a_corpus(tmp_path):
    (tmp_path / "poem.txt").write_text("Été", encoding="utf-8")
    corpus = load_corpus(tmp_path / "poem.txt")
    assert (corpus.name, corpus.text) == ("poem", "Été")


def test_characters_round_trip(sample):
    chars = CharTokenizer(sample)
    assert chars.decode(chars.encode(sample)) == sample
    assert chars.symbols == sorted(set(sample))


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """Hugging Face's GPT-2 tokenizer, from the same two vocabulary files."""
    cache, folder = (tmp_path_factory.mktemp(name) for name in ("tiktoken", "hugging_face"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        fill_tiktoken_cache()
    for cached, (name, _) in GPT2_FILES.items():
        (cache / cached).rename(folder / name)
    return tokenizers.ByteLevelBPETokenizer(str(folder / "encoder.json"), str(folder / "vocab.bpe"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_encoded_as_hugging_face_does_and_comes_back(gpt2, hugging_face, text):
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text
    assert ids == hugging_face.encode(text).ids


def test_random_unicode_round_trips_in_both_vocabularies(gpt2, sample):
    small, rng = gpt2.restricted_to(sample), random.Random(0)
    for _ in range(300):
        points = (
            rng.choice([rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x1F300, 0x1FAFF)]) for _ in range(20)
        )
        text = "".join(chr(p) for p in points)
        assert gpt2.decode(gpt2.encode(text)) == text
        assert small.decode(small.encode(text)) == text


def test_a_special_token_in_a_text_is_text(gpt2):
    assert 50256 not in gpt2.encode("<|endoftext|>")
    assert gpt2.decode([50256]) == "<|endoftext|>"


def test_half_a_character_decodes_to_a_mark_and_not_to_an_error(gpt2):
    half = gpt2.encode("🙂")[:1]
    assert "�" in gpt2.decode(half)


def test_the_restricted_vocabulary_gives_the_same_tokens_for_its_own_text(gpt2, sample):
    small = gpt2.restricted_to(sample)
    assert [small.kept_ids[i] for i in small.encode(sample)] == gpt2.encode(sample)
    assert set(gpt2.encode(sample)) <= set(small.kept_ids)
    assert gpt2_tokenizer(small.kept_ids).encode(sample) == small.encode(sample)


def test_no_row_of_a_restricted_vocabulary_is_there_for_nothing(gpt2, sample):
    small = gpt2.restricted_to(sample)
    occurring, ranks = {small.token_bytes(i) for i in small.encode(sample)}, small.ranks()
    parts = {part for token in ranks if len(token) > 1 for part in last_merge(token, ranks)}
    assert all(len(token) == 1 or token in occurring | parts for token in ranks)


def test_a_vocabulary_without_the_parts_of_its_tokens_is_refused(gpt2):
    whole = gpt2.restricted_to("whole")  # the bytes, "le", "wh", and "ole" of "o" and "le"
    for missing in (256, 0):
        kept = whole.kept_ids[:missing] + whole.kept_ids[missing + 1 :]
        with pytest.raises(ValueError, match="train again"):
            gpt2_tokenizer(kept)


def test_the_last_merge_is_the_one_that_gpt2_makes_last(gpt2):
    ranks = gpt2.ranks()
    assert len(ranks) == 50_256
    for token, i in [*ranks.items()][256:3000]:
        a, b = last_merge(token, ranks)
        assert a + b == token
        assert max(ranks[a], ranks[b]) < i  # made before it
    with pytest.raises(ValueError, match="no two tokens"):
        last_merge(b"\x00\x01\x02", ranks)


def test_an_empty_tiktoken_cache_is_filled_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6").write_text("damaged")
    fill_tiktoken_cache()
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    assert found == {cached: sha256 for cached, (_, sha256) in GPT2_FILES.items()}


def test_tiktoken_itself_accepts_the_vocabulary(gpt2):
    assert gpt2.encoding is tiktoken.get_encoding("gpt2")
    assert gpt2.n_vocab == 50_257
