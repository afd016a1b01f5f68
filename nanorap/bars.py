"""
Lines that rhyme on purpose: a search over whole lines, by the model's own log-probability and by how well they rhyme.

    for sample, ids, logprobs in write_bars(model, make_cache, tokenizer, prompt, 'AABB', ...):

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

from nanorap import UserError
from nanorap.generate import sample_next
from nanorap.phonemes import lexicon
from nanorap.rhyme import WEAK, line_end, rhymes, split_words, syllables
from nanorap.scheme import HEADER, Endings, Section, check_scheme

CANDIDATES = 4  # rows a sample
LONGEST = 32  # tokens of a line
ROOM = LONGEST + 4  # columns of the cache that a line may need


@torch.inference_mode()
def write_bars(model, make_cache, tokenizer, prompt, scheme, num_samples, max_new_tokens, vocab_size, eot, seed,
               syllables_wanted=None, candidates=CANDIDATES, endings=None, hear=None, **sampler):
    """Yield (sample, its next ids, their log-probabilities by the model), line by line, until each has ended or has
    max_new_tokens.

    model, make_cache, prompt (one list of ids), vocab_size, eot, seed, hear, sampler: as in generate(). scheme: a letter a
    line, repeated over each section; X is free. A section ends only where no line waits for its rhyme, and a sample only with
    a whole line.
    """
    check_scheme(scheme)
    block_size, device = model.config.block_size, next(model.parameters()).device
    max_len = min(block_size, len(prompt) + max_new_tokens + ROOM)
    if max_len < 2 * ROOM:
        raise UserError(f"--rhyme needs a model with a block_size of {2 * ROOM} or more, not {block_size}")
    writer = Writer(model, make_cache(num_samples * candidates, max_len), make_cache(1, max_len), candidates, tokenizer, prompt,
                    scheme, max_new_tokens, eot, endings or Endings(tokenizer, vocab_size), syllables_wanted, hear, sampler)
    writer.prefill(slice(None), prompt[-(max_len - ROOM):])
    verses = [Verse(writer, sample, np.random.default_rng((seed, sample))) for sample in range(num_samples)]
    while verses:
        feed = torch.tensor([i for verse in verses for i in verse.feed], device=device)
        logits = model(feed[:, None], cache=writer.cache)[:, :vocab_size].float()
        for verse, logprobs in zip(verses, torch.log_softmax(logits, -1).split(candidates), strict=True):
            verse.step(logprobs)
        for verse in list(verses):
            yield from verse.written
            verse.written.clear()
        # who has ended leaves: the last takes the place
        for i in reversed([i for i, verse in enumerate(verses) if verse.feed is None]):
            last = verses.pop()
            if i < len(verses):
                last.move(verses[i].row)
                verses[i] = last


@dataclass
class Writer:
    """What the samples share."""
    model: torch.nn.Module
    cache: object  # a KVCache
    one: object  # another, of one row, for prefilling
    K: int  # candidates, rows a sample
    tokenizer: object
    prompt: list
    scheme: str
    max_new_tokens: int
    eot: int
    endings: Endings
    syllables: int | None
    hear: object
    sampler: dict

    def prefill(self, rows, ids):
        """All but the last id, which is to be fed next, into these rows."""
        self.one.pos = [0]
        if len(ids) > 1:
            self.model(torch.tensor([ids[:-1]], device=self.cache.k.device), cache=self.one)
        self.cache.copy_from(self.one, target=rows)

    def text_of(self, ids):
        """New ids as text; some tokenizers need what is before for the blanks."""
        tail = [i for i in self.prompt[-16:] if i != self.eot]
        return self.tokenizer.decode(tail + ids)[len(self.tokenizer.decode(tail)):]


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
        self.ids, self.left, self.written = list(writer.prompt), writer.max_new_tokens, []
        self.section = Section(writer.scheme, writer.tokenizer.decode([i for i in self.ids if i != writer.eot]))
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
        """Lines go to self.written, until the sample has ended."""
        ended = False
        while not ended:
            if self.writer.cache.pos[self.row] + ROOM > self.writer.cache.max_len:
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
        wanted = w.endings.rhyming(self.partners[0], used) if self.partners else []
        u = torch.from_numpy(self.rng.random((LONGEST, K), dtype=np.float32))
        # no end of a section while a line waits for its rhyme
        unfinished = not self.section.complete() and not self.section.open
        drafts, feed = [Draft() for _ in range(K)], [self.ids[-1]] * K
        for step in range(LONGEST):
            logprobs = allowed = yield feed
            if step == 0 and unfinished:
                allowed = logprobs.index_fill(1, torch.tensor(w.endings.breaks, device=logprobs.device), -torch.inf)
            drawn = sample_next(allowed, u[step].to(logprobs.device), **w.sampler)
            feed, breaks = drawn.tolist(), logprobs[:, w.endings.newline].tolist()
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
                draft.done = feed[k] == w.eot or '\n' in w.endings.texts[feed[k]]
            if sum(draft.done for draft in drafts) >= max(1, K - 1):  # the last has given places to end at
                break
        return drafts

    def place(self, draft):
        """Where, and with which word, a draft had best end: (step, word, its log-probability), or None."""
        w, ids = self.writer, draft.ids
        if self.partners:  # not as an afterthought to a line that is over
            places = [place for place in draft.places if ids[place[0] - 1] not in w.endings.marks]
        elif w.syllables or len(ids) == LONGEST:  # a free line may end after any of its own words
            places = [(i, ids[i], draft.logprobs[i]) for i in range(2, len(ids) - 1) if w.endings.texts[ids[i]][-1:].isalpha()
                      and not w.endings.texts[ids[i + 1]][:1].isalnum()]
        else:
            places = []

        def score(place):
            i, word, logprob = place  # -1: what a mark and a line break may have
            text = self.text_of(ids[:i] + [word])
            return mean([*draft.logprobs[:i], logprob, -1, -1]) - length_cost(text, self.section, w.syllables)

        return max(places, key=score, default=None)

    def steer(self, drafts):
        """2) A second ending of each draft: {row of the sample's: (ids, their log-probabilities)}."""
        w = self.writer
        places = {k: place for k, draft in enumerate(drafts) if self.is_line(draft) and (place := self.place(draft))}
        if not places:
            return {}
        w.cache.pos[self.rows] = [self.first + (1 + places[k][0] if k in places else 0) for k in range(w.K)]
        newline, ends = w.endings.newline, [*w.endings.marks, w.endings.newline]
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
        [*ids, _], [*lps, _], newline = drafts[0].ids, drafts[0].logprobs, self.writer.endings.newline
        cut = Choice(0, 0, False, [*ids, newline], [*lps, drafts[0].breaks[-1]])
        return max((choice for choice in choices if choice), key=lambda choice: choice.score, default=cut)

    def text_of(self, ids):
        """The line that ends with these ids."""
        return self.section.open + self.writer.text_of(ids[:-1] if ids[-1] == self.writer.eot else ids)

    def is_line(self, draft):
        """Whether it isn't blank, and no section header."""
        text = self.text_of(draft.ids)
        return bool(text.strip()) and not HEADER.match(text)

    def line(self, k, steered, ids, logprobs):
        text = self.text_of(ids).rstrip('\n')
        score = mean(logprobs) + quality(text, self.partners, self.section, self.writer.endings)
        score -= length_cost(text, self.section, self.writer.syllables)
        return Choice(score, k, steered, ids, logprobs)

    def judge(self, k, draft):
        """A draft that is a whole line; None where it may not stand here."""
        w, ids, lps, plain = self.writer, list(draft.ids), list(draft.logprobs), self.is_line(draft)
        if not plain and self.text_of(ids).strip()[-1:] not in ('', ']'):  # a header that never ends
            return None
        ends_section = ids[-1] == w.eot or w.endings.texts[ids[-1]].count('\n') > 1 or not plain
        if ends_section and not self.section.complete(more=int(plain)):
            if not plain or ids[-1] == w.eot and len(ids) < 3:
                return None
            ids[-1], lps[-1] = w.endings.newline, draft.breaks[-1]  # the section must go on
        elif not plain:  # as often as the model says: that is, if the first candidate says so
            return Choice(50 if k == 0 else -50, k, False, ids, lps)
        return self.line(k, False, ids, lps)

    def take(self, ids, lps):
        """The line into text and section: how many ids of it are new, and whether the sample has ended."""
        w = self.writer
        ended = len(ids) >= self.left or ids[-1] == w.eot
        if ids[-1] == w.eot:
            ids, lps = ids[:-1], lps[:-1]
        if len(ids) > self.left:  # no room for it; but one line there must be
            n = self.left if self.left == w.max_new_tokens else 0
            ids, lps = ids[:n], lps[:n]
        for n, heard in enumerate(zip(ids, lps, strict=True), 1):  # token by token, as from generate(); True ends the sample
            if w.hear and w.hear(self.sample, *heard):
                ids, lps, ended = ids[:n], lps[:n], True
                break
        self.written.append((self.sample, ids, lps))
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
