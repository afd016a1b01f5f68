"""The sampler by hand and by statistics, generation against transformers, sample.py as a user runs it."""

import json
import os
import pty
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, generate_ids, randomise_matrices, run
from conftest import TINY as TINY_RUN
from transformers import GPT2Config, GPT2LMHeadModel

from model import GPT, GPTConfig
from nanorap.checkpoint import write_folder
from nanorap.generate import sample_next
from nanorap.tokenizer import load_tokenizer

TINY = partial(GPTConfig, n_layer=2, n_head=2, n_embd=16, block_size=24, vocab_size=64)


def test_greedy_equals_transformers(tmp_path):
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=64, n_positions=24, bos_token_id=0,
                        eos_token_id=63, tie_word_embeddings=False)
    theirs = randomise_matrices(GPT2LMHeadModel(config))
    theirs.save_pretrained(tmp_path)
    ours = GPT.from_pretrained(str(tmp_path)).eval()
    prompt = [5, 9, 2]
    ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None)
    wanted = ids[0, 3:].tolist()
    assert generate_ids(ours, prompt, n=2, max_new_tokens=20, temperature=0) == [wanted, wanted]
    assert len(set(wanted)) > 3


def test_a_sample_depends_on_its_seed_alone():
    model = randomise_matrices(GPT(TINY()))
    ten = generate_ids(model, [1, 2], n=10, seed=7)
    assert len({*map(tuple, ten)}) == 10
    assert generate_ids(model, [1, 2], n=3, seed=7) == ten[:3]
    assert generate_ids(model, [1, 2], n=3, seed=8) != ten[:3]


def test_end_of_text_ends_a_sample():
    model = randomise_matrices(GPT(TINY()))
    free = generate_ids(model, [1, 2], n=8, max_new_tokens=20)
    eot = free[0][5]
    ended = generate_ids(model, [1, 2], n=8, max_new_tokens=20, eot=eot)
    assert ended == [ids[: ids.index(eot)] if eot in ids else ids for ids in free]
    assert len(ended[0]) <= 5


def test_padding_ids_of_the_vocabulary_are_never_sampled():
    """The model has logits for them, too."""
    model = randomise_matrices(GPT(TINY()))
    unlimited = generate_ids(model, [1, 2], n=20, max_new_tokens=20)
    limited = generate_ids(model, [1, 2], n=20, max_new_tokens=20, vocab_size=10)
    assert max(max(ids) for ids in unlimited) > 9
    assert max(max(ids) for ids in limited) <= 9


@pytest.mark.parametrize('sampler, kept', [
    (dict(), [0, 1, 2, 3, 4]), (dict(top_k=2), [1, 3]), (dict(top_p=0.5), [1]), (dict(top_p=0.51), [1, 3]),
    (dict(top_k=9), [0, 1, 2, 3, 4]),
    (dict(top_k=4, top_p=0.9), [0, 1, 3]), (dict(temperature=2.0), [0, 1, 2, 3, 4]),
    (dict(temperature=0), [1]), (dict(top_k=1), [1]),
])
def test_sampler_statistics(sampler, kept):
    """20,000 samples have the probabilities that a hand calculation gives them."""
    p = torch.tensor([0.12, 0.5, 0.05, 0.3, 0.03])
    n = 20_000
    u = torch.from_numpy(np.random.default_rng(0).random(n).astype(np.float32))
    shares = torch.bincount(sample_next(p.log().expand(n, 5), u, **sampler), minlength=5) / n
    wanted = p ** (1 / (sampler.get('temperature', 1) or 1))
    wanted[[i for i in range(5) if i not in kept]] = 0
    assert torch.allclose(shares, wanted / wanted.sum(), atol=0.012)
    assert (shares > 0).nonzero().flatten().tolist() == kept


def test_sampler_with_random_numbers_near_0_and_1():
    logits = torch.tensor([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]]).float()
    for u, wanted in ((0.0, 1), (0.499, 1), (0.501, 3), (1 - 2**-24, 3)):
        assert sample_next(logits, torch.tensor([u])).item() == wanted
        assert sample_next(logits, torch.tensor([u]), top_p=0.999).item() in (1, 3)


@pytest.mark.parametrize('top_k', [None, 200])
def test_the_smallest_temperature_is_greedy_and_does_not_overflow(top_k):
    logits = torch.randn(4, 1000, generator=torch.manual_seed(0))
    ids = sample_next(logits, torch.full((4,), 0.5), temperature=1e-38, top_k=top_k)
    assert ids.tolist() == logits.argmax(-1).tolist()


def texts(result):
    """The samples that sample.py printed."""
    return result.stdout.partition('\n')[2].removesuffix('\n').split('\n---------------\n')


@pytest.fixture
def flags(trained, tmp_path):
    """Options for three samples of the tiny run, which are written to o.jsonl, too."""
    return [f'--out_dir={trained[0]}', '--num_samples=3', '--max_new_tokens=30', '--device=cpu',
            f'--output={tmp_path}/o.jsonl']


def test_prompt_from_a_file_and_output_to_files(flags, tmp_path):
    (tmp_path / 'prompt.txt').write_text('[Verse 1]\nYo, ')
    printed = texts(run('sample.py', *flags, '--start=FILE:prompt.txt', cwd=tmp_path))
    assert len(printed) == 3
    assert all(text.startswith('[Verse 1]\nYo, ') and len(text) > 20 for text in printed)
    samples = [json.loads(line) for line in (tmp_path / 'o.jsonl').read_text().splitlines()]
    assert [sample['text'] for sample in samples] == printed
    assert samples[0]['prompt'] == '[Verse 1]\nYo, '
    run('sample.py', *flags, '--start=[Verse 1]\nYo, ', f'--output={tmp_path}/o.txt')
    assert (tmp_path / 'o.txt').read_text() == '\n---------------\n'.join(printed) + '\n'


def test_prompts_of_other_systems_and_of_the_command_line(flags, tmp_path):
    r"""A byte order mark, \r\n, and \n as it is typed make no difference."""
    wanted = texts(run('sample.py', *flags, '--start=[Verse 1]\nYo, '))
    assert texts(run('sample.py', *flags, r'--start=[Verse 1]\nYo, ')) == wanted
    (tmp_path / 'prompt.txt').write_bytes(b'\xef\xbb\xbf[Verse 1]\r\nYo, ')
    assert texts(run('sample.py', *flags, f'--start=FILE:{tmp_path}/prompt.txt')) == wanted
    (tmp_path / 'prompt.txt').write_bytes(b'---\n[Verse 1]\r\nYo, \n---\r\n[Verse 1]\n--- ')
    printed = texts(run('sample.py', *flags, f'--start=FILE:{tmp_path}/prompt.txt', '--num_samples=1'))
    assert [text[:15] for text in printed] == ['[Verse 1]\nYo, \n', printed[1][:15]]
    assert printed[1].startswith('[Verse 1]\n') and '---' not in ''.join(printed)


def test_the_seed_decides_the_texts(flags):
    first = texts(run('sample.py', *flags, '--start=[Verse 1]\nYo, '))
    assert texts(run('sample.py', *flags, '--start=[Verse 1]\nYo, ')) == first
    assert texts(run('sample.py', *flags, '--start=[Verse 1]\nYo, ', '--seed=1')) != first


def test_without_a_prompt(flags):
    assert len({*texts(run('sample.py', *flags))}) == 3


def test_a_prompt_longer_than_the_context(flags):
    tail, added = 'yo ' * 22, []  # 66 characters
    for head in ('la ' * 50, 'do ' * 40):
        long = run('sample.py', *flags, f'--start={head}{tail}')
        assert 'the model sees the last 64' in long.stderr
        assert all(text.startswith(head + tail) for text in texts(long))
        added.append([text.removeprefix(head + tail) for text in texts(long)])
    assert added[0] == added[1]  # text before the context makes no difference


@pytest.fixture
def bytewise(trained, tmp_path):
    """The out_dir of a model that samples the tokens of three characters, most of which are parts of one."""
    tokenizer = load_tokenizer('gpt2')
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=64, vocab_size=tokenizer.vocab_size))
    with torch.no_grad():
        for p in (model.transformer.wte.weight, model.transformer.ln_f.weight):
            p.zero_()
        model.transformer.ln_f.bias.fill_(1)
        model.transformer.wte.weight[tokenizer.encode('🎤é世')] = 1
    about = json.loads((trained[0] / 'best' / 'config.json').read_text())
    about |= dict(model=model.config_dict(), tokenizer=tokenizer.meta())
    write_folder(tmp_path / 'best', dict(model=model.state_dict()), dict(config=about), tokenizer)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['characters', 'bytes'])
def test_one_sample_streams_to_a_terminal(trained, bytewise, kind):
    out = trained[0] if kind == 'characters' else bytewise
    flags = ['sample.py', f'--out_dir={out}', '--num_samples=1', '--max_new_tokens=30', '--start=[Hook]',
             '--device=cpu']
    wanted = run(*flags).stdout
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, *flags], cwd=ROOT, stdout=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    shown = b''
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # on Linux: the other side of the terminal is closed
            break
        if not chunk:
            break
        shown += chunk
    assert process.wait() == 0 and shown.decode().replace('\r\n', '\n') == wanted


@pytest.fixture
def two_prompts(flags, tmp_path):
    """Options for three samples of each of two prompts, and the texts of these samples."""
    (tmp_path / 'p.txt').write_text('[Hook]\nYo, \n---\n[Verse 1]\n')
    flags = [*flags, '--max_new_tokens=40', '--top_k=None', f'--start=FILE:{tmp_path}/p.txt']
    return flags, texts(run('sample.py', *flags))


def test_prompts_and_log_probabilities(two_prompts, tmp_path):
    flags, free = two_prompts
    assert [text[:6] for text in free] == ['[Hook]'] * 3 + ['[Verse'] * 3
    samples = [json.loads(line) for line in (tmp_path / 'o.jsonl').read_text().splitlines()]
    assert [(s['text'], s['sample']) for s in samples] == list(zip(free, [0, 1, 2] * 2, strict=True))
    for sample in samples:
        assert len(sample['logprobs']) == len(sample['ids'])
        assert max(sample['logprobs']) <= 0 and sample['min_p'] == 0


def test_other_samples_of_the_batch_make_no_difference(two_prompts):
    flags, free = two_prompts
    assert texts(run('sample.py', *flags, '--start=[Verse 1]\n')) == free[3:]
    assert texts(run('sample.py', *flags, '--start=[Verse 1]\n', '--num_samples=1')) == free[3:4]


def test_a_sample_ends_before_the_first_stop_text(two_prompts):
    flags, free = two_prompts
    stops = [free[0][20], free[1][25:27]]
    stopped = texts(run('sample.py', *flags, f'--stop={stops[0]}|{stops[1]}'))
    for text, ended in zip(free, stopped, strict=True):
        start = len('[Hook]\nYo, \n' if text[1] == 'H' else '[Verse 1]\n')
        positions = [text.find(stop, start) for stop in stops]
        assert ended == text[: min((i for i in positions if i >= 0), default=None)]


@pytest.mark.slow
def test_header_lines(songs, tmp_path):
    run('data/lyrics/prepare.py', '--input', songs, '--tokenizer=char', '--out_dir', tmp_path,
        '--header=artist,title')
    run('train.py', *TINY_RUN, f'--dataset={tmp_path}', f'--out_dir={tmp_path}/out', '--max_iters=1',
        '--eval_iters=1')
    flags = [f'--out_dir={tmp_path}/out', '--num_samples=1', '--max_new_tokens=3', '--start=[Hook]',
             '--device=cpu']
    both = texts(run('sample.py', *flags, '--title=Rain', '--artist=Fern'))[0]
    assert both.startswith('[Artist: Fern]\n[Title: Rain]\n[Hook]')
    assert texts(run('sample.py', *flags, '--title=Rain'))[0].startswith('[Title: Rain]\n[Hook]')


@pytest.mark.slow
def test_interactive(trained):
    out, _ = trained
    command = [sys.executable, 'sample.py', f'--out_dir={out}', '--interactive', '--bars=2', '--device=cpu']
    result = subprocess.run(command, cwd=ROOT, input='Kettle on the stove\nand the rent\n',
                            capture_output=True, text=True)
    assert result.returncode == 0 and 'Traceback' not in result.stderr
    answers = result.stdout.split('> ')
    assert len(answers) == 4
    for answer in answers[1:3]:
        assert len([line for line in answer.split('\n') if line.strip()]) == 2


@pytest.mark.slow
def test_rhymed_samples_of_a_character_model(trained, tmp_path):
    """Its endings can't be steered, but lines are chosen, shown and written as for other models."""
    out, _ = trained
    flags = ['--num_samples=2', '--max_new_tokens=150', '--rhyme=AABB', '--syllables=6', '--device=cpu',
             '--start=[Hook]\n', '--show_rhymes', '--quantize=int8', f'--output={tmp_path}/o.html']
    assert 'block_size' in run('sample.py', f'--out_dir={out}', *flags, ok=False).message
    alibi = tmp_path / 'alibi'  # a model whose context may be longer than block_size
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=128, vocab_size=128, pos='alibi'))
    about = json.loads((out / 'best' / 'config.json').read_text())
    write_folder(alibi / 'best', dict(model=model.state_dict()),
                 dict(config=about | dict(model=model.config_dict())), load_tokenizer(str(out)))
    printed = texts(run('sample.py', f'--out_dir={alibi}', *flags))
    page = (tmp_path / 'o.html').read_text()
    assert len(printed) == 2
    assert page.count('<pre>[Hook]\n') == 2 and page.endswith('</html>\n')


@pytest.fixture
def message(trained):
    """A function from options of sample.py, of which one is wrong, to the line that it ends with."""
    def run_with(*args):
        flags = [f'--out_dir={trained[0]}', '--num_samples=1', '--max_new_tokens=3', '--device=cpu']
        return run('sample.py', *flags, *args, ok=False).message

    return run_with


@pytest.mark.slow
def test_wrong_options_get_one_line(message, tmp_path):
    assert 'train one first' in message(f'--out_dir={tmp_path}')
    assert 'train one first' in message('--out_dir=nowhere')
    assert "can't read the prompt file" in message('--start=FILE:nowhere.txt')
    assert "character 'ß'" in message('--start=ß')
    for flag in ('--num_samples=0', '--max_new_tokens=0', '--temperature=-1.0', '--top_k=0', '--top_p=0.0',
                 '--min_p=2.0', '--repetition_penalty=0.0', '--syllables=10'):
        assert 'must' in message(flag)
    assert 'must' in message('--interactive', f'--output={tmp_path}/o.txt')
    assert 'one letter per line' in message('--rhyme=A-B')
    assert 'choose int8' in message('--quantize=int3')
    assert 'prepared without the artist' in message('--artist=Fern')
    assert 'tokens in all' in message('--max_new_tokens=100000000000')
    assert 'tokens in all' in message('--num_samples=1e11')
    assert 'finite' in message('--temperature=inf')
    assert 'network' in message('--init_from=gpt2')


@pytest.mark.parametrize('output', ['nowhere/o.txt', '', 'x' * 300 + '.txt'])
def test_an_output_that_cannot_be_written_ends_before_the_work(trained, tmp_path, output):
    failed = run('sample.py', f'--out_dir={trained[0]}', '--device=cpu', f'--output={tmp_path}/{output}',
                 ok=False)
    assert "can't write" in failed.message and len(failed.stdout.splitlines()) == 1  # no sample


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
def test_samples_are_not_lost_on_a_full_disk(trained):
    failed = run('sample.py', f'--out_dir={trained[0]}', '--device=cpu', '--num_samples=2',
                 '--max_new_tokens=9', '--output=/dev/full', ok=False)
    assert "can't write" in failed.message and len(texts(failed)) == 2


def test_out_dir_as_tab_completion_gives_it(flags, trained):
    flags = [*flags, '--start=[Hook]']  # after an end-of-text token, as the run's songs are
    wanted = texts(run('sample.py', *flags))
    step = max(trained[0].glob('step-*'))
    for folder in (f'{trained[0]}/best', f'{trained[0]}/best/', step):
        assert texts(run('sample.py', *flags, f'--out_dir={folder}')) == wanted, folder
    assert texts(run('sample.py', *flags, f'--init_from={trained[0]}/best')) == wanted


def test_a_damaged_checkpoint_gets_one_line(message, trained, tmp_path):
    best = tmp_path / 'best'
    shutil.copytree(trained[0] / 'best', best)
    path = best / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:2000])
    assert 'is damaged' in message(f'--out_dir={tmp_path}')
    path.unlink()
    assert 'is missing' in message(f'--out_dir={tmp_path}')
    (best / 'config.json').write_text('{"mod')
    assert 'half-written' in message(f'--out_dir={tmp_path}')
