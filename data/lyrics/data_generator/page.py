"""The lyrics of a Genius song page, as a browser shows them, and whether a page is a song's own."""

import re
from urllib.parse import urlparse

from bs4 import BeautifulSoup, NavigableString
from lyricsgenius.genius import _preloaded_lyrics_html
from words import name_key

BLOCKS = frozenset('address article aside blockquote dd div dl dt figcaption figure footer h1 h2 h3 h4 h5 '
                   'h6 header li main nav ol p pre section table td th tr ul'.split())
LEFT_OUT = frozenset('button head iframe noscript script style svg template title'.split())
# what the site writes where lyrics would stand
PLACEHOLDER = re.compile(
    r"\W*(lyrics for this song (have yet to be|haven.t been|will be)|"
    r"lyrics will be available|this song is an? instrumental|be the first to add)", re.I)


def lyrics_of_page(html):
    """Return the lyrics of a song page, '' if it has none.

    They stand in containers, one below the other; lines end at <br> and where a block does. Without
    containers they are taken from the state that the page carries for its scripts.
    """
    soup = BeautifulSoup(html, 'html.parser')
    containers = soup.find_all(attrs={'data-lyrics-container': 'true'})
    if not containers:
        state = _preloaded_lyrics_html(html)
        containers = [BeautifulSoup(state, 'html.parser')] if state else []
    is_container = {id(container) for container in containers}
    outer = [container for container in containers
             if not any(id(parent) in is_container for parent in container.parents)]
    lyrics = re.sub('\n{3,}', '\n\n', text_of(outer)).strip('\n')
    return '' if len(lyrics) < 300 and PLACEHOLDER.match(lyrics) else lyrics


def text_of(containers):
    """Return the text of containers: line breaks of the source are blanks, comments and scripts nothing."""
    lines = ['']

    def end_line(n=1):
        """End the present line; the start and the end of a block (n = 0) end only one that has begun."""
        if n or lines[-1].strip():
            lines.extend([''] * max(1, n))

    stack = []  # not by recursion: a page may nest a thousand elements
    for container in reversed(containers):
        # an empty one is a blank line
        inside = reversed(container.contents or [NavigableString('\u200b')])
        stack += [(container, True), *((child, False) for child in inside)]
    while stack:
        node, is_end = stack.pop()
        if type(node) is NavigableString:  # its subclasses are comments and the like
            lines[-1] += re.sub(r'[ \t\r\n\f]+', ' ', node)
        elif is_end:
            end_line(0)
        elif isinstance(node, NavigableString) or node.name in LEFT_OUT:
            continue
        elif node.get('data-exclude-from-selection', 'false') != 'false':
            continue
        elif 'LyricsHeader' in ' '.join(node.get('class', ())):
            continue
        elif node.name in ('br', 'hr'):
            end_line(1 if node.name == 'br' else 2)
        else:
            if node.name in BLOCKS:
                end_line(0)
                stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.contents))
    return '\n'.join(line.replace('\u200b', '').strip() for line in lines)


def is_own_page(html, song):
    """Return whether a page is certainly the page of a song, a dict of the API.

    A page that refuses us may be served in its place, at its address. So the evidence is what a song's page
    says of itself: its address, its number, or its title above a place for lyrics. A page that was cut off
    proves nothing.
    """
    if '</html' not in html[-2000:].lower():
        return False
    soup = BeautifulSoup(html, 'html.parser')
    path = urlparse(song['url']).path.rstrip('/').lower()
    tags = soup.find_all(['link', 'meta'])
    values = [tag.get('href') or tag.get('content') or '' for tag in tags]
    addresses = [value for tag, value in zip(tags, values, strict=True)
                 if 'canonical' in tag.get('rel', ()) or tag.get('property') == 'og:url']
    if any(urlparse(value).path.rstrip('/').lower() == path for value in addresses):
        return True
    if any(re.search(rf'\bsongs/{song["id"]}\b', value) for value in values):
        return True
    headings = [soup.title.get_text() if soup.title else '']
    headings += [value for tag, value in zip(tags, values, strict=True) if tag.get('property') == 'og:title']
    has_title = any(name_key(song['title']) in name_key(heading) for heading in headings if heading.strip())
    has_place = soup.find(id='lyrics-root') or soup.find(attrs={'data-lyrics-container': True}) or soup.find(
        class_=re.compile('^Lyrics'))
    return has_title and has_place is not None
