"""Prompts into ids, and ids into text as they come: character by whole character, up to a stop text."""

from nanorap import UserError


def encode(tokenizer, prompt, vocab_size, new_song=False):
    """A prompt's ids, one at least; with new_song an end of text stands before them. vocab_size: the model's."""
    ids = [tokenizer.eot] * (new_song or not prompt) + tokenizer.encode(prompt)
    if max(ids) >= vocab_size:
        raise UserError(f"the prompt has token id {max(ids)}, beyond the model's vocabulary of {vocab_size}: the tokenizer "
                        f"'{tokenizer.name}' is another model's")
    return ids


class Sample:
    """The text that a prompt's new ids add to it."""

    def __init__(self, tokenizer, prompt, ids, stops=()):
        self.tokenizer, self.prompt, self.stops = tokenizer, prompt, stops
        self.ids, self.logprobs, self.text, self.ended, self.told = [], [], '', False, 0
        # decoded together: some tokenizers drop the space before a text's first word
        self.before, self.waiting = [i for i in ids[-8:] if i != tokenizer.eot], []

    def add(self, token, logprob):
        """One token more; True if a stop text has come."""
        self.ids.append(token)
        self.logprobs.append(round(logprob, 4))
        self.waiting.append(token)
        self._read()
        found = [at for text in self.stops if (at := self.text.find(text)) >= 0]
        if found:
            self.text, self.ended = self.text[: min(found)], True
        return bool(found)

    def _read(self, last=False):
        new = self.tokenizer.decode(self.before + self.waiting)[len(self.tokenizer.decode(self.before)) :]
        if last or not new.endswith('\ufffd'):  # the bytes of a character may come in several tokens
            self.text += new
            self.before, self.waiting = (self.before + self.waiting)[-8:], []

    def close(self):
        """No token will come any more."""
        if self.waiting:
            self._read(last=True)
        self.ended = True
        return self

    def fresh(self):
        """The text that has come since the last call; what may be the beginning of a stop text waits."""
        end = len(self.text) - (0 if self.ended else max((len(text) - 1 for text in self.stops), default=0))
        start, self.told = self.told, max(self.told, end)
        return self.text[start : self.told]

    def whole_lines(self):
        """How many lines have been written to their end, blank ones left out."""
        return sum(bool(line.strip()) for line in self.text.split('\n')[:-1])
