"""Which words of a text are the book's: every verbatim stretch, with its speaker and line."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from helpers.tokenizer import BPETokenizer


@dataclass(frozen=True)
class Span:
    """A stretch of a text that stands in the book word for word."""

    start: int  # first character of the text
    end: int  # the one behind the last
    line: int  # of the book, from 1
    speaker: str  # whose line it is; "" where the book names none


class VerbatimIndex:
    """A book that can be asked which stretches of any text are its own.

    min_length: tokens; a shorter stretch is too likely to be chance.
    """

    def __init__(self, book: str, tokenizer: BPETokenizer, min_length: int = 8) -> None:
        self.tokenizer, self.min_length, self._book = tokenizer, min_length, book
        self.tokens = tokenizer.encode(book)
        self._places: dict[tuple[int, ...], list[int]] = {}
        for place, stretch in enumerate(zip(*(self.tokens[i:] for i in range(min_length)), strict=False)):
            self._places.setdefault(stretch, []).append(place)
        self._begins = _begins(tokenizer, self.tokens)
        self._lines = [0, *(i + 1 for i, c in enumerate(book) if c == "\n")]
        self._speakers = _speakers(book)

    def token_spans(self, ids: list[int]) -> list[tuple[int, int, int]]:
        """The stretches of `ids` that stand in the book, each as long as it can be, from the left.

        Returns (start, end, place): ids[start:end] == tokens[place : place + end - start]. They do not overlap.
        """
        spans, start = [], 0
        while start <= len(ids) - self.min_length:
            places = self._places.get(tuple(ids[start : start + self.min_length]), [])
            length, place = max(((self._run(ids, start, p), -p) for p in places), default=(0, 0))
            if length:
                spans.append((start, start + length, -place))
            start += length or 1
        return spans

    def spans(self, text: str) -> list[Span]:
        """The same for any text, in characters, with the first place in the book where each stretch stands."""
        ids = self.tokenizer.encode(text)
        begins = _begins(self.tokenizer, ids)
        return [Span(begins[s], begins[e], *self.place(place)) for s, e, place in self.token_spans(ids)]

    def goes_on(self, ids: Sequence[int], n: int = 15) -> list[int]:
        """What the book says, in up to n tokens, behind the last `min_length` or more of `ids`; [] if it has them not.

        Of several places, that which shares most with the end of `ids`, and of equals the first.
        """
        places = self._places.get(tuple(ids[-self.min_length :]), [])
        ends = (place + self.min_length for place in places)
        end = max(ends, key=lambda end: self._shared(ids, end), default=len(self.tokens))
        return self.tokens[end : end + n]

    def place(self, token: int) -> tuple[int, str]:
        """Line and speaker of the book's token of that number, or of the first word behind it if it is a line break."""
        begin = self._begins[token]
        while self._book.startswith("\n", begin) and begin < len(self._book) - 1:
            begin += 1
        line = bisect_right(self._lines, begin)
        before = bisect_right(self._speakers, (line, "\uffff")) - 1
        return line, self._speakers[before][1] if before >= 0 else ""

    def _run(self, ids: list[int], start: int, place: int) -> int:
        """How many tokens from ids[start] on are those of the book from `place` on."""
        n = self.min_length
        while start + n < len(ids) and place + n < len(self.tokens) and ids[start + n] == self.tokens[place + n]:
            n += 1
        return n

    def _shared(self, ids: Sequence[int], end: int, most: int = 64) -> int:
        """How many of the last tokens of `ids` are those of the book up to `end`, counted up to `most`."""
        pairs = zip(reversed(ids[-most:]), reversed(self.tokens[max(0, end - most) : end]), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def verbatim_share(text: str, spans: list[Span], given: int = 0) -> float:
    """Share of the characters behind the first `given` that lie in one of the spans; 0 where there are none."""
    covered = sum(max(0, span.end - max(span.start, given)) for span in spans)
    return covered / max(1, len(text) - given)


def _begins(tokenizer: BPETokenizer, ids: list[int]) -> list[int]:
    """Where each token begins, in characters, and where the last one ends; inside a character: where that begins."""
    firsts = (sum(byte & 0xC0 != 0x80 for byte in tokenizer.token_bytes(i)) for i in ids)
    return list(accumulate(firsts, initial=0))


def _speakers(book: str) -> list[tuple[int, str]]:
    """(line, name) of every line that is a name and a colon and follows an empty line or none."""
    lines = ["", *book.split("\n")]
    return [
        (n, lines[n].removesuffix(":")) for n in range(1, len(lines)) if not lines[n - 1] and lines[n].endswith(":")
    ]
