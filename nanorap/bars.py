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

import re
from itertools import pairwise

import numpy as np
import torch

from nanorap import UserError
from nanorap.generate import sample_next
from nanorap.phonemes import lexicon, phonemes, with_vowels
from nanorap.rhyme import WEAK, line_end, rhyme_parts, rhymes, split_words, syllables

CANDIDATES = 4  # rows a sample
LONGEST = 32  # tokens of a line
HEADER = re.compile(r'\s*\[[^\]\n]*\]?\s*$')


def rhyming_sounds(sounds):
    """From the main stress on, as in rhyme.Part: ('P', 'OW1', 'AH0', 'T') -> (('OW', ()), ('AH', ('T',)))."""
    syllables = with_vowels(sounds)
    stressed = [i for i, (_, stress, _) in enumerate(syllables) if stress == '1'] or [0]
    return tuple((vowel, after) for vowel, _, after in syllables[stressed[-1]:])


class Endings:
    """What a vocabulary has to end lines with: words by their rhyme class, punctuation marks, line breaks."""

    def __init__(self, tokenizer, vocab_size):
        before = tokenizer.encode('\n')  # some tokenizers drop a text's first blank
        skip = len(tokenizer.decode(before))
        self.texts = [tokenizer.decode([*before, i])[skip:] for i in range(vocab_size)]
        self.newline = before[-1]
        self.marks = [i for i, text in enumerate(self.texts) if text in (',', '.', '!', '?', '...', ';', '—')]
        self.breaks = [i for i, text in enumerate(self.texts) if '\n' in text or text.lstrip()[:1] == '['] + [tokenizer.eot]
        self.classes = {}  # the sounds from the stressed vowel on -> tokens
        known = lexicon()
        for i, text in enumerate(self.texts):
            word = text[1:]
            if text[:1] == ' ' and len(word) > 1 and word.isascii() and word.isalpha() and word.islower() and word in known:
                for sounds in {rhyming_sounds(sounds) for sounds in phonemes(word)}:
                    self.classes.setdefault(sounds, []).append(i)

    def rhyming(self, line, used=()):
        """Tokens that rhyme perfectly with a line's end; none that sounds like it, or is among the words `used`."""
        word, _ = line_end(line)
        sounds = set(phonemes(word))
        found = {i for part in rhyme_parts((word, '')) if part.cost <= 10 for i in self.classes.get(part.sounds, ())}
        return [i for i in sorted(found) if (text := self.texts[i][1:]) not in used and text != word
                and text not in WEAK and sounds.isdisjoint(phonemes(text))]


class Section:
    """Where a text stands in its rhyme scheme: the lines since the last header or blank line."""

    def __init__(self, scheme, text):
        self.scheme, self.lines, self.open = scheme, [], ''
        for line in text.split('\n')[:-1]:
            self.add(line)
        self.open = text.split('\n')[-1]  # a line that the prompt leaves to be gone on with

    def add(self, line):
        if not line.strip() or HEADER.match(line):
            self.lines = []
        else:
            self.lines.append(line)
        self.open = ''

    def partners(self):
        """The lines of this turn of the scheme with which the next one should rhyme, the nearest first."""
        i = len(self.lines) % len(self.scheme)
        turn = self.lines[len(self.lines) - i:]
        return [line for line, letter in zip(turn, self.scheme, strict=False) if letter == self.scheme[i] != 'X'][::-1]

    def complete(self, more=0):
        """Whether a section may end here, or `more` lines on: no line still waits for its rhyme."""
        i = (len(self.lines) + more) % len(self.scheme)
        return not set(self.scheme[:i]) & set(self.scheme[i:]) - {'X'}


def check_scheme(scheme):
    if not re.fullmatch('[A-Z]{1,16}', scheme):
        raise UserError(f"--rhyme={scheme}: give a letter a line, as in AABB, ABAB or XAXA, where X is free")


def rhyme_counts(text, scheme):
    """(pairs of lines that the scheme asks to rhyme, those that do, those that do perfectly by the pronouncing dictionary).

    A line's pair is the nearest line before it with the same letter."""
    section, pairs = Section(scheme, ''), []
    for line in text.split('\n'):
        if line.strip() and not HEADER.match(line):
            pairs += [(partner, line) for partner in section.partners()[:1]]
        section.add(line)
    return len(pairs), sum(bool(rhymes(*pair)) for pair in pairs), sum(perfect(*pair) for pair in pairs)


def perfect(line, other):
    """Whether the last words, both in the dictionary, sound alike from the last main stress on, and differ before it."""
    a, b = (line_end(text)[0] for text in (line, other))
    if a not in lexicon() or b not in lexicon():
        return False

    def from_stress(sounds):
        i = max((i for i, sound in enumerate(sounds) if sound[-1] == '1'), default=len(sounds))
        return sounds[i:], sounds[:i][-1:]  # the rhyme, and the sound before it

    tails = [[from_stress(sounds) for sounds in phonemes(word)] for word in (a, b)]
    return any(x[0] and x[0] == y[0] and x[1] != y[1] for x in tails[0] for y in tails[1])


def quality(line, partners, section, endings, wanted):
    """What a line gains or loses beside its mean log-probability, in nats a token. wanted: syllables, or None."""
    bonus, words = 0.0, split_words(line)
    if line.strip() in {earlier.strip() for earlier in section.lines} or len(words) < 2:
        bonus -= 10
    said = {pair for earlier in section.lines[-8:] for pair in pairwise(split_words(earlier))}
    repeated = sum(pair in said for pair in pairwise(words)) / max(1, len(words) - 1)
    bonus -= 4 * max(0, repeated - 0.25)  # the same line with another end
    for partner in partners[:1]:
        rhyme = rhymes(partner, line)
        bonus += {'none': -4.0, 'slant': -1.5, 'perfect': 0.0, 'multisyllabic': 0.2}[rhyme.kind] - 0.5 * rhyme.homophone
    end = line_end(line)[0]
    bonus -= 2.0 * (end in {line_end(earlier)[0] for earlier in section.lines[-8:]})
    if not partners and 'X' != section.scheme[len(section.lines) % len(section.scheme)] and endings.classes:
        # whoever comes next has to rhyme with it
        bonus -= 1.5 * (len(endings.rhyming(line)) < 12 or end in WEAK or end not in lexicon())
    if wanted:
        bonus -= max(0, abs(syllables(line) - wanted) - 1)
    elif partners:
        bonus -= 0.1 * max(0, abs(syllables(line) - syllables(partners[0])) - 2)
    return bonus


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
    K, block_size, device = candidates, model.config.block_size, next(model.parameters()).device
    endings = endings or Endings(tokenizer, vocab_size)  # a second or two: for several calls, make it once
    room = LONGEST + 4
    max_len = min(block_size, len(prompt) + max_new_tokens + room)
    if max_len < 2 * room:
        raise UserError(f"--rhyme needs a model with a block_size of {2 * room} or more, not {block_size}")
    cache, one = make_cache(num_samples * K, max_len), make_cache(1, max_len)
    tail = [i for i in prompt[-16:] if i != eot]  # some tokenizers need what is before for the blanks of what follows

    def text_of(ids):
        return tokenizer.decode(tail + ids)[len(tokenizer.decode(tail)):]

    start = tokenizer.decode([i for i in prompt if i != eot])
    sections = [Section(scheme, start) for _ in range(num_samples)]
    rngs = [np.random.default_rng((seed, i)) for i in range(num_samples)]
    texts = [list(prompt) for _ in range(num_samples)]
    alive = list(range(num_samples))

    def prefill(sample, ids):
        """All but the last id, which the next step feeds, into a sample's rows."""
        one.pos = [0]
        if len(ids) > 1:
            model(torch.tensor([ids[:-1]], device=device), cache=one)
        cache.copy_from(one, target=slice(sample * K, sample * K + K))

    prefill(0, prompt[-(max_len - room):])
    for sample in range(1, num_samples):
        cache.copy_from(cache, 0, slice(sample * K, sample * K + K))

    while alive:
        for sample in alive:
            if cache.pos[sample * K] + room > max_len:
                prefill(sample, texts[sample][-max(1, block_size // 2):])
        # 1) draw candidates; rows of samples that have ended, if any, idle along
        rows, partners = range(num_samples * K), [section.partners() for section in sections]
        first = [cache.pos[row] for row in rows]
        used = [{line_end(line)[0] for line in section.lines[-8:]} for section in sections]
        wanted = [torch.tensor(endings.rhyming(p[0], used[s]) if p else [], dtype=torch.long, device=device)
                  for s, p in enumerate(partners)]
        u = np.concatenate([rng.random((LONGEST, K), dtype=np.float32) for rng in rngs], axis=1)
        lines, logprobs, breaks = [[] for _ in rows], [[] for _ in rows], [[] for _ in rows]
        done, places = [row // K not in alive for row in rows], [[] for _ in rows]  # (step, word, its log-probability)
        feed = [texts[row // K][-1] for row in rows]
        unfinished = [row for row in rows if not sections[row // K].complete() and not sections[row // K].open]
        for step in range(LONGEST):
            logits = model(torch.tensor(feed, device=device)[:, None], cache=cache)[:, :vocab_size]
            allowed = logits
            if step == 0 and unfinished:  # no end of a section while a line waits for its rhyme
                allowed = logits.clone()
                allowed[[[row] for row in unfinished], endings.breaks] = -torch.inf
            drawn = sample_next(allowed, torch.from_numpy(u[step]).to(device), **sampler)
            logits = logits.float() - torch.logsumexp(logits.float(), -1, keepdim=True)
            feed, drawn_lp = drawn.tolist(), logits.gather(1, drawn[:, None])[:, 0].tolist()
            newline_lp = logits[:, endings.newline].tolist()
            for s in alive:
                if len(wanted[s]) and step >= 3 and not all(done[s * K : s * K + K]):
                    # a rhyming word by its share among them, drawn by the Gumbel-max trick, a bit cooler than it is
                    lps = logits[s * K : s * K + K, wanted[s]]
                    noise = torch.from_numpy(rngs[s].gumbel(size=lps.shape)).to(lps)
                    best = (lps + 0.7 * noise).argmax(1).tolist()
                    for k, i in enumerate(best):
                        if not done[s * K + k]:
                            places[s * K + k].append((step, wanted[s][i].item(), lps[k, i].item()))
            for row in rows:
                if done[row]:
                    continue
                if feed[row] == eot or '\n' in endings.texts[feed[row]]:
                    done[row] = True
                lines[row].append(feed[row])
                logprobs[row].append(drawn_lp[row])
                breaks[row].append(newline_lp[row])
            # enough whole lines; the others have given places to end at
            for s in alive:
                if 2 * sum(done[s * K : s * K + K]) >= K:
                    done[s * K : s * K + K] = [True] * K
            if all(done):
                break
        kept = [(cache.k[:, row, :, first[row] : first[row] + step + 1].clone(),
                 cache.v[:, row, :, first[row] : first[row] + step + 1].clone()) for row in rows]

        # 2) steered endings: the place of each row with the best mean log-probability, and a line of a fitting length
        steered = {}
        for row in rows:
            s, options = row // K, []
            if s not in alive:
                continue
            target = syllables_wanted or (syllables(partners[s][0]) if partners[s] else None)
            if partners[s]:  # not as an afterthought to a line that is over
                found = [place for place in places[row] if lines[row][place[0] - 1] not in endings.marks]
            else:  # a free line may end after any of its own words
                found = [(i, lines[row][i], logprobs[row][i]) for i in range(2, len(lines[row]) - 1)
                         if not endings.texts[lines[row][i + 1]][:1].isalnum() and endings.texts[lines[row][i]][-1:].isalpha()]
                found = found if syllables_wanted or len(lines[row]) == LONGEST else []
            for i, word, logprob in found:
                length = syllables(sections[s].open + text_of(lines[row][:i] + [word]))
                off = max(0, abs(length - target) - (0 if syllables_wanted else 2)) if target else 0
                options.append(((sum(logprobs[row][:i]) + logprob - 2) / (i + 3) - (0.5 if syllables_wanted else 0.1) * off,
                                i, word, logprob))
            if options:
                steered[row] = max(options)[1:]
        if steered:
            for row, (i, _, _) in steered.items():
                cache.pos[row] = first[row] + 1 + i
            for row in rows:
                if row not in steered:
                    cache.pos[row] = first[row]
            ends = torch.tensor([*endings.marks, endings.newline], device=device)
            feed = [steered[row][1] if row in steered else endings.newline for row in rows]
            logits = torch.log_softmax(model(torch.tensor(feed, device=device)[:, None], cache=cache).float(), -1)
            best = ends[logits[:, ends].argmax(1)]
            best_lp = logits.gather(1, best[:, None])[:, 0].tolist()
            best = best.tolist()
            logits = torch.log_softmax(model(torch.tensor(best, device=device)[:, None], cache=cache).float(), -1)
            newline_lp = logits[:, endings.newline].tolist()

        # 3) choose
        for s in list(alive):
            section, options = sections[s], []
            for row in range(s * K, s * K + K):
                ids, lps = list(lines[row]), list(logprobs[row])
                last = endings.texts[ids[-1]]
                if ids[-1] == eot or '\n' in last:
                    text = section.open + text_of(ids if ids[-1] != eot else ids[:-1])
                    plain = text.strip() and not HEADER.match(text)
                    ends_section = ids[-1] == eot or last.count('\n') > 1 or not plain
                    if ends_section and not section.complete(more=int(bool(plain))):
                        if not plain or ids[-1] == eot and len(ids) < 3:
                            continue
                        ids[-1], lps[-1] = endings.newline, breaks[row][-1]  # the section must go on
                        ends_section = False
                    if ends_section and not plain:
                        # as often as the model says: that is, if the first candidate says so
                        options.append((50 if row == s * K else -50, row, False, ids, lps))
                        continue
                    score = np.mean(lps) + quality(text.rstrip('\n'), partners[s], section, endings, syllables_wanted)
                    options.append((score, row, False, ids, lps))
                if row in steered:
                    i, word, logprob = steered[row]
                    more = [best[row]] * (best[row] != endings.newline)
                    ids = lines[row][:i] + [word, *more, endings.newline]
                    lps = logprobs[row][:i] + [logprob, best_lp[row]] + [newline_lp[row]] * len(more)
                    text = section.open + text_of(ids)
                    score = np.mean(lps) + quality(text.rstrip('\n'), partners[s], section, endings, syllables_wanted)
                    options.append((score, row, True, ids, lps))
            if not options:  # nothing ended: the first candidate as far as it came
                row = s * K
                options = [(0, row, False, lines[row][:-1] + [endings.newline], logprobs[row][:-1] + [breaks[row][-1]])]
            _, row, is_steered, ids, lps = max(options, key=lambda option: option[0])
            left = max_new_tokens - (len(texts[s]) - len(prompt))
            ended = len(ids) >= left or ids[-1] == eot
            if ids[-1] == eot:
                ids, lps = ids[:-1], lps[:-1]
            if len(ids) > left:  # no room for it; but one line there must be
                ids, lps = (ids[:left], lps[:left]) if len(texts[s]) == len(prompt) else ([], [])
            # heard token by token, as from generate(); True ends the sample
            ended |= hear is not None and any([hear(s, *heard) for heard in zip(ids, lps, strict=True)])
            yield s, ids, lps
            if ended:
                alive.remove(s)
                continue
            texts[s] += ids
            for line in text_of(ids).split('\n')[:-1]:
                section.add(section.open + line)
            # the line's keys and values, but for its last token's, go to all rows of the sample
            n, p0, all_rows = len(ids), first[row], slice(s * K, s * K + K)
            if not is_steered:
                cache.k[:, row, :, p0 : p0 + n], cache.v[:, row, :, p0 : p0 + n] = (t[:, :, :n] for t in kept[row])
            for t in (cache.k, cache.v):
                t[:, all_rows, :, p0 : p0 + n] = t[:, row : row + 1, :, p0 : p0 + n].clone()
            cache.pos[all_rows] = [p0 + n] * K
        for row in rows:
            if row // K not in alive:
                cache.pos[row] = min(cache.pos[row], max_len - room)  # idle
