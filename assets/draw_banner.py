"""
Draw assets/NanoRapGPT.png, the README's banner: four bars of a shipped song with their rhymes in colour,
above their rhythm.

$ python assets/draw_banner.py
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

here = Path(__file__).resolve().parent
song = json.loads((here.parent / 'data/lyrics/demo/juno-vantablack/1302.json').read_text(encoding='utf-8'))
bars = song['lyrics'].split('[Verse 2]\n')[1].splitlines()[:4]
# the rhymes, found by ear: one number per rhyme family
RHYMES = {'fianchetto': 0, 'stiletto': 0, 'falsetto': 0, 'Let go': 0, 'range': 1, 'lane': 1, 'hum': 2,
          'slung': 2, 'heel': 3, 'piece': 3}
COLOURS = ['#ffb000', '#64c8ff', '#ff6f91', '#7be495']

fig = plt.figure(figsize=(12.8, 4.0), dpi=100, facecolor='#14121f')
ax = fig.add_axes([0, 0, 1, 1])
ax.set(xlim=(0, 1280), ylim=(0, 400))
ax.axis('off')
ax.text(60, 322, 'NanoRapGPT', color='white', fontsize=46, fontweight='bold', va='center')
ax.text(62, 268, 'crawl  ·  clean  ·  tokenize  ·  fine-tune  ·  spit', color='#8f8aa8', fontsize=17,
        va='center')

# a letter of this font is 0.602 em wide; at 17 points and 100 pixels per inch, in pixels:
width = 17 * 100 / 72 * 0.602
for line, bar in enumerate(bars):
    colour = ['#d8d5e6'] * len(bar)
    for word, rhyme in RHYMES.items():
        start = bar.find(word)
        if start >= 0:
            colour[start : start + len(word)] = [COLOURS[rhyme]] * len(word)
    for i, letter in enumerate(bar):
        ax.text(62 + i * width, 206 - 34 * line, letter, color=colour[i], fontsize=17,
                family='DejaVu Sans Mono', va='center')

# the rhythm: one bar per word of the song's first verses, as high as the word is long
words = song['lyrics'].split()
for i, word in enumerate(words[:118]):
    ax.bar(62 + i * 9.85, 4 + 3.2 * len(word), width=6, bottom=18, color=COLOURS[len(word) % len(COLOURS)],
           alpha=0.75)
fig.savefig(here / 'NanoRapGPT.png', facecolor=fig.get_facecolor())
