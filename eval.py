"""
How good a model's rap is: perplexity on held-out songs, rhyme, structure, novelty; and the standard tasks.

$ python eval.py --out_dir=out-lyrics --dataset=lyrics --tasks=lyrics,rhyme,structure,novelty --report=report
$ python eval.py --init_from=gpt2 --tasks=lambada,hellaswag,wikitext
$ python eval.py --text=my_verse.txt --tasks=rhyme            # a text, or what sample.py wrote; no model
$ python eval.py --compare=base.json,tuned.json               # one table of what --json=FILE wrote before
"""

import random
import re
from json import dumps
from pathlib import Path

from tqdm import tqdm

from model import GPT
from nanorap.common import UserError, check_writable, model_name, read_plain_text, reason, run_folder
from nanorap.dataset import find_dataset, is_blank, read_documents, read_meta, read_split
from nanorap.lm_eval import STANDARD, examples, lyrics_loss
from nanorap.quantize import pack
from nanorap.rap import eval_report, novelty
from nanorap.rap.rhyme import measures
from nanorap.rap.rhyme_search import RhymeSearch
from nanorap.rap.scheme import Endings, check_scheme
from nanorap.rap.sections import structure
from nanorap.runtime import setup
from nanorap.text import header_keys, read_prompt, write
from nanorap.tokenizer import load_tokenizer, same_tokenizer, tokenizer_from_meta

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is loaded
# resume (from out_dir), or gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a folder or hub name
init_from = 'resume'
tasks = 'lyrics,rhyme,structure,novelty'  # of these, and lambada, hellaswag, wikitext
dataset: str
text: str | None = None  # measure this file instead of samples: a text, or what sample.py --output wrote
max_songs = 100  # training and held-out songs that samples are compared with, chosen by the seed
# samples
num_samples = 10
start = '[Verse 1]\n'  # the prompt, \n for a line break, or FILE:path; novelty is measured without it
max_new_tokens = 300
temperature = 0.8
top_k: int | None = 200
top_p = 1.0
rhyme = ''  # a scheme that lines are to keep, as sample.py's --rhyme=AABB
syllables: int | None = None  # per line, with --rhyme
seed: int
# the standard tasks: a local file of JSON lines instead of the hub's data set
lambada_file: str | None = None
hellaswag_file: str | None = None
wikitext_file: str | None = None
limit: int | None = None  # examples per task. None: all
# output
json: str | None = None  # write all numbers into this file
report: str | None = None  # write report.html into this folder: tables, plots, samples with rhymes in colour
show_copies = False  # print the lines that are copied, eight words or more, beside their source
compare: str | None = None  # only print one table of several such JSON files, with commas between
batch_size = 4  # windows that are scored at once; it doesn't change the numbers
device: str
dtype: str
# -----------------------------------------------------------------------------
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))

GROUPED = ('rhyme', 'structure', 'novelty')  # measured per text, of samples beside real songs
tasks = 'rhyme,structure' if text and 'tasks' not in config_given else tasks
tasks = [task for task in tasks.split(',') if task]
all_tasks = ['lyrics', *GROUPED, *STANDARD]
checks = [
    (set(tasks) - set(all_tasks), f"tasks are {', '.join(all_tasks)}"),
    (min(num_samples, max_new_tokens, max_songs, batch_size, limit or 1) < 1,
     "num_samples, max_new_tokens, max_songs, batch_size and limit must be 1 or more"),
    (seed < 0 or temperature < 0, "seed and temperature must be 0 or more"),
    (top_k is not None and top_k < 1 or not 0 < top_p <= 1, "top_k must be 1 or more, top_p in (0, 1]"),
    (text and set(tasks) - set(GROUPED), f"--text goes with --tasks={','.join(GROUPED)}, or some of them"),
]
for is_wrong, advice in checks:
    if is_wrong:
        raise UserError(f"eval.py: {advice}")
if rhyme:
    check_scheme(rhyme)
if compare:
    print(eval_report.comparison([eval_report.read_results(path) for path in compare.split(',')]))
    raise SystemExit
rt = setup(device, dtype)
if json and rt.is_main:
    check_writable(json)
if report and rt.is_main:
    check_writable(Path(report, 'report.html'), makes_folder=True)
needs_texts = bool(set(tasks) & set(GROUPED))
name = text or model_name(out_dir, init_from)
results = dict(name=name, settings=config)

# 1) the model, unless the text is given
if not text:
    tokenizer = load_tokenizer(name)
    model = pack(GPT.from_pretrained(name).eval().to(rt.device, rt.dtype))

# 2) the songs
songs = {}
if set(tasks) & {'lyrics', 'novelty'} or needs_texts and not text:
    data_dir = find_dataset(dataset)
    meta = read_meta(data_dir)
    songs_tokenizer = tokenizer_from_meta(meta, data_dir)
    for split in ('train', 'val') if needs_texts else ('val',):
        # as text, which takes a tenth of the memory of Python's ints
        songs[split] = [songs_tokenizer.decode(song) for song in read_split(data_dir, split)]

# 3) texts to measure, in groups: text has the prompt, new does not; cut: whether the text has not ended
groups = {}
if text:
    if text.endswith('.jsonl'):
        texts = [entry['text'] for entry in read_documents(text)]
    else:
        try:
            texts = re.split(r'(?:\A|\n)-{15}[ \t]*(?:\n|\Z)', read_plain_text(text))
        except (OSError, UnicodeError) as e:
            raise UserError(f"can't read the text {text}: {reason(e)}") from None
    groups = {'text': [dict(text=t, new=t, cut=False) for t in texts if not is_blank(t)]}
    if not groups['text']:
        raise UserError(f"{text} is empty: give a file with a text")
elif needs_texts and rt.is_main:
    sampler = dict(temperature=temperature, top_k=top_k, top_p=top_p)
    if rhyme:
        endings = Endings(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size))
        sampler['search'] = RhymeSearch(endings, rhyme, syllables)
    samples = write(model, tokenizer, [read_prompt(start)], num_samples=num_samples,
                    max_new_tokens=max_new_tokens, seed=seed, new_song=header_keys(name) is not None,
                    verbose=True, **sampler)
    groups = {'samples': [dict(text=one.prompt + one.text, new=one.text, cut=one.is_cut) for one in samples]}
    for group, split in (('training songs', 'train'), ('held-out songs', 'val')):
        chosen = songs[split]
        if len(chosen) > max_songs:
            chosen = random.Random(seed).sample(chosen, max_songs)
        groups[group] = [dict(text=t, new=t, cut=False) for t in chosen]

# 4) measure
if 'lyrics' in tasks:
    is_same = same_tokenizer(tokenizer.meta(), meta)
    ids = read_split(data_dir, 'val')
    held_out = [(song_ids if is_same else tokenizer.encode(song), song)
                for song_ids, song in zip(ids, songs['val'], strict=True)]
    results['lyrics'] = lyrics_loss(model, rt, tokenizer, held_out, batch_size)
for task in (task for task in STANDARD if task in tasks):
    rows = examples(task, config[f'{task}_file'])[:limit]
    results[task] = STANDARD[task](model, rt, tokenizer, rows, batch_size)
if not rt.is_main:
    rt.close()
index = novelty.Songs(songs['train']) if 'novelty' in tasks else None


def measure_novelty(one):
    numbers = novelty.novelty(index, one['new'])
    del numbers['nearest_song']
    return numbers


measure = {
    'rhyme': lambda one: measures(one['text'], shuffles=10),
    'structure': lambda one: structure(one['text'], one['cut']),
    'novelty': measure_novelty,
}
for task in (task for task in GROUPED if task in tasks):
    results[task] = {}
    for group, texts in groups.items():
        if task == 'novelty' and group == 'training songs':  # the index consists of them
            continue
        for one in tqdm(texts, desc=f'{task} of {group}', leave=False, disable=None):
            one[task] = measure[task](one)
        results[task][group] = eval_report.summary([one[task] for one in texts])
results['texts'] = groups.get('text') or groups.get('samples') or []

# 5) write and print
failure = None
try:
    if json:
        Path(json).write_text(dumps(results, indent=1, ensure_ascii=False) + '\n', encoding='utf-8',
                              errors='replace')
    if report:
        log = Path(run_folder(out_dir)) / 'log.csv' if init_from == 'resume' and not text else None
        Path(report, 'report.html').write_text(eval_report.html(results, groups, log), encoding='utf-8',
                                               errors='replace')
except OSError as e:
    failure = UserError(f"can't write {e.filename or report} ({e.strerror}): choose another place")
print(eval_report.tables(results))
if show_copies and index:
    for number, one in enumerate(results['texts'], 1):
        for copy in novelty.copies(index, one['new']):
            print(f"\ntext {number}, {copy.words} words:  {copy.line}\n"
                  f"   training song {copy.song + 1}:  {copy.source}")
if failure:
    raise failure
if report:
    print(f"\n{Path(report) / 'report.html'} is written")
rt.close()
