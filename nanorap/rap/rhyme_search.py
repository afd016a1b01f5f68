"""
Lines that rhyme on purpose: a search over whole lines, by the model's own log-probability and by how well they rhyme.

    search = RhymeSearch(Endings(tokenizer, vocab_size), 'AABB')
    samples = nanorap.text.write(model, tokenizer, [prompt], search=search, ...)

Each sample has some rows of the batch for candidates of its next line, which share the cache of all before it.
1) Candidates are drawn as in plain sampling, and on the way every place is noted where a rhyming word could end the line.
2) From the best such place each candidate gets a second, steered ending: the rhyming word, a punctuation mark or none, a
   line break.
3) Of all these lines one is taken; its keys and values go to the sample's other rows, and the next line begins.
A rhyming word is one token of the vocabulary here, a word with the blank before it; where a vocabulary has none (single
characters), lines are chosen, not steered.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from nanorap.common import UserError
from nanorap.generate import sample_next
from nanorap.rap.phonemes import lexicon
from nanorap.rap.rhyme import WEAK, line_end, rhymes, split_words, syllables
from nanorap.rap.scheme import Endings, Section, check_scheme
from nanorap.rap.sections import OPEN_HEADER_LINE

CANDIDATES = 4  # rows a sample
LONGEST = 32  # tokens of a line
LINE_ROOM = LONGEST + 4  # columns of the cache that a line may need


class RhymeSearch:
    """Writes lines that keep a rhyme scheme; call it as generate(): nanorap.text.write() takes it as `search`.

    endings: the words of the model's vocabulary that a line may end with. scheme: one letter per line, repeated over each section; X is free. syllables: of each line, None: as the lines before
    have. candidates: drafts of each line.
    """

    def __init__(self, endings: Endings, scheme: str, syllables: int | None = None, candidates: int = CANDIDATES):
        check_scheme(scheme)
        self.endings, self.tokenizer = endings, endings.tokenizer
        self.scheme, self.syllables, self.candidates = scheme, syllables, candidates

    @torch.inference_mode()
    def __call__(self, model, make_cache, prompts, on_token, *, num_samples, max_new_tokens, vocab_size, eot, seed, **sampler):
        """Continue each prompt, one after the other; parameters and result are those of generate().

        A section ends only where no line waits for its rhyme, and a sample only with a whole line, so it may end up to
        LINE_ROOM tokens before max_new_tokens.
        """
        has_ended = []
        for i, prompt in enumerate(prompts):
            first = i * num_samples
            state = Shared(
                search=self, model=model, prompt=prompt, max_new_tokens=max_new_tokens, eot=eot, sampler=sampler,
                on_token=lambda sample, token, logprob, first=first: on_token(first + sample, token, logprob),
                **make_caches(model, make_cache, len(prompt), num_samples * self.candidates, max_new_tokens))
            has_ended += search_lines(state, num_samples, vocab_size, seed)
        return has_ended


def make_caches(model, make_cache, prompt_len, n_rows, max_new_tokens):
    block_size = model.config.block_size
    max_len = min(block_size, prompt_len + max_new_tokens + LINE_ROOM)
    if max_len < 2 * LINE_ROOM:
        raise UserError(f"--rhyme needs a model with a block_size of {2 * LINE_ROOM} or more, not {block_size}")
    return dict(cache=make_cache(n_rows, max_len), prefill_cache=make_cache(1, max_len))


def search_lines(state, num_samples, vocab_size, seed):
    """Write all samples of one prompt; returns for each whether it ended by itself."""
    K = state.search.candidates
    state.prefill(slice(None), state.prompt[-(state.cache.max_len - LINE_ROOM):])
    verses = [Verse(state, sample, np.random.default_rng((seed, sample))) for sample in range(num_samples)]
    active = list(verses)
    while active:
        feed = torch.tensor([token for verse in active for token in verse.feed], device=state.cache.k.device)
        logits = state.model(feed[:, None], cache=state.cache)[:, :vocab_size].float()
        for verse, logprobs in zip(active, torch.log_softmax(logits, -1).split(K), strict=True):
            verse.step(logprobs)
        # remove the samples that have ended: the last one's rows take the place
        for i in reversed([i for i, verse in enumerate(active) if verse.feed is None]):
            last = active.pop()
            if i < len(active):
                last.move(active[i].row)
                active[i] = last
    return [verse.has_ended for verse in verses]


@dataclass
class Shared:
    """What the samples of one prompt share."""
    search: RhymeSearch
    model: torch.nn.Module
    cache: object  # a KVCache, K rows per sample
    prefill_cache: object  # another one, of one row
    prompt: list
    max_new_tokens: int
    eot: int
    on_token: object
    sampler: dict

    @property
    def K(self):
        return self.search.candidates

    def prefill(self, rows, ids):
        """All but the last id, which is to be fed next, into these rows."""
        self.prefill_cache.pos = [0]
        if len(ids) > 1:
            self.model(torch.tensor([ids[:-1]], device=self.cache.k.device), cache=self.prefill_cache)
        self.cache.copy_from(self.prefill_cache, target=rows)

    def text_of(self, ids):
        """New ids as text; some tokenizers need what is before for the blanks."""
        tail = [i for i in self.prompt[-16:] if i != self.eot]
        return self.search.tokenizer.decode(tail + ids)[len(self.search.tokenizer.decode(tail)):]


@dataclass
class Draft:
    """A candidate for a line, in a row of the batch."""
    ids: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    breaks: list = field(default_factory=list)  # of each step: what a line break in the token's place would have had
    places: list = field(default_factory=list)  # (step, word, its log-probability): a rhyme could end the line there
    done: bool = False


def mean(logprobs):
    """Of a line's tokens; the last three count twice, for what is out of place at a line's end is heard."""
    return sum(logprobs + logprobs[-3:]) / len(logprobs + logprobs[-3:])


class Choice(NamedTuple):
    """A whole line to choose."""
    score: float
    row: int
    steered: bool
    ids: list
    logprobs: list


class Verse:
    """One sample: its ids, its place in the scheme, and its K rows of the cache, which hold all ids but the last.

    write() is a coroutine: it yields an id for each of its rows and is sent the log-probabilities (K, V) of what comes next.
    So every forward pass has the rows of all samples, each of which is at a line, and a step, of its own.
    """

    def __init__(self, writer, sample, rng):
        self.writer, self.sample, self.rng, self.row = writer, sample, rng, sample * writer.K
        self.ids, self.left, self.has_ended = list(writer.prompt), writer.max_new_tokens, False
        self.section = Section(writer.search.scheme, writer.search.tokenizer.decode([i for i in self.ids if i != writer.eot]))
        self.coroutine = self.write()
        self.feed = next(self.coroutine)  # an id for each row; None: the sample has ended

    def step(self, logprobs):
        try:
            self.feed = self.coroutine.send(logprobs)
        except StopIteration:
            self.feed = None

    @property
    def rows(self):
        return slice(self.row, self.row + self.writer.K)

    def move(self, row):
        """To other rows of the cache, from this one on."""
        for k in range(self.writer.K):
            self.writer.cache.copy_from(self.writer.cache, self.row + k, row + k)
        self.row = row

    def write(self):
        """Write line after line, until the sample has ended."""
        ended = False
        while not ended:
            if self.writer.cache.pos[self.row] + LINE_ROOM > self.writer.cache.max_len:
                self.writer.prefill(self.rows, self.ids[-(self.writer.model.config.block_size // 2):])
            self.first = self.writer.cache.pos[self.row]
            self.partners = self.section.partners()
            drafts = yield from self.draw()
            columns = slice(self.first, self.first + LONGEST)
            kept = [t[:, self.rows, :, columns].clone() for t in self.writer.cache.tensors]
            steered = yield from self.steer(drafts)
            choice = self.choose(drafts, steered)
            n, ended = self.take(choice.ids, choice.logprobs)
            self.keep(choice, n, kept)

    def draw(self):
        """1) Candidates, drawn as in plain sampling, until all but one are whole lines (fewer: the first ones are short)."""
        w, K = self.writer, self.writer.K
        used = {line_end(line)[0] for line in self.section.lines[-8:]}
        wanted = w.search.endings.rhyming(self.partners[0], used) if self.partners else []
        u = torch.from_numpy(self.rng.random((LONGEST, K), dtype=np.float32))
        # no end of a section while a line waits for its rhyme
        unfinished = not self.section.complete() and not self.section.open
        drafts, feed = [Draft() for _ in range(K)], [self.ids[-1]] * K
        for step in range(LONGEST):
            logprobs = allowed = yield feed
            if step == 0 and unfinished:
                allowed = logprobs.index_fill(1, torch.tensor(w.search.endings.breaks, device=logprobs.device), -torch.inf)
            drawn = sample_next(allowed, u[step].to(logprobs.device), **w.sampler)
            feed, breaks = drawn.tolist(), logprobs[:, w.search.endings.newline].tolist()
            if wanted and step >= 3:
                # a rhyming word by its share among them, drawn by the Gumbel-max trick, a bit cooler than it is
                lps = logprobs[:, wanted]
                best = (lps + 0.7 * torch.from_numpy(self.rng.gumbel(size=lps.shape)).to(lps)).argmax(1).tolist()
            for k, logprob in enumerate(logprobs.gather(1, drawn[:, None])[:, 0].tolist()):
                draft = drafts[k]
                if draft.done:
                    continue
                if wanted and step >= 3:
                    draft.places.append((step, wanted[best[k]], lps[k, best[k]].item()))
                draft.ids.append(feed[k])
                draft.logprobs.append(logprob)
                draft.breaks.append(breaks[k])
                draft.done = feed[k] == w.eot or '\n' in w.search.endings.texts[feed[k]]
            if sum(draft.done for draft in drafts) >= max(1, K - 1):  # the last has given places to end at
                break
        return drafts

    def place(self, draft):
        """Where, and with which word, a draft had best end: (step, word, its log-probability), or None."""
        w, ids = self.writer, draft.ids
        if self.partners:  # not as an afterthought to a line that is over
            places = [place for place in draft.places if ids[place[0] - 1] not in w.search.endings.marks]
        elif w.search.syllables or len(ids) == LONGEST:  # a free line may end after any of its own words
            places = [(i, ids[i], draft.logprobs[i]) for i in range(2, len(ids) - 1) if w.search.endings.texts[ids[i]][-1:].isalpha()
                      and not w.search.endings.texts[ids[i + 1]][:1].isalnum()]
        else:
            places = []

        def score(place):
            i, word, logprob = place  # -1: what a mark and a line break may have
            text = self.text_of(ids[:i] + [word])
            return mean([*draft.logprobs[:i], logprob, -1, -1]) - length_cost(text, self.section, w.search.syllables)

        return max(places, key=score, default=None)

    def steer(self, drafts):
        """2) A second ending of each draft: {row of the sample's: (ids, their log-probabilities)}."""
        w = self.writer
        places = {k: place for k, draft in enumerate(drafts) if self.is_line(draft) and (place := self.place(draft))}
        if not places:
            return {}
        w.cache.pos[self.rows] = [self.first + (1 + places[k][0] if k in places else 0) for k in range(w.K)]
        newline, ends = w.search.endings.newline, [*w.search.endings.marks, w.search.endings.newline]
        logprobs = yield [places[k][1] if k in places else newline for k in range(w.K)]
        marks = [ends[i] for i in logprobs[:, ends].argmax(1).tolist()]
        mark_lps = [logprobs[k, mark].item() for k, mark in enumerate(marks)]
        logprobs = yield marks
        steered = {}
        for k, (i, word, logprob) in places.items():
            ids, lps = [*drafts[k].ids[:i], word, marks[k]], [*drafts[k].logprobs[:i], logprob, mark_lps[k]]
            if marks[k] != newline:
                ids, lps = ids + [newline], lps + [logprobs[k, newline].item()]
            steered[k] = ids, lps
        return steered

    def choose(self, drafts, steered):
        """3) The best of all lines that may stand here."""
        choices = [self.judge(k, draft) for k, draft in enumerate(drafts) if draft.done]
        choices += [self.line(k, True, *line) for k, line in steered.items()]
        # nothing ended: the first candidate as far as it came
        [*ids, _], [*lps, _], newline = drafts[0].ids, drafts[0].logprobs, self.writer.search.endings.newline
        cut = Choice(0, 0, False, [*ids, newline], [*lps, drafts[0].breaks[-1]])
        return max((choice for choice in choices if choice), key=lambda choice: choice.score, default=cut)

    def text_of(self, ids):
        """The line that ends with these ids."""
        return self.section.open + self.writer.text_of(ids[:-1] if ids[-1] == self.writer.eot else ids)

    def is_line(self, draft):
        """Whether it isn't blank, and no section header."""
        text = self.text_of(draft.ids)
        return bool(text.strip()) and not OPEN_HEADER_LINE.match(text)

    def line(self, k, steered, ids, logprobs):
        text = self.text_of(ids).rstrip('\n')
        score = mean(logprobs) + quality(text, self.partners, self.section, self.writer.search.endings)
        score -= length_cost(text, self.section, self.writer.search.syllables)
        return Choice(score, k, steered, ids, logprobs)

    def judge(self, k, draft):
        """A draft that is a whole line; None where it may not stand here."""
        w, ids, lps, plain = self.writer, list(draft.ids), list(draft.logprobs), self.is_line(draft)
        if not plain and self.text_of(ids).strip()[-1:] not in ('', ']'):  # a header that never ends
            return None
        ends_section = ids[-1] == w.eot or w.search.endings.texts[ids[-1]].count('\n') > 1 or not plain
        if ends_section and not self.section.complete(more=int(plain)):
            if not plain or ids[-1] == w.eot and len(ids) < 3:
                return None
            ids[-1], lps[-1] = w.search.endings.newline, draft.breaks[-1]  # the section must go on
        elif not plain:  # as often as the model says: that is, if the first candidate says so
            return Choice(50 if k == 0 else -50, k, False, ids, lps)
        return self.line(k, False, ids, lps)

    def take(self, ids, lps):
        """The line into text and section: how many ids of it are new, and whether the sample has ended."""
        w = self.writer
        self.has_ended = ids[-1] == w.eot
        ended = len(ids) >= self.left or self.has_ended
        if ids[-1] == w.eot:
            ids, lps = ids[:-1], lps[:-1]
        if len(ids) > self.left:  # no room for it; but one line there must be
            n = self.left if self.left == w.max_new_tokens else 0
            ids, lps, self.has_ended = ids[:n], lps[:n], False
        for n, heard in enumerate(zip(ids, lps, strict=True), 1):  # token by token, as from generate(); True ends the sample
            if w.on_token(self.sample, *heard):
                ids, lps, ended, self.has_ended = ids[:n], lps[:n], True, True
                break
        self.ids += ids
        self.left -= len(ids)
        for line in w.text_of(ids).split('\n')[:-1]:
            self.section.add(self.section.open + line)
        return len(ids), ended

    def keep(self, choice, n, kept):
        """The keys and values of a line, but for those of its last token, into all of the sample's rows."""
        cache, columns = self.writer.cache, slice(self.first, self.first + n)
        for tensor, old in zip(cache.tensors, kept, strict=True):  # steering has overwritten what was drawn
            line = tensor[:, self.row + choice.row, :, columns] if choice.steered else old[:, choice.row, :, :n]
            tensor[:, self.rows, :, columns] = line[:, None].clone()
        cache.pos[self.rows] = [self.first + n] * self.writer.K


def length_cost(line, section, wanted):
    """In nats a token: of a line that is longer or shorter than the syllables wanted, or without them than the lines before."""
    if wanted:
        return max(0, abs(syllables(line) - wanted) - 1)
    usual = section.length()
    return 0 if usual is None else 0.12 * max(0, abs(syllables(line) - usual) - 2)


def quality(line, partners, section, endings):
    """What a line gains or loses beside its mean log-probability and its length, in nats a token."""
    bonus, words, recent = 0.0, split_words(line), section.lines[-8:]
    if line.strip() in {earlier.strip() for earlier in section.lines} or len(words) < 2:
        bonus -= 10
    # the same line with another end; the same again within it; the third line that begins alike
    said, pairs = {pair for earlier in recent for pair in pairwise(split_words(earlier))}, [*pairwise(words)]
    repeated = sum(pair in said or pair in pairs[:i] for i, pair in enumerate(pairs)) / max(1, len(pairs))
    bonus -= 4 * max(0, repeated - 0.25)
    bonus -= 0.3 * max(0, sum(split_words(earlier)[:2] == words[:2] for earlier in recent[-4:]) - 1)
    for partner in partners[:1]:
        rhyme = rhymes(partner, line)
        bonus += {'none': -4.0, 'slant': -1.5, 'perfect': 0.0, 'multisyllabic': 0.2}[rhyme.kind] - 0.5 * rhyme.homophone
    end = line_end(line)[0]
    bonus -= 2.0 * (end in {line_end(earlier)[0] for earlier in recent})
    if not partners and 'X' != section.scheme[len(section.lines) % len(section.scheme)] and endings.classes:
        # whoever comes next has to rhyme with it
        bonus -= 1.5 * (len(endings.rhyming(line)) < 12 or end in WEAK or end not in lexicon())
    return bonus
