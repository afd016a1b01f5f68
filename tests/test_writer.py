"""nanorap/serve/writer.py in a real server: it writes the texts of sample.py, whole or streamed."""

import pytest
from conftest import run
from server import call, generate, stream

pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")


def test_generate_gives_the_texts_of_sample_py(port):
    prompt = '[Hook]\nYo'
    answer = generate(port, prompt=prompt, max_new_tokens=60, num_samples=3, seed=5, stop=['st', 'xxxxxxxxx'])
    names = [model['name'] for model in call(port, '/api/models')[1]['models']]
    [folder] = [name for name in names if name.endswith('letters')]
    result = run('sample.py', f'--out_dir={folder}', f'--start={prompt}', '--max_new_tokens=60',
                 '--num_samples=3', '--seed=5', '--stop=st|xxxxxxxxx', '--device=cpu')
    samples = result.stdout.partition('\n')[2][:-1].split('\n---------------\n')
    texts = [sample.removeprefix(prompt) for sample in samples]
    assert answer['texts'] == texts and len(set(texts)) == 3
    assert answer['seed'] == 5 and answer['tokens'][0] > 0


@pytest.mark.parametrize('fields', [dict(), dict(rhyme='AABB', syllables=3), dict(artist='Fern')], ids=str)
def test_streamed_pieces_join_to_the_texts(port, fields):
    fields = dict(prompt='Yo\n', max_new_tokens=200, num_samples=2, seed=1, lines=3) | fields
    *events, last = stream(port, **fields)[1]
    pieces = ['', '']
    for event in events:
        if 'waiting' not in event:
            pieces[event['sample']] += event['text']
    assert last['done'] and last['texts'] == pieces == generate(port, **fields)['texts']
    assert len(events) > 4
    for text in pieces:
        whole_lines = text.split('\n')[:-1]
        assert len([line for line in whole_lines if line.strip()]) == 3


def test_each_request_without_a_seed_has_its_own(port):
    seeds = {generate(port, prompt='Yo', max_new_tokens=3)['seed'] for _ in range(3)}
    assert len(seeds) == 3
