"""Which words of a text are the book's: what is recited after a prompt, and every stretch found, with its place."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from math import floor

from helpers.tokenizer import BPETokenizer, CharTokenizer

Tokenizer = BPETokenizer | CharTokenizer  # a token is some bytes, and the tokens of a text are its bytes in order


@dataclass(frozen=True)
class Span:
    """A stretch of a text that stands in the book word for word."""

    start: int  # first character of the text
    end: int  # the one behind the last
    line: int  # of the book, from 1, where the stretch begins
    speaker: str  # whose line that is; "" where the book names none


@dataclass(frozen=True)
class Trace:
    """How much of what was written behind a prompt is the book's.

    Recited: without a gap from the first new token on, what the book says next after the prompt. Found: stands
    somewhere in the book, in stretches of some tokens or more. What is put together from many places is found, and
    not recited.
    """

    spans: list[Span]  # in prompt + new; a recitation lies in one
    prompt_in_book: bool  # whether the prompt, or its last tokens, stand in the book: else there is nothing to recite
    new_tokens: int
    recited_tokens: int
    recited_characters: int
    found: float  # share of the new characters that lie in a span
    pieces: int  # spans with new tokens
    longest_piece: int  # new tokens in the longest of them

    def in_words(self) -> str:
        """Both in a line; the share found never stands without the number of pieces and the longest."""
        if not self.prompt_in_book:
            recited = "the prompt is not in the book"
        elif self.recited_tokens == self.new_tokens:
            return f"all {self.new_tokens:,} tokens recited"
        else:
            recited = f"{self.recited_tokens:,} of {self.new_tokens:,} tokens recited"
        if not self.pieces:
            return f"{recited}; nothing found in the book"
        pieces = "1 piece" if self.pieces == 1 else f"{self.pieces:,} pieces, the longest"
        share = floor(100 * self.found + 1e-9)  # 100 only where nothing is missing
        return f"{recited}; {share}% found in the book in {pieces} of {self.longest_piece:,} tokens"


class VerbatimIndex:
    """A book that can be asked which stretches of any text are its own.

    min_length: tokens; a shorter stretch is too likely to be chance.
    """

    def __init__(self, book: str, tokenizer: Tokenizer, min_length: int = 8) -> None:
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

    def trace(self, prompt: str, new: Sequence[str]) -> Trace:
        """What of the new text is the book's own continuation of `prompt`, and what can be found anywhere in the book.

        new: what each new token adds to the text, as `stream_text` yields it. Text is compared, not tokens, so the
        prompt may end inside a token.
        """
        text, given = prompt + "".join(new), len(prompt)
        begins = _begins(self.tokenizer, ids := self.tokenizer.encode(text))
        known = self._known(prompt)
        place, n = (0, 0) if known is None else self._recited(known, new)
        end = given + sum(map(len, new[:n]))
        stretches = self.token_spans(ids)
        if n:  # what is recited is one stretch, whatever else begins before it
            first, last = bisect_left(begins, given - len(known)), bisect_right(begins, end) - 1
            stretches = self._keeping(ids, first, last, bisect_left(self._begins, place - given + begins[first]))
        spans = [Span(begins[s], begins[e], *self.place(place)) for s, e, place in stretches]
        lengths = [sum(begins[i + 1] > given for i in range(s, e)) for s, e, _ in stretches]
        return Trace(
            spans=spans,
            prompt_in_book=known is not None,
            new_tokens=len(new),
            recited_tokens=n,
            recited_characters=end - given,
            found=found_share(text, spans, given),
            pieces=sum(length > 0 for length in lengths),
            longest_piece=max(lengths, default=0),
        )

    def continuation(self, ids: Sequence[int], n: int = 15) -> list[int]:
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

    def _known(self, prompt: str) -> str | None:
        """The prompt, if the book has it as a whole, or the last `min_length` of its tokens; None if it has neither."""
        begins = _begins(self.tokenizer, ids := self.tokenizer.encode(prompt))
        last = prompt[begins[max(0, len(ids) - self.min_length)] :]
        return next((known for known in (prompt, last) if known in self._book), None)

    def _recited(self, known: str, new: Sequence[str]) -> tuple[int, int]:
        """Where the book, in characters, goes on behind `known`, and how many of the new tokens it has there.

        Of several places that which goes on longest as the new text does, and of equals the first. The last token
        counts where one of the book ends too, or where the new text does: half a word is not recited.
        """
        text = "".join(new)
        same = bisect_left(range(1, len(text) + 1), True, key=lambda n: known + text[:n] not in self._book)
        place = self._book.index(known + text[:same]) + len(known)
        borders = {*self._begins[bisect_left(self._begins, place) : bisect_right(self._begins, place + same)]}
        recited = 0
        for n, (piece, end) in enumerate(zip(new, accumulate(map(len, new)), strict=True), 1):
            if piece and end <= same and (end == len(text) or place + end in borders):
                recited = n
        return place, recited

    def _keeping(self, ids: list[int], start: int, end: int, place: int) -> list[tuple[int, int, int]]:
        """Like `token_spans`, but ids[start:end], which the book has at `place`, is not divided."""
        while start and place and ids[start - 1] == self.tokens[place - 1]:
            start, place = start - 1, place - 1
        if end - start < self.min_length:
            return self.token_spans(ids)
        behind = [(s + end, e + end, at) for s, e, at in self.token_spans(ids[end:])]
        return [*self.token_spans(ids[:start]), (start, end, place), *behind]

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


def found_share(text: str, spans: list[Span], given: int = 0) -> float:
    """Share of the characters behind the first `given` that lie in one of the spans; 0 where there are none."""
    covered = sum(max(0, span.end - max(span.start, given)) for span in spans)
    return covered / max(1, len(text) - given)


def _begins(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Where each token begins, in characters, and where the last one ends; inside a character: where that begins."""
    firsts = (sum(byte & 0xC0 != 0x80 for byte in tokenizer.token_bytes(i)) for i in ids)
    return list(accumulate(firsts, initial=0))


def _speakers(book: str) -> list[tuple[int, str]]:
    """(line, name) of every line that is a name and a colon and follows an empty line or none."""
    lines = ["", *book.split("\n")]
    return [(n, line[:-1]) for n, (before, line) in enumerate(pairwise(lines), 1) if not before and line[-1:] == ":"]
