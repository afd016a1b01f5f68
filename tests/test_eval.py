"""eval.py as a user runs it, and the measures that train.py logs."""

import json

import pytest
from conftest import TINY, rows, run, torchrun


@pytest.fixture(scope='module')
def evaluated(trained, char_data, tmp_path_factory):
    """The folder of an evaluation's numbers and report, the numbers, and what eval.py printed."""
    out, _ = trained
    folder = tmp_path_factory.mktemp('evaluated')
    result = run('eval.py', f'--out_dir={out}', f'--dataset={char_data}', '--num_samples=7',
                 '--max_new_tokens=40', '--max_songs=3', f'--json={folder}/tiny.json',
                 f'--report={folder}/report', '--show_copies', '--device=cpu')
    return folder, json.loads((folder / 'tiny.json').read_text()), result.stdout


def test_numbers_of_eval(trained, evaluated):
    _, numbers, printed = evaluated
    # train.py's own evaluation goes over windows without overlap, so that here more is known of what came
    # before
    val_loss = json.loads((trained[0] / 'best' / 'config.json').read_text())['val_loss']
    assert abs(numbers['lyrics']['loss'] - val_loss) < 0.1
    assert set(numbers['rhyme']) == {'samples', 'training songs', 'held-out songs'}
    assert set(numbers['novelty']) == {'samples', 'held-out songs'}
    assert len(numbers['rhyme']['samples']['density']) == 3
    assert len(numbers['texts']) == 7
    assert all(sample['text'] == '[Verse 1]\n' + sample['new'] for sample in numbers['texts'])
    assert 'density_excess' in printed


def test_report_of_eval(evaluated):
    html = (evaluated[0] / 'report' / 'report.html').read_text()
    for words in ('the best, by end rhymes', 'the worst', 'data:image/png', '<h2>training</h2>',
                  'held-out songs'):
        assert words in html
    assert html.count('<img') == 3 and '<pre>' in html


@pytest.mark.slow
def test_two_processes_have_the_same_loss_and_runs_are_compared(trained, char_data, evaluated, tmp_path):
    folder, numbers, _ = evaluated
    twice = torchrun(2, 'eval.py', f'--out_dir={trained[0]}', f'--dataset={char_data}', '--tasks=lyrics',
                     '--device=cpu', '--batch_size=3', f'--json={tmp_path}/two.json')
    two = json.loads((tmp_path / 'two.json').read_text())
    assert two['lyrics']['loss'] == pytest.approx(numbers['lyrics']['loss'], abs=1e-6)
    assert twice.stdout.count('| loss') == 1
    table = run('eval.py', f'--compare={folder}/tiny.json,{tmp_path}/two.json').stdout
    for words in ('| tiny ', '| two ', '| training songs', 'rhyme: density'):
        assert words in table


@pytest.mark.slow
def test_train_logs_measures(char_data, tmp_path):
    printed = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=1',
                  '--eval_interval=1', '--eval_samples=2', '--sample_interval=1', '--batches=documents',
                  '--dropout=0.1').stdout
    between = printed.split('copied_4')[1].split('step 1')[0]  # the measures' last, then the sample
    assert sum(character.isalpha() for character in between) > 20, printed
    logged = [row for row in rows(tmp_path) if 'val_loss' in row]
    assert len(logged) == 2
    for row in logged:
        assert 0 <= row['end_rhyme_share'] <= 1 and row['copied_4'] <= 1 and row['longest'] >= 0
        assert 'density_excess' in row


@pytest.mark.slow
def test_a_text_is_evaluated_without_a_model(tmp_path):
    texts = ["[Hook]\nI got a table\nwe are able\n", "[Blah]\ncold stone\nmy phone\n"]
    (tmp_path / 'verse.txt').write_text('---------------\n'.join(texts))
    run('eval.py', f'--text={tmp_path}/verse.txt', '--tasks=rhyme,structure', f'--json={tmp_path}/n.json',
        cwd=tmp_path)
    numbers = json.loads((tmp_path / 'n.json').read_text())
    assert numbers['rhyme']['text']['end_rhyme_share'][0] == 1 / 2
    assert numbers['structure']['text']['valid'][0] == 1 / 2


def measured(tmp_path, name, content):
    """The rhyme's numbers of a file's texts, one of them per text, and what eval.py printed."""
    (tmp_path / name).write_bytes(content)
    printed = run('eval.py', f'--text={tmp_path}/{name}', f'--json={tmp_path}/n.json', cwd=tmp_path).stdout
    return json.loads((tmp_path / 'n.json').read_text())['texts'], printed


@pytest.mark.slow
def test_texts_of_other_systems_measure_the_same(tmp_path):
    verses = "I got a table\nwe are able\n", "cold stone\nmy phone\n"
    plain = '---------------\n'.join(verses)
    wanted, printed = measured(tmp_path, 'a.txt', plain.encode())
    assert len(wanted) == 2 and wanted[0]['rhyme']['end_rhyme_share'] > 0
    foreign = f'\ufeff{plain}\n---------------'.replace('\n', '\r\n')
    texts, foreign_printed = measured(tmp_path, 'b.txt', foreign.encode())
    assert [text['rhyme'] for text in texts] == [text['rhyme'] for text in wanted]
    assert foreign_printed.splitlines()[1:] == printed.splitlines()[1:]
    lines = [json.dumps(dict(text=verse.replace('\n', '\r\n'))) for verse in (*verses, ' \n')]
    texts, _ = measured(tmp_path, 'c.jsonl', '\r\n'.join(lines).encode('utf-8-sig'))
    assert [text['rhyme'] for text in texts] == [text['rhyme'] for text in wanted]


@pytest.mark.parametrize(('line', 'words'), [
    ('{"text": null}', "'text' is null, not a text"), ('5', 'it is 5, not an object'),
])
def test_a_text_that_is_none_is_named(tmp_path, line, words):
    (tmp_path / 'a.jsonl').write_text('{"text": "yo"}\n' + line)
    message = run('eval.py', f'--text={tmp_path}/a.jsonl', ok=False).message
    assert f'a.jsonl, line 2: not an entry ({words}' in message


def test_copied_lines_are_shown(songs, char_data, tmp_path):
    lines = json.loads(songs.read_text())[0]['text'].split('\n')
    text = tmp_path / 'copy.jsonl'
    text.write_text(json.dumps(dict(text='\n'.join(lines[:8]))) + '\n')
    out = run('eval.py', f'--text={text}', '--tasks=novelty', f'--dataset={char_data}',
              '--show_copies').stdout
    assert 'training song' in out and lines[1] in out and '| copied_12 | 1 ' in out


@pytest.mark.slow
def test_wrong_options_get_one_line(tmp_path):
    def message(*args):
        return run('eval.py', '--device=cpu', *args, ok=False).message

    assert 'tasks are' in message('--tasks=rap')
    assert 'goes with' in message('--text=no.txt', '--tasks=lyrics')
    assert "can't read" in message('--text=no.txt')
    (tmp_path / 'verse.txt').write_text('yo\n')
    text = f'--text={tmp_path}/verse.txt'
    for flag in (f'--json={tmp_path}/nowhere/a.json', f'--json={tmp_path}', f'--report={tmp_path}/verse.txt'):
        assert "can't write" in message(text, flag)
    numbers = tmp_path / 'numbers.json'
    for content, words in (
        ('', 'not JSON from line 1, column 1 on'), ('[]', 'another form'),
        ('{"lyrics": {"loss": 1}}', "no 'name'"),
        ('{"name": "x", "lyrics": {"loss": "low"}}', 'another form'),
    ):
        numbers.write_text(content)
        refused = message(f'--compare={numbers}')
        assert words in refused and 'Error' not in refused
    numbers.write_text('{"name": "x", "lyrics": {"loss": 3.21}}', encoding='utf-8-sig')
    assert '3.210' in run('eval.py', f'--compare={numbers}').stdout
