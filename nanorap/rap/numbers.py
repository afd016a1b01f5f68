"""How people say numbers and sums of money: 1999, '90s, 21st, 911, 10,000, $1,250.50, 20%.

    readings_of('911')  # [['nine', 'one', 'one'], ['nine', 'eleven']], the likeliest first
"""

import re
from functools import cache

AMOUNT = re.compile(r'(?P<sign>[$€£#]?)(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)'
                    r'(?:\.(?P<decimals>[0-9]+))?'
                    r'(?P<unit>%|¢|(?:st|nd|rd|th|s|k|m|b|mil|bil|mm|am|pm|oz|lbs?|ft|mph)(?![a-z]))?')
PART = re.compile(rf"{AMOUNT.pattern}|(?P<letters>(?:[a-z]\.){{2,}}|[^\W\d_]+(?:'[^\W\d_]+)*)")
CURRENCIES = {'$': ('dollar', 'cent'), '€': ('euro', 'cent'), '£': ('pound', 'penny')}
UNITS = {'%': ['percent'], '¢': ['cents'], 'k': ['k'], 'm': ['million'], 'b': ['billion'], 'mil': ['mil'],
         'bil': ['billion'], 'mm': ['millimeter'], 'am': ['a.m.'], 'pm': ['p.m.'], 'oz': ['ounce'],
         'lb': ['pound'], 'lbs': ['pounds'], 'ft': ['feet'], 'mph': ['m.p.h.']}
ORDINAL_ENDINGS = ('st', 'nd', 'rd', 'th')


@cache
def number_engine():
    """Return what spells numbers (inflect, MIT); loading it takes a second, so only for the first number."""
    import inflect

    return inflect.engine()


def number_words(number, group=0):
    """Return the words of a number; group: digits that are read together, or 0 for all."""
    words = number_engine().number_to_words(number, group=group, andword='', zero='oh' if group else 'zero')
    return words.replace(',', ' ').replace('-', ' ').split()


def whole_number_readings(digits, is_plain):
    """Return the ways to read a whole number, the likeliest first, each a list of words.

    is_plain: it has no thousands separator, no currency and no unit, so it may be a year or a code.
    """
    if len(digits) > 12 or digits[0] == '0' != digits:
        return [number_words(digits, group=1)]
    n = int(digits)
    readings = [number_words(n)]
    if is_plain and (1100 <= n < 2000 or 2010 <= n < 2100):  # years
        in_pairs = number_words(n, group=2)
        readings = [[*in_pairs[:-2], 'hundred'] if n % 100 == 0 else in_pairs]
    elif is_plain and len(digits) == 3 and n % 100:
        in_pairs = number_words(digits[0]) + number_words(digits[1:].lstrip('0'))
        if digits[1] == '0':
            in_pairs.insert(1, 'oh')
        one_by_one = number_words(digits, group=1)
        # nine one one, but eight oh eight and four twenty
        readings = [one_by_one, in_pairs] if digits.endswith('11') else [in_pairs, one_by_one]
    return readings


def amount_readings(amount):
    """Return the ways to read a match of AMOUNT, each a list of words: $5 -> [['five', 'dollars']]."""
    sign, unit, decimals = amount['sign'], amount['unit'] or '', amount['decimals']
    is_plain = not sign and ',' not in amount['whole'] and unit in ('', 's', *ORDINAL_ENDINGS)
    digits = amount['whole'].replace(',', '')
    readings = whole_number_readings(digits, is_plain)
    if sign in CURRENCIES:
        name, small_name = CURRENCIES[sign]
        size = ['thousand'] if unit == 'k' else UNITS.get(unit, [])
        dollars = readings[0] + size + [name if digits == '1' and not unit else name + 's']
        readings = [readings[0] + ['k'], dollars] if unit == 'k' else [dollars]
        if decimals and len(decimals) == 2 and decimals != '00':
            small = number_words(decimals.lstrip('0'))
            cents = [*small, small_name if decimals == '01' else 'pence' if sign == '£' else small_name + 's']
            short = number_words(digits) + (['oh'] if decimals[0] == '0' else []) + small
            readings = [cents] if digits == '0' else [dollars + cents, short]
        return readings
    if sign == '#':
        readings = [['number', *reading] for reading in readings]
    if decimals:
        readings = [[*reading, 'point', *number_words(decimals, group=1)] for reading in readings]
    if unit in ORDINAL_ENDINGS:
        ordinal = number_engine().ordinal(' '.join(readings[0]))
        return [ordinal.replace('-', ' ').split()]
    if unit == 's':
        return [[*reading[:-1], reading[-1] + 's'] for reading in readings]
    return [reading + UNITS.get(unit, []) for reading in readings]


def readings_of(word):
    """Return the ways to read a word of several parts, each a list of words; [[word]] for a single part.

    '90s -> [['ninetys']], don't-care -> [["don't", 'care']], 911 -> [[nine one one], [nine eleven]]
    """
    first, last = [], [[]]  # the words before the last part, and the ways to read that
    for part in PART.finditer(word):
        first += last[0]
        last = [[part['letters']]] if part['letters'] else amount_readings(part)
    return [first + reading for reading in last]
