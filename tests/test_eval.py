"""eval.py as a user runs it, and the measures that train.py logs."""

import json

import pytest
from conftest import TINY, rows, run, torchrun

from nanorap.rap.sections import structure


def test_structure_by_hand():
    song = "[Verse 1]\nOne line\nTwo lines\n\n[Hook: all]\none line\nThree\n"
    assert structure(song) == dict(valid=1, sections=2, lines_per_section=2, repeated_lines=1 / 4, empty=0,
                                   cut=0)
    assert structure("[Verse 1]\n[Blah]\nx", cut=True) == dict(
        valid=0, sections=2, lines_per_section=0.5, repeated_lines=0, empty=0, cut=1)
    assert structure("no header")['valid'] == 0 and structure(" \n[Hook]\n")['empty'] == 1


def test_eval_script(trained, char_data, tmp_path):
    out, _ = trained
    numbers, report = tmp_path / 'tiny.json', tmp_path / 'report'
    result = run('eval.py', f'--out_dir={out}', f'--dataset={char_data}', '--num_samples=7',
                 '--max_new_tokens=40',
                 '--max_songs=3', f'--json={numbers}', f'--report={report}', '--show_copies', '--device=cpu')
    found = json.loads(numbers.read_text())
    # train.py's own evaluation goes over windows without overlap, so that here more is known of what came
    # before
    val_loss = json.loads((out / 'best' / 'config.json').read_text())['val_loss']
    assert abs(found['lyrics']['loss'] - val_loss) < 0.1
    assert set(found['rhyme']) == {'samples', 'training songs', 'held-out songs'} and len(found['texts']) == 7
    assert set(found['novelty']) == {'samples',
                                     'held-out songs'} and len(found['rhyme']['samples']['density']) == 3
    assert all(one['text'] == '[Verse 1]\n' + one['new'] for one in found['texts'])
    html = (report / 'report.html').read_text()
    for words in ('the best, by end rhymes', 'the worst', 'data:image/png', '<h2>training</h2>',
                  'held-out songs'):
        assert words in html
    assert html.count('<img') == 3 and '<pre>' in html
    # the same seed, the same samples; two processes, the same loss
    twice = torchrun(2, 'eval.py', f'--out_dir={out}', f'--dataset={char_data}', '--tasks=lyrics',
                     '--device=cpu', '--batch_size=3', f'--json={tmp_path / "two.json"}')
    two = json.loads((tmp_path / 'two.json').read_text())
    assert two['lyrics']['loss'] == pytest.approx(found['lyrics']['loss'], abs=1e-6)
    assert twice.stdout.count('| loss') == 1
    table = run('eval.py', f'--compare={numbers},{tmp_path / "two.json"}').stdout
    for words in ('| tiny ', '| two ', '| training songs', 'rhyme: density'):
        assert words in table
    assert 'density_excess' in result.stdout


def test_train_logs_measures(char_data, tmp_path):
    said = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=1',
               '--eval_interval=1',
               '--eval_samples=2', '--sample_interval=1', '--batches=documents', '--dropout=0.1').stdout
    between = said.split('copied_4')[1].split('step 1')[0]  # the measures' last, then the sample
    assert sum(character.isalpha() for character in between) > 20, said
    logged = [row for row in rows(tmp_path) if 'val_loss' in row]
    assert len(logged) == 2
    for row in logged:
        assert 0 <= row['end_rhyme_share'] <= 1 and row['copied_4'] <= 1 and row['longest'] >= 0
        assert 'density_excess' in row


def test_a_text(tmp_path):
    (tmp_path / 'verse.txt').write_text("[Hook]\nI got a table\nwe are able\n---------------\n[Blah]\ncold "
                                        "stone\nmy phone\n")
    numbers = tmp_path / 'n.json'
    run('eval.py', f'--text={tmp_path / "verse.txt"}', '--tasks=rhyme,structure', f'--json={numbers}',
        cwd=tmp_path)
    found = json.loads(numbers.read_text())
    assert found['rhyme']['text']['end_rhyme_share'][0] == 1 / 2
    assert found['structure']['text']['valid'][0] == 1 / 2


def test_copies_are_shown(songs, char_data, tmp_path):
    lines = json.loads(songs.read_text())[0]['text'].split('\n')
    text = tmp_path / 'copy.jsonl'
    text.write_text(json.dumps(dict(text='\n'.join(lines[:8]))) + '\n')
    out = run('eval.py', f'--text={text}', '--tasks=novelty', f'--dataset={char_data}',
              '--show_copies').stdout
    assert 'training song' in out and lines[1] in out and '| copied_12 | 1 ' in out


def test_mistakes_get_one_line(tmp_path):
    def message(*args):
        return run('eval.py', '--device=cpu', *args, ok=False).message

    assert 'tasks are' in message('--tasks=rap') and 'goes with' in message('--text=no.txt', '--tasks=lyrics')
    assert "can't read" in message('--text=no.txt')
