"""
A search for lines that rhyme: it ranks whole lines by the model's log-probability and by their rhyme.

    search = RhymeSearch(Endings(tokenizer, vocab_size), 'AABB')
    samples = nanorap.text.write(model, tokenizer, [prompt], search=search, ...)

Each sample has K rows of the batch, one per draft of its next line. The rows share the KV cache of all lines
before.

1) Drafts are sampled as in plain sampling. Each step at which a rhyming word could end the line is noted.

2) From the best such step each draft gets a second, steered ending: the rhyming word, perhaps a punctuation
mark, and a line break.

3) The best of all these lines is chosen. Its keys and values are copied to all rows of the sample, and the
next line begins.

A rhyming word is a single token here, a word with the blank before it. A vocabulary without such tokens
(single characters) allows choosing among drafts, but no steering.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.generate import sample_next
from nanorap.rap.phonemes import lexicon
from nanorap.rap.rhyme import WEAK, line_end, rhymes, split_words, syllables
from nanorap.rap.scheme import Endings, Section, check_scheme
from nanorap.rap.sections import OPEN_HEADER_LINE

CANDIDATES = 4  # drafts per line, and rows per sample
MAX_LINE_TOKENS = 32
LINE_ROOM = MAX_LINE_TOKENS + 4  # columns of the KV cache that a line may need
RECENT_LINES = 8  # of the section: their end words and phrases should not come back
DECODING_CONTEXT = 16  # tokens of the prompt that are decoded together with new ones

# All numbers from here on were chosen by hand, by reading samples. Scores are in nats per token, since they
# are added to a line's mean log-probability.
MIN_TOKENS = 3  # tokens that a line has before its rhyming word, at least
GUMBEL_SCALE = 0.7  # temperature of choosing a rhyming word; below 1 it prefers the likelier ones
END_TOKENS = 3  # tokens at a line's end that count twice: a wrong line end is most audible
# assumed log-probability of the punctuation mark and of the line break after a rhyming word
END_LOGPROB = -1.0
HEADER_SCORE = 50.0  # above every line: the model's own choice of a header stands

# rhyme with the partner
RHYME = {'none': -4.0, 'slant': -1.5, 'perfect': 0.0, 'multisyllabic': 0.2}
HOMOPHONE = -0.5  # sea / see
# a line whose partner is still to come, but which ends on a word with fewer than FEW_RHYMES rhymes
HARD_TO_RHYME, FEW_RHYMES = -1.5, 12

# repetition
BAD_LINE = -10.0  # a line of one word, or one that the section has already
# times the share of the line's word pairs that occurred before, as far as it exceeds the share allowed
REPETITION, REPETITION_ALLOWED = -4.0, 0.25
# per line beyond the first, among the last START_LINES, that begins with the same two words
SAME_START, START_LINES = -0.3, 4
SAME_END = -2.0  # the line ends on the same word as a recent line

# length: cost per syllable that a line misses its target by, beyond the tolerance
ASKED_TOLERANCE, ASKED_WEIGHT = 1, 1  # the target is --syllables
USUAL_TOLERANCE, USUAL_WEIGHT = 2, 0.12  # the target is the usual length of the lines before


class RhymeSearch:
    """Writes lines that keep a rhyme scheme; nanorap.text.write() takes it as `search`, and calls it as
    generate().

    endings: the words of the model's vocabulary that a line may end with. scheme: one letter per line,
    repeated over each section; X is free. syllables: per line; None: as many as the previous lines have.
    candidates: drafts per line.
    """

    def __init__(self, endings: Endings, scheme: str, syllables: int | None = None,
                 candidates: int = CANDIDATES):
        check_scheme(scheme)
        self.endings = endings
        self.tokenizer = endings.tokenizer
        self.scheme = scheme
        self.syllables = syllables
        self.candidates = candidates

    @torch.inference_mode()
    def __call__(self, model, make_cache: Callable[[int, int], KVCache], prompts: list[list[int]],
                 on_token: Callable,
                 *, num_samples: int, max_new_tokens: int, vocab_size: int, ends: Collection[int], seed: int,
                 **sampler) -> list[bool]:
        """Continue each prompt, one after the other; parameters and result are those of generate().

        A section ends only when none of its lines still needs a rhyme, and a sample only with a whole line,
        so it may end up to LINE_ROOM tokens before max_new_tokens.
        """
        has_ended = []
        for i, prompt in enumerate(prompts):
            first = i * num_samples
            batch = Batch(
                search=self, model=model, prompt=prompt, max_new_tokens=max_new_tokens, ends=ends,
                sampler=sampler,
                on_token=lambda sample, token, logprob, first=first: on_token(first + sample, token, logprob),
                **make_caches(model, make_cache, len(prompt), num_samples * self.candidates, max_new_tokens))
            has_ended += write_lines(batch, num_samples, vocab_size, seed)
        return has_ended


def make_caches(model, make_cache, prompt_len, n_rows, max_new_tokens):
    """Return the KV cache of all rows and the one-row cache that prompts are processed in.

    UserError if the model's context is too short for the search.
    """
    block_size = model.config.block_size
    if block_size < 2 * LINE_ROOM:
        raise UserError(f"--rhyme needs a model with a block_size of {2 * LINE_ROOM} or more, "
                        f"not {block_size}")
    # a short request has room for two lines, too: the one before, and one that is being tried
    max_len = min(block_size, max(2 * LINE_ROOM, prompt_len + max_new_tokens + LINE_ROOM))
    return dict(cache=make_cache(n_rows, max_len), prefill_cache=make_cache(1, max_len))


@dataclass
class Batch:
    """What all samples of one prompt share."""

    search: RhymeSearch
    model: torch.nn.Module
    cache: KVCache  # K rows per sample
    prefill_cache: KVCache  # one row
    prompt: list[int]
    max_new_tokens: int
    ends: Collection[int]
    on_token: Callable
    sampler: dict  # options of sample_next()

    @property
    def K(self):
        return self.search.candidates

    def prefill(self, rows, ids):
        """Put all ids but the last, which is fed next, into these rows of the cache."""
        self.prefill_cache.pos = [0]
        if len(ids) > 1:
            self.model(torch.tensor([ids[:-1]], device=self.cache.k.device), cache=self.prefill_cache)
        self.cache.copy_from(self.prefill_cache, target=rows)

    def decode(self, ids):
        """Return new ids as text. Some tokenizers need the ids before to know where blanks are."""
        context = [i for i in self.prompt[-DECODING_CONTEXT:]
                   if i not in self.search.tokenizer.marks]
        n_context = len(self.search.tokenizer.decode(context))
        return self.search.tokenizer.decode(context + ids)[n_context:]


def write_lines(batch: Batch, num_samples: int, vocab_size: int, seed: int) -> list[bool]:
    """Write all samples of one prompt; return for each whether it ended by itself."""
    batch.prefill(slice(None), batch.prompt[-(batch.cache.max_len - LINE_ROOM):])
    verses = [Verse(batch, sample, np.random.default_rng((seed, sample))) for sample in range(num_samples)]
    active = list(verses)
    while active:
        feed = [token for verse in active for token in verse.feed]
        idx = torch.tensor(feed, device=batch.cache.k.device)[:, None]
        logits = batch.model(idx, cache=batch.cache)[:, :vocab_size].float()
        logprobs = torch.log_softmax(logits, -1).split(batch.K)
        for verse, verse_logprobs in zip(active, logprobs, strict=True):
            verse.step(verse_logprobs)
        # a sample that has ended leaves the batch: the last sample moves to its rows
        for i in reversed([i for i, verse in enumerate(active) if verse.feed is None]):
            last = active.pop()
            if i < len(active):
                last.move_to(active[i].row)
                active[i] = last
    return [verse.has_ended for verse in verses]


class Ending(NamedTuple):
    """A place where a draft could end with a rhyming word."""

    step: int  # how many tokens of the draft stay before the word
    token: int
    logprob: float


@dataclass
class Draft:
    """A line that is being sampled, in one row of the batch."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    newline_logprobs: list[float] = field(default_factory=list)  # of a line break in each token's place
    endings: list[Ending] = field(default_factory=list)
    is_done: bool = False


class Choice(NamedTuple):
    """A whole line, a candidate for the next line of the sample."""

    score: float
    row: int  # of the sample's K rows
    is_steered: bool
    ids: list[int]
    logprobs: list[float]


class Verse:
    """One sample: its ids, where it stands in the rhyme scheme, and its K rows of the cache.

    The rows hold all ids but the last. write() is a coroutine: it yields one id per row to feed, and is sent
    the log-probabilities (K, vocab_size) of the ids that may follow. So each forward pass serves all samples,
    though each of them is at a line, and a step of the search, of its own.
    """

    def __init__(self, batch: Batch, sample: int, rng: np.random.Generator):
        self.batch = batch
        self.sample = sample
        self.rng = rng
        self.row = sample * batch.K  # the first of its rows
        self.ids = list(batch.prompt)
        self.n_left = batch.max_new_tokens
        self.has_ended = False
        self.endings = batch.search.endings
        text = batch.search.tokenizer.decode(
            [i for i in self.ids if i not in batch.search.tokenizer.marks])
        self.section = Section(batch.search.scheme, text)
        self.coroutine = self.write()
        self.feed = next(self.coroutine)  # one id per row; None: the sample has ended

    def step(self, logprobs: torch.Tensor):
        """Go on with the log-probabilities (K, vocab_size) after the ids in `feed`."""
        try:
            self.feed = self.coroutine.send(logprobs)
        except StopIteration:
            self.feed = None

    @property
    def rows(self):
        return slice(self.row, self.row + self.batch.K)

    def move_to(self, row):
        """Move to the K rows of the cache that begin with `row`."""
        for k in range(self.batch.K):
            self.batch.cache.copy_from(self.batch.cache, self.row + k, row + k)
        self.row = row

    def write(self):
        """Write line after line, until the sample has ended."""
        batch, cache = self.batch, self.batch.cache
        is_over = False
        while not is_over:
            if cache.pos[self.row] + LINE_ROOM > cache.max_len:  # full: go on with half of the context
                batch.prefill(self.rows, self.ids[-(batch.model.config.block_size // 2):])
            self.first = cache.pos[self.row]  # the column where the line begins
            self.partners = self.section.partners()
            drafts = yield from self.write_drafts()
            columns = slice(self.first, self.first + MAX_LINE_TOKENS)
            before_steering = [tensor[:, self.rows, :, columns].clone() for tensor in cache.tensors]
            steered = yield from self.steer(drafts)
            choice = self.choose(drafts, steered)
            n_tokens, is_over = self.append_line(choice.ids, choice.logprobs)
            self.share_cache(choice, n_tokens, before_steering)

    def write_drafts(self):
        """1) Sample drafts as in plain sampling, until all but one are whole lines.

        There is no waiting for the last one, which may be long: it has noted where a rhyme could end it.
        """
        batch, K = self.batch, self.batch.K
        recent_ends = {line_end(line)[0] for line in self.section.lines[-RECENT_LINES:]}
        rhyming = self.endings.rhyming(self.partners[0], recent_ends) if self.partners else []
        u = torch.from_numpy(self.rng.random((MAX_LINE_TOKENS, K), dtype=np.float32))
        # a section may not end while one of its lines needs a rhyme
        must_go_on = not self.section.is_complete() and not self.section.open_line
        drafts, feed = [Draft() for _ in range(K)], [self.ids[-1]] * K
        for step in range(MAX_LINE_TOKENS):
            logprobs = allowed = yield feed
            if step == 0 and must_go_on:
                breaks = torch.tensor(self.endings.breaks, device=logprobs.device)
                allowed = logprobs.index_fill(1, breaks, -torch.inf)
            sampled = sample_next(allowed, u[step].to(logprobs.device), **batch.sampler)
            feed = sampled.tolist()
            sampled_logprobs = logprobs.gather(1, sampled[:, None])[:, 0].tolist()
            newline_logprobs = logprobs[:, self.endings.newline].tolist()
            endings = self.sample_endings(step, logprobs[:, rhyming], rhyming)
            for k, draft in enumerate(drafts):
                if draft.is_done:
                    continue
                if endings:
                    draft.endings.append(endings[k])
                draft.ids.append(feed[k])
                draft.logprobs.append(sampled_logprobs[k])
                draft.newline_logprobs.append(newline_logprobs[k])
                draft.is_done = feed[k] in batch.ends or '\n' in self.endings.texts[feed[k]]
            if sum(draft.is_done for draft in drafts) >= max(1, K - 1):
                break
        return drafts

    def sample_endings(self, step: int, logprobs: torch.Tensor, rhyming: list[int]) -> list[Ending] | None:
        """Return an Ending per row with one of the rhyming tokens; logprobs (K, len(rhyming)).

        The token is sampled by the Gumbel-max trick, at a temperature of GUMBEL_SCALE.
        """
        if not rhyming or step < MIN_TOKENS:
            return None
        noise = torch.from_numpy(self.rng.gumbel(size=logprobs.shape)).to(logprobs)
        best = (logprobs + GUMBEL_SCALE * noise).argmax(1).tolist()
        return [Ending(step, rhyming[i], logprobs[k, i].item()) for k, i in enumerate(best)]

    def best_ending(self, draft):
        """Return the best Ending of a draft, or None."""
        ids, texts = draft.ids, self.endings.texts
        if self.partners:
            # not behind a punctuation mark, as an afterthought to a line that is over
            endings = [ending for ending in draft.endings if ids[ending.step - 1] not in self.endings.marks]
        elif self.batch.search.syllables or len(ids) == MAX_LINE_TOKENS:
            # a line that needs no rhyme may end after any of its own words
            word_ends = [i for i in range(2, len(ids) - 1)
                         if texts[ids[i]][-1:].isalpha() and not texts[ids[i + 1]][:1].isalnum()]
            endings = [Ending(i, ids[i], draft.logprobs[i]) for i in word_ends]
        else:
            endings = []

        def score(ending):
            text = self.line_text([*ids[:ending.step], ending.token])
            logprobs = [*draft.logprobs[:ending.step], ending.logprob, END_LOGPROB, END_LOGPROB]
            return line_score(logprobs) - length_cost(text, self.section, self.batch.search.syllables)

        return max(endings, key=score, default=None)

    def steer(self, drafts):
        """2) Give each draft that allows it a second ending; return {row: (ids, their log-probabilities)}."""
        K, newline = self.batch.K, self.endings.newline
        endings = {k: ending for k, draft in enumerate(drafts)
                   if self.is_lyrics(draft) and (ending := self.best_ending(draft))}
        if not endings:
            return {}
        # go back to the ending's place; a row without an ending gets a line break, whose result is not used
        n_columns = [endings[k].step + 1 if k in endings else 0 for k in range(K)]
        self.batch.cache.pos[self.rows] = [self.first + n for n in n_columns]
        logprobs = yield [endings[k].token if k in endings else newline for k in range(K)]
        mark_ids = [*self.endings.marks, newline]
        marks = [mark_ids[i] for i in logprobs[:, mark_ids].argmax(1).tolist()]
        mark_logprobs = [logprobs[k, mark].item() for k, mark in enumerate(marks)]
        logprobs = yield marks

        steered = {}
        for k, ending in endings.items():
            line_ids = [*drafts[k].ids[:ending.step], ending.token, marks[k]]
            line_logprobs = [*drafts[k].logprobs[:ending.step], ending.logprob, mark_logprobs[k]]
            if marks[k] != newline:
                line_ids.append(newline)
                line_logprobs.append(logprobs[k, newline].item())
            steered[k] = line_ids, line_logprobs
        return steered

    def choose(self, drafts, steered):
        """3) Return the best Choice of all lines that are allowed here."""
        choices = [self.choice_of_draft(k, draft) for k, draft in enumerate(drafts) if draft.is_done]
        choices += [self.choice_of_line(k, True, ids, logprobs) for k, (ids, logprobs) in steered.items()]
        choices = [choice for choice in choices if choice]
        if choices:
            return max(choices, key=lambda choice: choice.score)
        # no line has ended: the first draft is cut
        draft = drafts[0]
        ids = [*draft.ids[:-1], self.endings.newline]
        return Choice(0, 0, False, ids, [*draft.logprobs[:-1], draft.newline_logprobs[-1]])

    def choice_of_draft(self, k, draft):
        """Return the Choice of a draft that is a whole line, or None if it may not stand here."""
        ids, logprobs = list(draft.ids), list(draft.logprobs)
        is_lyrics, is_end = self.is_lyrics(draft), ids[-1] in self.batch.ends
        is_unclosed_header = not is_lyrics and self.line_text(ids).strip()[-1:] not in ('', ']')
        if is_unclosed_header:
            return None
        ends_section = is_end or not is_lyrics or self.endings.texts[ids[-1]].count('\n') > 1
        may_end = self.section.is_complete(more=1 if is_lyrics else 0)
        if ends_section and not may_end:
            is_empty = is_end and len(ids) < 3
            if not is_lyrics or is_empty:
                return None
            # the line stays, but the section must go on
            ids[-1], logprobs[-1] = self.endings.newline, draft.newline_logprobs[-1]
        elif not is_lyrics:
            # headers and blank lines come as often as the model says: whenever the first draft is one
            return Choice(HEADER_SCORE if k == 0 else -HEADER_SCORE, k, False, ids, logprobs)
        return self.choice_of_line(k, False, ids, logprobs)

    def choice_of_line(self, k, is_steered, ids, logprobs):
        """Return the Choice of a whole line of lyrics with its score."""
        text = self.line_text(ids).rstrip('\n')
        score = line_score(logprobs) + quality(text, self.partners, self.section, self.endings)
        score -= length_cost(text, self.section, self.batch.search.syllables)
        return Choice(score, k, is_steered, ids, logprobs)

    def line_text(self, ids):
        """Return the text of a line that ends with these ids; the prompt may hold its beginning."""
        return self.section.open_line + self.batch.decode(ids[:-1] if ids[-1] in self.batch.ends else ids)

    def is_lyrics(self, draft):
        """Return whether a draft is neither blank nor a section header."""
        text = self.line_text(draft.ids)
        return bool(text.strip()) and not OPEN_HEADER_LINE.match(text)

    def append_line(self, ids, logprobs):
        """Append a line to the sample; return how many of its ids were taken, and whether the sample is
        over."""
        self.has_ended = ids[-1] in self.batch.ends
        is_over = len(ids) >= self.n_left or self.has_ended
        if self.has_ended:
            ids, logprobs = ids[:-1], logprobs[:-1]
        if len(ids) > self.n_left:  # no room for the line, unless it is the first: then its beginning stays
            is_first = self.n_left == self.batch.max_new_tokens
            n_taken = self.n_left if is_first else 0
            ids, logprobs, self.has_ended = ids[:n_taken], logprobs[:n_taken], False
        for n, (token, logprob) in enumerate(zip(ids, logprobs, strict=True), 1):
            if self.batch.on_token(self.sample, token, logprob):  # True ends the sample, as in generate()
                ids = ids[:n]
                is_over = self.has_ended = True
                break
        self.ids += ids
        self.n_left -= len(ids)
        for line in self.batch.decode(ids).split('\n')[:-1]:
            self.section.add(self.section.open_line + line)
        return len(ids), is_over

    def share_cache(self, choice, n_tokens, before_steering):
        """Copy the line's keys and values, but for its last token, to all rows of the sample.

        before_steering: those of the drafts, which steering has overwritten.
        """
        cache, columns = self.batch.cache, slice(self.first, self.first + n_tokens)
        for tensor, drafted in zip(cache.tensors, before_steering, strict=True):
            if choice.is_steered:
                line = tensor[:, self.row + choice.row, :, columns]
            else:
                line = drafted[:, choice.row, :, :n_tokens]
            tensor[:, self.rows, :, columns] = line[:, None].clone()
        cache.pos[self.rows] = [self.first + n_tokens] * self.batch.K


def line_score(logprobs):
    """Return the mean log-probability of a line; its last END_TOKENS tokens count twice."""
    weighted = logprobs + logprobs[-END_TOKENS:]
    return sum(weighted) / len(weighted)


def length_cost(line, section, asked):
    """Return the penalty (nats per token) for missing the syllables asked for, or else the usual length."""
    if asked:
        return ASKED_WEIGHT * max(0, abs(syllables(line) - asked) - ASKED_TOLERANCE)
    usual = section.usual_syllables()
    if usual is None:
        return 0
    return USUAL_WEIGHT * max(0, abs(syllables(line) - usual) - USUAL_TOLERANCE)


def quality(line, partners, section, endings):
    """Return what a line gains or loses (nats per token) by its rhyme and by what it repeats."""
    words, recent = split_words(line), section.lines[-RECENT_LINES:]
    score = 0.0
    is_repeated = line.strip() in {earlier.strip() for earlier in section.lines}
    if is_repeated or len(words) < 2:
        score += BAD_LINE

    # the same line with another end, or a line that repeats itself
    earlier_pairs = {pair for earlier in recent for pair in pairwise(split_words(earlier))}
    pairs = [*pairwise(words)]
    n_repeated = sum(pair in earlier_pairs or pair in pairs[:i] for i, pair in enumerate(pairs))
    score += REPETITION * max(0, n_repeated / max(1, len(pairs)) - REPETITION_ALLOWED)
    n_same_start = sum(split_words(earlier)[:2] == words[:2] for earlier in recent[-START_LINES:])
    score += SAME_START * max(0, n_same_start - 1)

    if partners:
        rhyme = rhymes(partners[0], line)
        score += RHYME[rhyme.kind] + HOMOPHONE * rhyme.homophone
    end = line_end(line)[0]
    if end in {line_end(earlier)[0] for earlier in recent}:
        score += SAME_END
    letter = section.scheme[len(section.lines) % len(section.scheme)]
    opens_a_rhyme = not partners and letter != 'X'
    if opens_a_rhyme and endings.classes:  # a later line has to rhyme with this one
        has_few_rhymes = len(endings.rhyming(line)) < FEW_RHYMES
        if has_few_rhymes or end in WEAK or end not in lexicon():
            score += HARD_TO_RHYME
    return score
