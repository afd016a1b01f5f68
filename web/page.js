// The page of serve.py. What the model and the writer write is put into the page as text alone, never as HTML.
'use strict'

const $ = id => document.getElementById(id)
const [area, mirror, form] = [$('text'), $('mirror'), $('settings')]
const fields = form.elements

// ---- talking to the server

async function post(path, body, signal) {
  const answer = await fetch(path, {method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify(body), signal}).catch(e => {
      throw e.name === 'AbortError' ? e : new Error('the server does not answer: is serve.py still running?')
    })
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}))
    throw new Error(said.detail || `the server answered ${answer.status}: try again`)
  }
  return answer
}

/** The events of POST /api/generate, one by one. */
async function* generate(ask, signal) {
  const answer = await post('/api/generate', {...ask, stream: true}, signal)
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const {done, value} = await reader.read().catch(e => {
      throw e.name === 'AbortError' ? e : new Error('the connection broke: try again')
    })
    if (done) return
    const lines = (rest + value).split('\n')
    rest = lines.pop()
    for (const line of lines) yield JSON.parse(line)
  }
}

// ---- the editor: a mirror behind the textarea has the colours, line by line

let shown = [] // a line each: {text, mark: what the server said of it, node}
let waiting = false // whether a model is writing at the end

function paint(text) {
  const lines = text.split('\n')
  let head = 0, tail = 0
  while (head < Math.min(lines.length, shown.length) && lines[head] === shown[head].text) head++
  while (tail < Math.min(lines.length, shown.length) - head && lines.at(-1 - tail) === shown.at(-1 - tail).text) tail++
  const old = shown.slice(head, shown.length - tail)
  const fresh = lines.slice(head, lines.length - tail).map((line, i) => {
    // until the server has been asked, a line that is being edited keeps the colours of the words that are still in place
    const was = old[i], letters = [...line]
    const mark = was?.mark && {...was.mark, spans: was.mark.spans.filter(([a, b]) =>
      letters.slice(a, b).join('') === [...was.text].slice(a, b).join(''))}
    return {text: line, mark, node: lineNode(line, mark)}
  })
  old.forEach(line => line.node.remove())
  const next = shown[shown.length - tail]?.node ?? null
  fresh.forEach(line => mirror.insertBefore(line.node, next))
  shown.splice(head, old.length, ...fresh)
  mirror.querySelector('.wait')?.classList.remove('wait')
  if (waiting) shown.at(-1).node.classList.add('wait')
}

function element(tag, className, text = '') {
  const node = document.createElement(tag)
  node.className = className
  node.textContent = text
  return node
}

/** A line's words, those that rhyme in spans of their own. Positions count code points, as Python does. */
function coloured(line, spans) {
  const parts = document.createDocumentFragment(), letters = [...line]
  let at = 0
  for (const [start, end, number, internal] of spans) {
    parts.append(letters.slice(at, start).join(''))
    parts.append(element('span', `${internal ? 'in' : 'end'} c${number % 12}`, letters.slice(start, end).join('')))
    at = end
  }
  parts.append(letters.slice(at).join(''))
  return parts
}

function lineNode(line, mark) {
  const node = element('div', line.trimStart().startsWith('[') ? 'line head' : 'line')
  const words = element('span', 'words'), gutter = element('span', 'gutter')
  words.append(coloured(line, mark?.spans ?? []))
  if (mark?.letter) {
    const end = mark.spans.find(span => !span[3])
    gutter.append(element('span', `letter end c${end ? end[2] % 12 : 0}`, mark.letter))
  }
  if (mark?.syllables) gutter.append(element('span', 'count', mark.syllables))
  if (mark?.copied) {
    node.classList.add('copied')
    gutter.title = `${mark.copied.words} words in a row are in ${mark.copied.song}`
  }
  node.append(gutter, words)
  return node
}

let asking = false, askAgain = false, timer = 0
function listen() { // ask the server what rhymes, not more than once at a time
  clearTimeout(timer)
  timer = setTimeout(async () => {
    if (asking) return void (askAgain = true)
    asking = true
    const text = area.value
    try {
      const found = await (await post('/api/analyse', {text})).json()
      if (text === area.value) mark(found)
    } catch (e) { say(e.message, true) }
    asking = false
    if (askAgain || text !== area.value) { askAgain = false; listen() }
  }, 120)
}

function mark({lines, density}) {
  lines.forEach((found, i) => {
    const line = shown[i]
    if (JSON.stringify(line.mark) === JSON.stringify(found)) return
    const node = lineNode(line.text, found)
    node.classList.toggle('wait', line.node.classList.contains('wait'))
    line.node.replaceWith(node)
    Object.assign(line, {mark: found, node})
  })
  const bars = lines.filter(line => line.syllables)
  const rhymed = bars.filter(line => line.letter).length
  $('measures').textContent = !bars.length ? '' : [`${bars.length} line${bars.length > 1 ? 's' : ''}`,
    `rhyme density ${density.toFixed(2)}`, `${Math.round(100 * rhymed / bars.length)}% end in a rhyme`].join('  ·  ')
  const copied = lines.map((line, i) => [i + 1, line.copied]).filter(([, copy]) => copy)
  $('copies').hidden = !copied.length
  $('copies').replaceChildren(...copied.slice(0, 12).map(([number, copy]) => {
    const p = element('p', '', `Line ${number}: ${copy.words} words in a row are in ${copy.song}: `)
    p.append(element('q', '', copy.line))
    return p
  }))
  tellLine()
}

function tellLine() {
  const number = area.value.slice(0, area.selectionStart).split('\n').length
  const found = shown[number - 1]?.mark
  $('line-info').textContent = found?.syllables ? `line ${number}  ·  ${found.syllables} syllables` +
    (found.letter ? `  ·  rhyme ${found.letter}` : '') + (found.copied ? '  ·  copied' : '') : ''
}

// ---- changes, and the way back

let piece = null // {start, text}: what the model wrote last, if it is still there
const past = [], future = []
let typing = 0 // when the last key was pressed: keys in a row are undone together

const state = () => ({text: area.value, caret: area.selectionStart, piece})
function remember(entry = state()) {
  if (past.at(-1)?.text !== entry.text) past.push(entry)
  if (past.length > 300) past.shift()
  future.length = 0
}

function travel(from, to) {
  stop()
  closeChoices()
  const entry = from.pop()
  if (!entry) return
  to.push(state())
  piece = entry.piece
  change(entry.text, entry.caret)
  typing = 0
}

/** Put a text into the editor; whoever calls this remembers what was there. */
function change(text, caret = text.length) {
  area.value = text
  area.setSelectionRange(caret, caret)
  changed()
}

let before = {text: '', caret: 0, piece: null}
function changed() {
  paint(area.value)
  listen()
  before = state()
  $('undo').disabled = !past.length
  $('redo').disabled = !future.length
  try { localStorage.setItem('draft', JSON.stringify({text: area.value, settings: settings()})) } catch { /* storage is off */ }
}

area.addEventListener('input', () => {
  if (Date.now() - typing > 1200) remember(before)
  else future.length = 0
  typing = Date.now()
  const shift = area.value.length - before.text.length
  let same = 0 // where the change begins
  while (same < area.value.length && area.value[same] === before.text[same]) same++
  same = Math.min(same, area.selectionStart)
  if (writing && same < writing.at) writing.at = Math.min(Math.max(same, writing.at + shift), area.value.length)
  if (piece && same <= piece.start) piece = {...piece, start: piece.start + shift}
  if (piece && !area.value.startsWith(piece.text, piece.start)) piece = null
  if (!writing) closeChoices()
  changed()
})
area.addEventListener('beforeinput', e => {
  if (e.inputType === 'historyUndo') { e.preventDefault(); travel(past, future) }
  if (e.inputType === 'historyRedo') { e.preventDefault(); travel(future, past) }
})
document.addEventListener('selectionchange', () => { if (document.activeElement === area) { before.caret = area.selectionStart; tellLine() } })

// ---- settings

const number = name => fields[name].value === '' ? null : Number(fields[name].value)
function settings() {
  const found = {}
  for (const field of fields) if (field.name) found[field.name] = field.type === 'checkbox' ? field.checked : field.value
  return found
}

function restore(wanted) {
  for (const field of fields) {
    if (!field.name || !(field.name in wanted)) continue
    const value = wanted[field.name]
    if (field.type === 'checkbox') field.checked = value === true
    else if (field.tagName !== 'SELECT') field.value = String(value)
    else if ([...field.options].some(option => option.value === value)) field.value = value
    else if (field.name === 'model') say(`the model ${value} is not here; this is ${field.value}`, true)
  }
  showFields()
}

let models = []
function showFields() {
  $('own-label').hidden = fields.scheme.value !== 'own'
  $('temperature-out').textContent = Number(fields.temperature.value).toFixed(2).replace(/0$/, '')
  const header = models.find(model => model.name === fields.model.value)?.header ?? []
  for (const label of form.querySelectorAll('[data-header]')) label.hidden = !header.includes(label.dataset.header)
}
form.addEventListener('input', () => { showFields(); changed() })
form.addEventListener('submit', e => e.preventDefault())

/** What to ask of the server for a prompt; an Error where a field has what it can't have. */
function ask(prompt, samples, seed) {
  for (const field of fields) {
    if (field.name && !field.checkValidity()) {
      if (form.offsetParent === null) toggleSettings(true)
      field.focus()
      throw new Error(`${field.closest('label').firstChild.textContent.trim()}: ${field.validationMessage}`)
    }
  }
  const own = fields.scheme.value === 'own' ? fields.own.value.toUpperCase() : fields.scheme.value
  const syllables = number('syllables')
  const lines = number('lines')
  const wanted = {prompt, lines, num_samples: samples, seed, syllables, rhyme: own || (syllables ? 'X' : ''),
    max_new_tokens: Math.min(limits.max_new_tokens, 40 * lines), model: fields.model.value,
    temperature: number('temperature'), top_k: number('top_k'), top_p: number('top_p')}
  const header = models.find(model => model.name === wanted.model)?.header ?? []
  for (const key of header) wanted[key] = fields[key].value
  return wanted
}

// ---- writing

let writing = null // {at: where the next piece of text goes, abort}
let limits = {max_new_tokens: 1000}
let tries = 0 // how often another one was asked for in this place

function say(text, wrong = false) {
  $('status').textContent = text
  $('status').classList.toggle('wrong', wrong)
}

function busy(is) {
  waiting = is
  $('stop').disabled = !is
  $('continue').disabled = $('another').disabled = $('more').disabled = is
  paint(area.value)
}

function stop() { writing?.abort.abort() }

/** Ask, and hand on each piece of text; tells how it goes. Returns what came at last, or null if it was stopped. */
async function draw(wanted, abort, take) {
  const t0 = performance.now(), going = wanted.rhyme ? 'looking for lines that fit…' : 'writing…'
  say(going)
  try {
    for await (const event of generate(wanted, abort.signal)) {
      abort.signal.throwIfAborted() // some may have come before it was stopped
      if (event.error) throw new Error(event.error)
      if (event.waiting !== undefined) {
        say(event.waiting ? `waiting: ${event.waiting} before you` : going)
      } else if (event.loading) {
        say(`loading ${event.loading}…`)
      } else if (event.done) {
        const seconds = ((performance.now() - t0) / 1000).toFixed(1)
        say(`${event.tokens.reduce((a, b) => a + b)} tokens in ${seconds} s, seed ${event.seed}`)
        return event
      } else {
        take(event.sample, event.text)
        say(going)
      }
    }
    throw new Error('the connection broke: try again')
  } catch (e) {
    if (e.name === 'AbortError') say('stopped')
    else say(e.message, true)
    return null
  }
}

async function goOn() {
  if (writing) return
  closeChoices()
  let wanted
  try { wanted = ask('', 1, number('seed')) } catch (e) { return say(e.message, true) }
  const original = area.value
  remember()
  if (fields.finish.checked) change(original.replace(/[ \t]+$/, '')) // blanks at its end would be no beginning of a word
  else if (original.trim() && !original.endsWith('\n')) change(original + '\n')
  const prompt = area.value
  let written = ''
  writing = {at: prompt.length, abort: new AbortController()}
  typing = 0
  piece = null
  tries = 0
  busy(true)
  await draw({...wanted, prompt}, writing.abort, (_, text) => {
    const {scrollHeight, scrollTop, clientHeight} = document.documentElement
    const follows = scrollHeight - scrollTop - clientHeight < 80
    const caret = area.selectionStart >= writing.at && area.selectionStart === area.selectionEnd
    area.setRangeText(text, writing.at, writing.at, 'preserve')
    writing.at += text.length
    written += text
    if (caret) area.setSelectionRange(writing.at, writing.at)
    changed()
    if (follows) document.documentElement.scrollTop = document.documentElement.scrollHeight
  })
  const start = writing.at - written.length
  writing = null
  busy(false)
  if (!written && area.value === prompt) { // nothing came: as if it had not been asked for
    past.pop()
    return change(original)
  }
  if (written && area.value.startsWith(written, start)) piece = {start, text: written}
  $('heard').textContent = written
  changed()
}

// ---- alternatives

let place = null // {start, end, seed}: what an alternative takes the place of

/** The model's last piece, or else as many last lines as are to be written. */
function lastLines() {
  if (piece) return {start: piece.start, end: piece.start + piece.text.length}
  const text = area.value
  let start = text.trimEnd().length
  for (let i = 0; i < (number('lines') || 1) && start > 0; i++) {
    do start = text.lastIndexOf('\n', start - 1); while (start > 0 && !text.slice(start).trim())
    if (start < 0) start = 0
  }
  return {start: start ? start + 1 : 0, end: text.length}
}

async function another() {
  if (writing) return
  let wanted
  try { wanted = ask('', number('samples'), null) } catch (e) { return say(e.message, true) }
  place = lastLines()
  tries++
  const seed = number('seed')
  // with a seed that is set each try has the next one, for the same would give the same again
  wanted = {...wanted, prompt: area.value.slice(0, place.start), seed: seed === null ? null : seed + tries}
  const texts = Array(wanted.num_samples).fill('')
  const cards = texts.map((_, i) => {
    const card = element('button', 'card')
    card.type = 'button'
    card.disabled = true
    card.append(element('span', 'verse'), element('span', 'which', `${i + 1}`))
    card.addEventListener('click', () => pick(i))
    return card
  })
  place.texts = texts
  $('cards').replaceChildren(...cards)
  $('choices').hidden = false
  $('choices').scrollIntoView({block: 'nearest'})
  writing = {at: Infinity, abort: new AbortController()}
  busy(true)
  const prompt = wanted.prompt
  await draw(wanted, writing.abort, (i, text) => {
    texts[i] += text
    cards[i].firstChild.textContent = texts[i].trim()
  })
  writing = null
  busy(false)
  if ($('choices').hidden) return
  cards.forEach((card, i) => {
    card.disabled = !texts[i].trim()
    card.setAttribute('aria-label', `Alternative ${i + 1}: ${texts[i].trim()}`)
  })
  cards.find(card => !card.disabled)?.focus()
  const first = prompt.slice(-2000).lastIndexOf('\n\n') // the last stanza is what it may rhyme with
  const context = prompt.slice(-2000).slice(first < 0 ? 0 : first)
  for (const [i, card] of cards.entries()) {
    const whole = context + texts[i]
    const found = await post('/api/analyse', {text: whole}).then(answer => answer.json(), () => null)
    if (!found) return
    const skip = context.split('\n').length - 1
    const lines = whole.split('\n')
    const verse = document.createDocumentFragment()
    const own = lines.map((line, k) => [line, found.lines[k]]).slice(skip)
    while (own.length && !own[0][0].trim()) own.shift()
    while (own.length && !own.at(-1)[0].trim()) own.pop()
    own.forEach(([line, mark], k) => verse.append(k ? '\n' : '', coloured(line, mark.spans)))
    card.firstChild.replaceChildren(verse)
    const sung = own.filter(([, mark]) => mark.syllables)
    const copied = own.filter(([, mark]) => mark.copied).length
    card.lastChild.replaceChildren(element('span', '', `${i + 1}`), element('span', '', sung.map(([, mark]) =>
      (mark.letter || '–') + mark.syllables).join(' ') + (copied ? `  ·  ${copied} copied` : '')))
  }
}

function pick(i) {
  const text = place?.texts[i]
  if (writing || !text?.trim()) return
  remember()
  const {start, end} = place
  piece = {start, text}
  closeChoices()
  change(area.value.slice(0, start) + text + area.value.slice(end), start + text.length)
  area.focus()
  say(`alternative ${i + 1} taken`)
}

function closeChoices() {
  if ($('choices').hidden) return
  const inside = $('choices').contains(document.activeElement)
  if (place && writing?.at === Infinity) stop()
  $('choices').hidden = true
  $('cards').replaceChildren()
  place = null
  if (inside) area.focus()
}

// ---- saving, and links

function download(name, content, type) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], {type}))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

async function save(kind) {
  $('save').open = false
  try {
    if (kind === 'txt') download('verse.txt', area.value, 'text/plain')
    if (kind === 'json') download('verse.json', JSON.stringify({text: area.value, settings: settings()}, null, 1), 'application/json')
    if (kind === 'html') download('verse.html', await (await post('/api/page', {text: area.value, title: fields.title.value})).blob())
    say(`saved as verse.${kind}`)
  } catch (e) { say(e.message, true) }
}

/** Bytes through a stream that packs or unpacks them. */
const through = async (bytes, stream) => new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer())

async function makeLink() {
  const bytes = new TextEncoder().encode(JSON.stringify({text: area.value, settings: settings()}))
  const packed = await through(bytes, new CompressionStream('deflate-raw'))
  const letters = btoa(Array.from(packed, byte => String.fromCharCode(byte)).join(''))
  const hash = '#' + letters.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
  history.replaceState(null, '', hash) // behind the #: no server sees it
  try {
    await navigator.clipboard.writeText(location.href)
    say('the link is on the clipboard and in the address bar')
  } catch { say('the link is in the address bar') }
}

async function openLink(hash) {
  const bytes = Uint8Array.from(atob(hash.slice(1).replaceAll('-', '+').replaceAll('_', '/')), letter => letter.charCodeAt(0))
  return JSON.parse(new TextDecoder().decode(await through(bytes, new DecompressionStream('deflate-raw'))))
}

function bring(saved) {
  if (typeof saved?.text !== 'string') throw new Error('no text')
  restore(saved.settings ?? {})
  remember()
  piece = null
  change(saved.text)
}

$('file').addEventListener('change', async () => {
  const [file] = $('file').files
  $('file').value = $('save').open = ''
  if (!file) return
  try {
    const content = await file.text()
    bring(file.name.endsWith('.json') ? JSON.parse(content) : {text: content.replaceAll('\r\n', '\n')})
    say(`opened ${file.name}`)
  } catch { say(`${file.name} is not what this page saves`, true) }
})

// ---- buttons and keys

$('continue').onclick = goOn
$('stop').onclick = stop
$('another').onclick = $('more').onclick = another
$('keep').onclick = closeChoices
$('undo').onclick = () => travel(past, future)
$('redo').onclick = () => travel(future, past)
$('link').onclick = makeLink
$('open').onclick = () => $('file').click()
$('help-open').onclick = () => $('help').showModal()
for (const button of document.querySelectorAll('[data-save]')) button.onclick = () => save(button.dataset.save)
function toggleSettings(open = !form.classList.contains('open')) {
  form.classList.toggle('open', open)
  $('settings-toggle').setAttribute('aria-expanded', open)
}
$('settings-toggle').onclick = () => toggleSettings()

document.addEventListener('keydown', e => {
  const command = e.ctrlKey || e.metaKey
  if (e.isComposing || $('help').open) return
  const key = e.key.toLowerCase()
  if (command && key === 'enter') e.shiftKey ? another() : goOn()
  else if (command && key === 's' && !e.shiftKey) save('txt')
  else if (command && key === 'z' && e.target === area) e.shiftKey ? travel(future, past) : travel(past, future)
  else if (command && key === 'y' && e.target === area) travel(future, past)
  else if (key === 'escape') {
    if ($('save').open) { $('save').open = false; return }
    if (writing) stop()
    else if (!$('choices').hidden) closeChoices()
    else return
  } else if (/^[1-8]$/.test(key) && !command && !e.altKey && $('choices').contains(e.target)) pick(Number(key) - 1)
  else return
  e.preventDefault()
})
document.addEventListener('click', e => { if (!$('save').contains(e.target)) $('save').open = false })

$('theme').onclick = switchTheme

// ---- the beginning: the models, then what a link or the last visit left

async function begin() {
  paint('')
  try {
    const found = await (await fetch('/api/models')).json()
    models = found.models
    limits = found.limits
    area.maxLength = limits.max_prompt
    fields.model.replaceChildren(...models.map(model => new Option(model.name, model.name)))
  } catch { say('the server does not answer: is serve.py still running?', true) }
  showFields()
  try {
    const draft = JSON.parse(localStorage.getItem('draft'))
    if (draft?.text) bring(draft)
    say('')
  } catch { /* none, or storage is off */ }
  past.length = 0
  await follow()
  changed()
  document.documentElement.dataset.ready = 'yes'
}

async function follow() {
  if (location.hash.length < 2) return
  try {
    bring(await openLink(location.hash)) // what was there is one Undo away
    say('text and settings are those of the link')
  } catch { say('this link is damaged: ask for it again', true) }
  history.replaceState(null, '', location.pathname)
}
addEventListener('hashchange', follow)
begin()
