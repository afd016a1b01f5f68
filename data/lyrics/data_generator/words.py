"""Words that pages use for sections and for lyrics, in many languages, and two ways to compare words.

The tables map messy source headers to the section names of nanorap/rap/sections.py.
"""

import re
import unicodedata

# {section name: the words that pages use for it}; case and accents don't count
SECTION_WORDS = {
    'Intro':
        'intro, introduction, introducción, introduzione, introdução, inleiding, wstęp, giriş, '
        'úvod, einleitung, интро, вступление, вступ, інтро, εισαγωγή, イントロ, 前奏, 인트로, פתיחה, '
        'مقدمة',
    'Verse':
        'verse, vers, verso, verze, versszak, couplet, strophe, strofa, estrofa, estrofe, '
        'stanza, zwrotka, sloka, kıta, dörtlük, säkeistö, kuplet, куплет, строфа, κουπλέ, '
        'στροφή, バース, ヴァース, Aメロ, 벌스, 主歌, בית, المقطع, bait',
    'Pre-Chorus':
        'pre-chorus, prechorus, pre-refrain, pre-coro, pre-estribillo, pre-refrão, '
        'pre-ritornello, pre-refrein, pre-refren, przedrefren, ön nakarat, pre-nakarat, nakarat '
        'öncesi, förrefräng, pre-refräng, pre-refreng, pre-omkvæd, przed-refren, предприпев, '
        'пред-припев, пре-припев, передприспів, プリコーラス, Bメロ, 프리코러스, 导歌, 導歌',
    'Post-Chorus':
        'post-chorus, postchorus, post-refrain, post-coro, post-estribillo, post-refrão, '
        'pós-refrão, post-ritornello, post-refrein, post-refren, post-nakarat, post-refräng, '
        'пост-припев, постприпев, ポストコーラス, 포스트코러스',
    'Chorus':
        'chorus, coro, estribillo, refrão, ritornello, refren, refrén, refreng, refräng, '
        'refrein, reff, nakarat, omkvæd, kertosäe, kerto, tornada, припев, приспів, рефрен, '
        'ρεφρέν, コーラス, サビ, 후렴, 후렴구, 코러스, 副歌, פזמון, اللازمة, pripev, điệp khúc',
    'Pre-Hook': 'pre-hook, prehook, пре-хук, прехук',
    'Post-Hook': 'post-hook, posthook, пост-хук',
    'Hook': 'hook, gancho, хук, フック, 훅',
    'Refrain': 'refrain',
    'Bridge':
        'bridge, pont, puente, ponte, brug, brücke, brygga, stick, bro, most, mostek, '
        'przejście, köprü, бридж, мост, брідж, переход, γέφυρα, ブリッジ, Cメロ, 브릿지, 브리지, 桥段, 橋段, '
        'גשר, c-stykke, silta, c-osa, جسر',
    'Interlude':
        'interlude, interludio, interlúdio, interludium, tussenspel, zwischenspiel, mellanspel, '
        'intermezzo, intermède, przerywnik, väliosa, интерлюдия, інтерлюдія, インタールード, 인터루드',
    'Instrumental':
        'instrumental, instrumental break, strumentale, instrumentaal, enstrümantal, '
        'инструментал, проигрыш, програш, solo, guitar solo, piano solo, sax solo, saxophone '
        'solo, drum solo, bass solo, synth solo, trumpet solo, guitar break, gitarrensolo, '
        'gitar solo, solo de guitarra, соло, 間奏, 间奏, 간주, scratches',
    'Breakdown': 'breakdown, брейкдаун',
    'Break': 'break, drum break, брейк',
    'Drop': 'drop, дроп',
    'Build': 'build, build-up, buildup',
    'Beat Switch':
        'beat switch, beat-switch, beatswitch, beat switch-up, beat switch up, beat change, '
        'beatwechsel, cambio de beat, cambio beat, changement de beat, mudança de beat, смена '
        'бита',
    'Outro':
        'outro, cierre, chiusura, encerramento, zakończenie, çıkış, coda, аутро, концовка, '
        'アウトロ, 아웃트로, 尾奏, סיום',
    'Skit': 'skit, sketch, скит',
    'Part': 'part, pt, pt., parte, partie, teil, deel, część, часть, частина, bölüm, パート, 파트',
    'Segue': 'segue',
    'Spoken':
        'spoken, spoken word, spoken outro, spoken intro, parlato, hablado, parlé, gesprochen, '
        'falado, monologue, dialogue, voicemail, phone call, speech',
    'Sample': 'sample, vocal sample, семпл, сэмпл',
    'Ad-Libs': 'ad-libs, ad libs, adlibs, ad-lib',
    'Freestyle': 'freestyle, фристайл',
    'Vamp': 'vamp',
    'Chant': 'chant',
    'Transition': 'transition',
    'Prelude': 'prelude, preludio',
    'Epilogue': 'epilogue, epilogo',
    'Non-Lyrical Vocals': 'non-lyrical vocals, vocalization, vocalizing',
    'Vocals': 'vocals, lead vocals, background vocals, backing vocals',
}

# sections whose header stays even if no line follows it
MEANINGFUL_WHEN_EMPTY = {
    'Instrumental', 'Part', 'Beat Switch', 'Break', 'Drop', 'Build', 'Breakdown', 'Non-Lyrical Vocals',
    'Transition'}

# section names and words that are also ordinary words (Bro is Danish for bridge): headers only in brackets
AMBIGUOUS = {
    'Part', 'Break', 'Drop', 'Build', 'Spoken', 'Sample', 'Freestyle', 'Vamp', 'Chant', 'Transition',
    'Segue', 'Prelude', 'Epilogue', 'Ad-Libs', 'stick', 'bro', 'most', 'solo', 'coda', 'bait', 'stanza',
    'sketch', 'gancho', 'silta', 'scratches', 'Vocals', 'вступ', 'переход', 'мост', 'בית', 'tornada', 'reff'}

# the numbers from one to ten as words, cardinal or ordinal
NUMBER_WORDS = (
    'i one first un una uno 1er premier première primo prima primer primera primeira primeiro '
    'erste первый bir',
    'ii two second dos deuxième segundo segunda secondo seconda zweite второй iki',
    'iii three third tres troisième tercer tercero tercera terzo terza terceiro terceira dritte '
    'третий üç',
    'iv four fourth',
    'v five fifth',
    'vi six sixth',
    'vii seven seventh',
    'viii eight eighth',
    'ix nine',
    'x ten')
ROMAN = ('', 'I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'VIII', 'IX', 'X')

# words for lyrics at the start of a credit: [Songtext zu „…“], [Текст песни «…»]
LYRICS_WORDS = (
    'lyrics, lyric, text, texte, songtext, songtexte, songtekst, paroles, parole, letra, '
    'letras, lletra, testo, testi, tekst, teksti, låttext, sangtekst, versuri, versurile, '
    'текст, слова, lirik, στίχοι, كلمات, מילים, traducción, tradução, traduction, traduzione, '
    'übersetzung, translation, перевод, tłumaczenie, lời')
# words that may stand between such a word and the title
LINKING_WORDS = (
    'of from to for by zu zum von vom de du des da do dos del di dello della dalla van voor '
    'till til av från fra za z i la pe din piosenki utworu pesme pjesme písně skladby песни '
    'пісні к до по من από του אל לשיר bài lagu française al en em أغنية')
# words for lyrics at the end of a credit: [“…” için şarkı sözleri]
LYRICS_WORDS_AT_END = (
    'şarkı sözleri, sözleri, 歌詞, 歌词, 가사, dalszöveg, sanat, sanoitukset, lyrics')


def fold_letters(text):
    """Return a text in lower case without accents: Refrão and REFRAO are equal."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize('NFKD', text).casefold()
    return ''.join(char for char in decomposed if not unicodedata.combining(char))


# Latin letters that Unicode doesn't decompose
LATIN_TWINS = str.maketrans(
    {'ø': 'o', 'ł': 'l', 'đ': 'd', 'ð': 'd', 'æ': 'ae', 'œ': 'oe', 'ı': 'i', 'þ': 'th'})


def name_key(name):
    """Return what identifies a name: its letters and digits, without case and accents.

    A name of nothing but signs keeps them.
    """
    folded = unicodedata.normalize('NFKD', name).casefold()
    folded = unicodedata.normalize('NFKD', folded).translate(LATIN_TWINS)

    def belongs(char):
        # other scripts write vowels as combining marks: only the accents of Latin, Greek and Cyrillic go
        is_vowel_mark = unicodedata.category(char).startswith('M') and char > '\u036f'
        return char.isalnum() or is_vowel_mark

    return ''.join(filter(belongs, folded)) or folded.strip()


def any_of(words):
    """Return a pattern for one of the words, the longest that fits."""
    longest_first = sorted(words, key=len, reverse=True)
    return '(?:' + '|'.join(re.escape(word) for word in longest_first) + ')'


SECTION_OF = {
    fold_letters(word.strip()): name
    for name, words in SECTION_WORDS.items()
    for word in words.split(',')}
NUMBER_OF = {
    fold_letters(word): number
    for number, words in enumerate(NUMBER_WORDS, 1)
    for word in words.split()}
