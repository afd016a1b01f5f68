"""The words that pages have for sections and for lyrics, in many languages: tables, and how words are compared."""

import re
import unicodedata

# a name of the grammar: the words that pages have for it, case and accents don't count
WORDS = {
    'Intro': 'intro, introduction, introducción, introduzione, introdução, inleiding, wstęp, giriş, úvod, einleitung, '
             'интро, вступление, вступ, інтро, εισαγωγή, イントロ, 前奏, 인트로, פתיחה, مقدمة',
    'Verse': 'verse, vers, verso, verze, versszak, couplet, strophe, strofa, estrofa, estrofe, stanza, zwrotka, sloka, '
             'kıta, dörtlük, säkeistö, kuplet, куплет, строфа, κουπλέ, στροφή, バース, ヴァース, Aメロ, '
             '벌스, 主歌, בית, المقطع, bait',
    'Pre-Chorus': 'pre-chorus, prechorus, pre-refrain, pre-coro, pre-estribillo, pre-refrão, pre-ritornello, pre-refrein, '
                  'pre-refren, przedrefren, ön nakarat, pre-nakarat, nakarat öncesi, förrefräng, pre-refräng, pre-refreng, '
                  'pre-omkvæd, przed-refren, предприпев, пред-припев, пре-припев, передприспів, '
                  'プリコーラス, Bメロ, 프리코러스, 导歌, 導歌',
    'Post-Chorus': 'post-chorus, postchorus, post-refrain, post-coro, post-estribillo, post-refrão, pós-refrão, '
                   'post-ritornello, post-refrein, post-refren, post-nakarat, post-refräng, пост-припев, постприпев, '
                   'ポストコーラス, 포스트코러스',
    'Chorus': 'chorus, coro, estribillo, refrão, ritornello, refren, refrén, refreng, refräng, refrein, reff, nakarat, '
              'omkvæd, kertosäe, kerto, tornada, припев, приспів, рефрен, ρεφρέν, コーラス, サビ, 후렴, 후렴구, 코러스, 副歌, '
              'פזמון, اللازمة, pripev, điệp khúc',
    'Pre-Hook': 'pre-hook, prehook, пре-хук, прехук',
    'Post-Hook': 'post-hook, posthook, пост-хук',
    'Hook': 'hook, gancho, хук, フック, 훅',
    'Refrain': 'refrain',
    'Bridge': 'bridge, pont, puente, ponte, brug, brücke, brygga, stick, bro, most, mostek, przejście, köprü, бридж, мост, '
              'брідж, переход, γέφυρα, ブリッジ, Cメロ, 브릿지, 브리지, 桥段, 橋段, גשר, c-stykke, silta, c-osa, جسر',
    'Interlude': 'interlude, interludio, interlúdio, interludium, tussenspel, zwischenspiel, mellanspel, intermezzo, '
                 'intermède, przerywnik, väliosa, интерлюдия, інтерлюдія, インタールード, 인터루드',
    'Instrumental': 'instrumental, instrumental break, strumentale, instrumentaal, enstrümantal, инструментал, проигрыш, '
                    'програш, solo, guitar solo, piano solo, sax solo, saxophone solo, drum solo, bass solo, synth solo, '
                    'trumpet solo, guitar break, gitarrensolo, gitar solo, solo de guitarra, соло, 間奏, 间奏, 간주, scratches',
    'Breakdown': 'breakdown, брейкдаун',
    'Break': 'break, drum break, брейк',
    'Drop': 'drop, дроп',
    'Build': 'build, build-up, buildup',
    'Beat Switch': 'beat switch, beat-switch, beatswitch, beat switch-up, beat switch up, beat change, beatwechsel, '
                   'cambio de beat, cambio beat, changement de beat, mudança de beat, смена бита',
    'Outro': 'outro, cierre, chiusura, encerramento, zakończenie, çıkış, coda, аутро, концовка, アウトロ, 아웃트로, 尾奏, סיום',
    'Skit': 'skit, sketch, скит',
    'Part': 'part, pt, pt., parte, partie, teil, deel, część, часть, частина, bölüm, パート, 파트',
    'Segue': 'segue',
    'Spoken': 'spoken, spoken word, spoken outro, spoken intro, parlato, hablado, parlé, gesprochen, falado, monologue, '
              'dialogue, voicemail, phone call, speech',
    'Sample': 'sample, vocal sample, семпл, сэмпл',
    'Ad-Libs': 'ad-libs, ad libs, adlibs, ad-lib',
    'Freestyle': 'freestyle, фристайл',
    'Vamp': 'vamp',
    'Chant': 'chant',
    'Transition': 'transition',
    'Prelude': 'prelude, preludio',
    'Epilogue': 'epilogue, epilogo',
    'Non-Lyrical Vocals': 'non-lyrical vocals, vocalization, vocalizing',
}
# headers that say something even with nothing under them
ALONE = {'Instrumental', 'Part', 'Beat Switch', 'Break', 'Drop', 'Build', 'Breakdown', 'Non-Lyrical Vocals', 'Transition'}
# words that also mean a thing of their own: without brackets they are lyrics (Bro is Danish for bridge)
AMBIGUOUS = {'Part', 'Break', 'Drop', 'Build', 'Spoken', 'Sample', 'Freestyle', 'Vamp', 'Chant', 'Transition', 'Segue',
             'Prelude', 'Epilogue', 'Ad-Libs', 'stick', 'bro', 'most', 'solo', 'coda', 'bait', 'stanza', 'sketch', 'gancho',
             'silta', 'scratches', 'вступ', 'переход', 'мост', 'בית', 'tornada', 'reff'}
# one, two, three ... as numbers or ordinals
COUNTED = ('i one first un una uno 1er premier première primo prima primer primera primeira primeiro erste первый bir',
           'ii two second dos deuxième segundo segunda secondo seconda zweite второй iki',
           'iii three third tres troisième tercer tercero tercera terzo terza terceiro terceira dritte третий üç',
           'iv four fourth', 'v five fifth', 'vi six sixth', 'vii seven seventh', 'viii eight eighth', 'ix nine', 'x ten')
ROMAN = ('', 'I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'VIII', 'IX', 'X')
# [Songtext zu „…“], [Текст песни «…»]: a word for lyrics at the start, and what may stand between it and the title
LYRICS_WORDS = ('lyrics, lyric, text, texte, songtext, songtexte, songtekst, paroles, parole, letra, letras, lletra, testo, '
                'testi, tekst, teksti, låttext, sangtekst, versuri, versurile, текст, слова, lirik, στίχοι, كلمات, מילים, '
                'traducción, tradução, traduction, traduzione, übersetzung, translation, перевод, tłumaczenie, lời')
BETWEEN = ('of from to for by zu zum von vom de du des da do dos del di dello della dalla van voor till til av från fra za z '
           'i la pe din piosenki utworu pesme pjesme písně skladby песни пісні к до по من από του אל לשיר bài lagu française '
           'al en em أغنية')
AT_END = 'şarkı sözleri, sözleri, 歌詞, 歌词, 가사, dalszöveg, sanat, sanoitukset, lyrics'


def fold(name):
    """Without case and accents: Refrão and REFRAO are one."""
    if name.isascii():
        return name.lower()
    return ''.join(c for c in unicodedata.normalize('NFKD', name).casefold() if not unicodedata.combining(c))


def any_of(words):
    """A pattern for one of the words, the longest that fits."""
    return '(?:' + '|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ')'


NAMES = {fold(word.strip()): name for name, words in WORDS.items() for word in words.split(',')}
NUMBERS = {fold(word): number for number, words in enumerate(COUNTED, 1) for word in words.split()}
