// The page of serve.py. Text of the model and of the user is put into text nodes only, never read as HTML.
'use strict'

const $ = id => document.getElementById(id)
const [area, mirror, form] = [$('text'), $('mirror'), $('settings')]
const fields = form.elements
const N_COLOURS = 12 // of rhymes: .c0 to .c11 in style.css
const ANALYSIS_DELAY = 120 // milliseconds without a change, before the text is analysed
const TYPING_PAUSE = 1200 // milliseconds; keys pressed within it are undone together
const MAX_UNDO = 300 // states
const MAX_COPIES = 12 // copied lines that are listed below the text
const TOKENS_PER_LINE = 40 // the most that are requested
const BOTTOM_MARGIN = 80 // pixels; the page scrolls with the text if its end is at most as far away
const MAX_CONTEXT = 2000 // characters before an alternative that are analysed with it

// ---- requests to the server

/** Send JSON; return the Response, or throw an Error that says what to do. */
async function post(path, body, signal) {
  const headers = {'Content-Type': 'application/json'}
  const options = {method: 'POST', headers, body: JSON.stringify(body), signal}
  const answer = await fetch(path, options).catch(e => {
    throw e.name === 'AbortError' ? e : new Error('the server does not answer: is serve.py still running?')
  })
  if (!answer.ok) {
    const error = await answer.json().catch(() => ({}))
    throw new Error(error.detail || `the server answered ${answer.status}: try again`)
  }
  return answer
}

/** Yield the events of POST /api/generate, one by one. */
async function* generate(request, signal) {
  const answer = await post('/api/generate', {...request, stream: true}, signal)
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = '' // of a line that has not arrived completely
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

// ---- the editor: a mirror behind the textarea shows the colours, line by line

let renderedLines = [] // per line {text, analysis, node}; analysis: what the server returned for it
let isWaiting = false // whether the last line is marked, because a model is writing

/** Render the lines of a text that have changed. */
function render(text) {
  const lines = text.split('\n')
  const most = Math.min(lines.length, renderedLines.length)
  let head = 0, tail = 0 // lines that are the same at the beginning and at the end
  while (head < most && lines[head] === renderedLines[head].text) head++
  while (tail < most - head && lines.at(-1 - tail) === renderedLines.at(-1 - tail).text) tail++
  const old = renderedLines.slice(head, renderedLines.length - tail)
  const fresh = lines.slice(head, lines.length - tail).map((line, i) => {
    // until its next analysis, a line that is being edited keeps the colours of words that are still in place
    const before = old[i], letters = [...line]
    const isInPlace = ([a, b]) => letters.slice(a, b).join('') === [...before.text].slice(a, b).join('')
    const analysis = before?.analysis && {...before.analysis, spans: before.analysis.spans.filter(isInPlace)}
    return {text: line, analysis, node: lineNode(line, analysis)}
  })
  old.forEach(line => line.node.remove())
  const next = renderedLines[renderedLines.length - tail]?.node ?? null
  fresh.forEach(line => mirror.insertBefore(line.node, next))
  renderedLines.splice(head, old.length, ...fresh)
  mirror.querySelector('.wait')?.classList.remove('wait')
  if (isWaiting) renderedLines.at(-1).node.classList.add('wait')
}

function element(tag, className, text = '') {
  const node = document.createElement(tag)
  node.className = className
  node.textContent = text
  return node
}

/**
 * Return a line as nodes, with the words that rhyme in coloured spans.
 * The server's positions count code points, as in Python, not UTF-16 units as in JavaScript.
 */
function colouredWords(line, spans) {
  const parts = document.createDocumentFragment(), letters = [...line]
  let at = 0
  for (const [start, end, number, internal] of spans) {
    parts.append(letters.slice(at, start).join(''))
    const className = `${internal ? 'in' : 'end'} c${number % N_COLOURS}`
    parts.append(element('span', className, letters.slice(start, end).join('')))
    at = end
  }
  parts.append(letters.slice(at).join(''))
  return parts
}

/** Return a line's node in the mirror: its words, and the margin with the letter and syllables. */
function lineNode(line, analysis) {
  const node = element('div', line.trimStart().startsWith('[') ? 'line head' : 'line')
  const words = element('span', 'words'), gutter = element('span', 'gutter')
  words.append(colouredWords(line, analysis?.spans ?? []))
  if (analysis?.letter) {
    const end = analysis.spans.find(span => !span[3])
    gutter.append(element('span', `letter end c${end ? end[2] % N_COLOURS : 0}`, analysis.letter))
  }
  if (analysis?.syllables) gutter.append(element('span', 'count', analysis.syllables))
  if (analysis?.copied) {
    node.classList.add('copied')
    gutter.title = `${analysis.copied.words} words in a row are in ${analysis.copied.song}`
  }
  node.append(gutter, words)
  return node
}

let isAnalysing = false, analyseAgain = false, timer = 0

/** Have the server analyse the text soon, one request at a time. */
function scheduleAnalysis() {
  clearTimeout(timer)
  timer = setTimeout(async () => {
    if (isAnalysing) return void (analyseAgain = true)
    isAnalysing = true
    const text = area.value
    try {
      const analysis = await (await post('/api/analyse', {text})).json()
      if (text === area.value) showAnalysis(analysis)
    } catch (e) { showStatus(e.message, true) }
    isAnalysing = false
    if (analyseAgain || text !== area.value) { analyseAgain = false; scheduleAnalysis() }
  }, ANALYSIS_DELAY)
}

/** Show an analysis of the text: colours, counts, copied lines. */
function showAnalysis({lines, density}) {
  lines.forEach((analysis, i) => {
    const line = renderedLines[i]
    if (JSON.stringify(line.analysis) === JSON.stringify(analysis)) return
    const node = lineNode(line.text, analysis)
    node.classList.toggle('wait', line.node.classList.contains('wait'))
    line.node.replaceWith(node)
    Object.assign(line, {analysis, node})
  })
  const bars = lines.filter(line => line.syllables)
  const rhymed = bars.filter(line => line.letter).length
  const measures = [`${bars.length} line${bars.length > 1 ? 's' : ''}`, `rhyme density ${density.toFixed(2)}`,
    `${Math.round(100 * rhymed / bars.length)}% end in a rhyme`]
  $('measures').textContent = bars.length ? measures.join('  ·  ') : ''
  const copied = lines.map((line, i) => [i + 1, line.copied]).filter(([, copy]) => copy)
  $('copies').hidden = !copied.length
  $('copies').replaceChildren(...copied.slice(0, MAX_COPIES).map(([number, copy]) => {
    const p = element('p', '', `Line ${number}: ${copy.words} words in a row are in ${copy.song}: `)
    p.append(element('q', '', copy.line))
    return p
  }))
  showLineInfo()
}

/** Show the counts of the line in which the caret is. */
function showLineInfo() {
  const number = area.value.slice(0, area.selectionStart).split('\n').length
  const analysis = renderedLines[number - 1]?.analysis
  const parts = analysis?.syllables ? [`line ${number}`, `${analysis.syllables} syllables`] : []
  if (parts.length && analysis.letter) parts.push(`rhyme ${analysis.letter}`)
  if (parts.length && analysis.copied) parts.push('copied')
  $('line-info').textContent = parts.join('  ·  ')
}

// ---- changes, undo and redo

let lastPiece = null // {start, text}: what the model wrote last, if it is still there
const undoStack = [], redoStack = []
let lastKeyTime = 0 // 0: the next key begins a new step of undo

const state = () => ({text: area.value, caret: area.selectionStart, piece: lastPiece})

/** Put the present state, or `entry`, on the undo stack. */
function pushUndo(entry = state()) {
  if (undoStack.at(-1)?.text !== entry.text) undoStack.push(entry)
  if (undoStack.length > MAX_UNDO) undoStack.shift()
  redoStack.length = 0
}

const undo = () => restoreFrom(undoStack, redoStack)
const redo = () => restoreFrom(redoStack, undoStack)

/** Undo or redo: restore the state on top of the stack `from`, and put the present one on the stack `to`. */
function restoreFrom(from, to) {
  stop()
  closeChoices()
  const entry = from.pop()
  if (!entry) return
  to.push(state())
  lastPiece = entry.piece
  setText(entry.text, entry.caret)
  lastKeyTime = 0
}

/** Replace the editor's text; the caller has put the old state on the undo stack. */
function setText(text, caret = text.length) {
  area.value = text
  area.setSelectionRange(caret, caret)
  onChange()
}

let lastState = {text: '', caret: 0, piece: null}

/** Update what depends on the text and the settings, and keep both for the next visit. */
function onChange() {
  render(area.value)
  scheduleAnalysis()
  lastState = state()
  $('undo').disabled = !undoStack.length
  $('redo').disabled = !redoStack.length
  const draft = {text: area.value, settings: settings()}
  try { localStorage.setItem('draft', JSON.stringify(draft)) } catch { /* storage is off */ }
}

area.addEventListener('input', () => {
  if (Date.now() - lastKeyTime > TYPING_PAUSE) pushUndo(lastState)
  else redoStack.length = 0
  lastKeyTime = Date.now()
  const shift = area.value.length - lastState.text.length
  let start = 0 // where the change begins
  while (start < area.value.length && area.value[start] === lastState.text[start]) start++
  start = Math.min(start, area.selectionStart)
  if (writing && start < writing.at) {
    writing.at = Math.min(Math.max(start, writing.at + shift), area.value.length)
  }
  if (lastPiece && start <= lastPiece.start) lastPiece = {...lastPiece, start: lastPiece.start + shift}
  if (lastPiece && !area.value.startsWith(lastPiece.text, lastPiece.start)) lastPiece = null
  if (!writing) closeChoices()
  onChange()
})
area.addEventListener('beforeinput', e => {
  if (e.inputType === 'historyUndo') { e.preventDefault(); undo() }
  if (e.inputType === 'historyRedo') { e.preventDefault(); redo() }
})
document.addEventListener('selectionchange', () => {
  if (document.activeElement !== area) return
  lastState.caret = area.selectionStart
  showLineInfo()
})

// ---- settings

/** Return the number in a field, null if the field is empty. */
const number = name => fields[name].value === '' ? null : Number(fields[name].value)

/** Return {name: value} of all fields. */
function settings() {
  const values = {}
  for (const field of fields) {
    if (field.name) values[field.name] = field.type === 'checkbox' ? field.checked : field.value
  }
  return values
}

/** Fill the fields with saved settings. */
function restoreSettings(saved) {
  for (const field of fields) {
    if (!field.name || !(field.name in saved)) continue
    const value = saved[field.name]
    if (field.type === 'checkbox') field.checked = value === true
    else if (field.tagName !== 'SELECT') field.value = String(value)
    else if ([...field.options].some(option => option.value === value)) field.value = value
    else if (field.name === 'model') {
      showStatus(`the model ${value} is not here; this is ${field.value}`, true)
    }
  }
  updateFields()
}

let models = []

/** Show the fields that the present choices need. */
function updateFields() {
  $('own-label').hidden = fields.scheme.value !== 'own'
  $('temperature-out').textContent = Number(fields.temperature.value).toFixed(2).replace(/0$/, '')
  const header = models.find(model => model.name === fields.model.value)?.header ?? []
  for (const label of form.querySelectorAll('[data-header]')) {
    label.hidden = !header.includes(label.dataset.header)
  }
}
form.addEventListener('input', () => { updateFields(); onChange() })
form.addEventListener('submit', e => e.preventDefault())

/** Return the body of POST /api/generate for a prompt; throw an Error if a field's value is not valid. */
function generateRequest(prompt, samples, seed) {
  for (const field of fields) {
    if (field.name && !field.checkValidity()) {
      if (form.offsetParent === null) toggleSettings(true)
      field.focus()
      throw new Error(`${field.closest('label').firstChild.textContent.trim()}: ${field.validationMessage}`)
    }
  }
  const scheme = fields.scheme.value === 'own' ? fields.own.value.toUpperCase() : fields.scheme.value
  const syllables = number('syllables')
  const lines = number('lines')
  const request = {
    prompt, lines, seed, syllables,
    num_samples: samples,
    rhyme: scheme || (syllables ? 'X' : ''), // syllables need a scheme; a line X rhymes with none
    max_new_tokens: Math.min(limits.max_new_tokens, TOKENS_PER_LINE * lines),
    model: fields.model.value,
    temperature: number('temperature'),
    top_k: number('top_k'),
    top_p: number('top_p'),
  }
  const header = models.find(model => model.name === request.model)?.header ?? []
  for (const key of header) request[key] = fields[key].value
  return request
}

// ---- writing

// {at, abort} while the model writes: the position of its next text, and the AbortController of the request.
// at is Infinity while it writes alternatives, which are not in the text.
let writing = null
let limits = {max_new_tokens: 1000}
let nAlternatives = 0 // how often alternatives were requested since the last Continue

/** Show a message below the text, as an error if `wrong`. */
function showStatus(text, wrong = false) {
  $('status').textContent = text
  $('status').classList.toggle('wrong', wrong)
}

/** Enable or disable the buttons, and mark the last line, for a model that begins or ends. */
function setBusy(isBusy) {
  isWaiting = isBusy
  $('stop').disabled = !isBusy
  $('continue').disabled = $('another').disabled = $('more').disabled = isBusy
  render(area.value)
}

/** Stop the model, if it writes. */
function stop() { writing?.abort.abort() }

/**
 * Generate: call onText(sample, text) for each piece of text, and show the status.
 * Resolves to the last event, or to null after an error or a stop.
 */
async function runGeneration(request, abort, onText) {
  const t0 = performance.now()
  const working = request.rhyme ? 'looking for lines that fit…' : 'writing…'
  showStatus(working)
  try {
    for await (const event of generate(request, abort.signal)) {
      abort.signal.throwIfAborted() // events may still be in the buffer when it is stopped
      if (event.error) throw new Error(event.error)
      if (event.waiting !== undefined) {
        showStatus(event.waiting ? `waiting: ${event.waiting} before you` : working)
      } else if (event.loading) {
        showStatus(`loading ${event.loading}…`)
      } else if (event.done) {
        const seconds = ((performance.now() - t0) / 1000).toFixed(1)
        showStatus(`${event.tokens.reduce((a, b) => a + b)} tokens in ${seconds} s, seed ${event.seed}`)
        return event
      } else {
        onText(event.sample, event.text)
        showStatus(working)
      }
    }
    throw new Error('the connection broke: try again')
  } catch (e) {
    if (e.name === 'AbortError') showStatus('stopped')
    else showStatus(e.message, true)
    return null
  }
}

/** Let the model continue the text. */
async function continueText() {
  if (writing) return
  closeChoices()
  let request
  try { request = generateRequest('', 1, number('seed')) } catch (e) { return showStatus(e.message, true) }
  const original = area.value
  pushUndo()
  // the model's words begin with their space, so the line must not end with one
  if (fields.finish.checked) setText(original.replace(/[ \t]+$/, ''))
  else if (original.trim() && !original.endsWith('\n')) setText(original + '\n')
  const prompt = area.value
  let newText = ''
  writing = {at: prompt.length, abort: new AbortController()}
  lastKeyTime = 0
  lastPiece = null
  nAlternatives = 0
  setBusy(true)
  await runGeneration({...request, prompt}, writing.abort, (_, text) => {
    const {scrollHeight, scrollTop, clientHeight} = document.documentElement
    const isAtBottom = scrollHeight - scrollTop - clientHeight < BOTTOM_MARGIN
    const caretIsAtEnd = area.selectionStart >= writing.at && area.selectionStart === area.selectionEnd
    area.setRangeText(text, writing.at, writing.at, 'preserve')
    writing.at += text.length
    newText += text
    if (caretIsAtEnd) area.setSelectionRange(writing.at, writing.at)
    onChange()
    if (isAtBottom) document.documentElement.scrollTop = document.documentElement.scrollHeight
  })
  const start = writing.at - newText.length
  writing = null
  setBusy(false)
  if (!newText && area.value === prompt) { // the model added nothing: restore the old text
    undoStack.pop()
    return setText(original)
  }
  if (newText && area.value.startsWith(newText, start)) lastPiece = {start, text: newText}
  $('announcement').textContent = newText
  onChange()
}

// ---- alternatives

// {start, end, texts}: the range of the text that an alternative would replace, and the alternatives
let alternatives = null

/**
 * Return {start, end} of the part that alternatives would replace: what the model wrote last or, if that is
 * no longer there, the last lines, as many as the model is to write.
 */
function lastLines() {
  if (lastPiece) return {start: lastPiece.start, end: lastPiece.start + lastPiece.text.length}
  const text = area.value
  let start = text.trimEnd().length
  for (let i = 0; i < (number('lines') || 1) && start > 0; i++) {
    do start = text.lastIndexOf('\n', start - 1); while (start > 0 && !text.slice(start).trim())
    if (start < 0) start = 0
  }
  return {start: start ? start + 1 : 0, end: text.length}
}

/** Return a card, a button that takes alternative i. */
function createCard(i) {
  const card = element('button', 'card')
  card.type = 'button'
  card.disabled = true
  card.append(element('span', 'verse'), element('span', 'which', `${i + 1}`))
  card.addEventListener('click', () => takeAlternative(i))
  return card
}

/** Let the model write alternatives to the last lines, each on a card. */
async function writeAlternatives() {
  if (writing) return
  let request
  try {
    request = generateRequest('', number('samples'), null)
  } catch (e) { return showStatus(e.message, true) }
  const texts = Array(request.num_samples).fill('')
  alternatives = {...lastLines(), texts}
  const prompt = area.value.slice(0, alternatives.start)
  nAlternatives++
  const seed = number('seed')
  request.prompt = prompt
  request.seed = seed === null ? null : seed + nAlternatives // the same seed would give the same texts again
  const cards = texts.map((_, i) => createCard(i))
  $('cards').replaceChildren(...cards)
  $('choices').hidden = false
  $('choices').scrollIntoView({block: 'nearest'})
  writing = {at: Infinity, abort: new AbortController()}
  setBusy(true)
  await runGeneration(request, writing.abort, (i, text) => {
    texts[i] += text
    cards[i].firstChild.textContent = texts[i].trim()
  })
  writing = null
  setBusy(false)
  if ($('choices').hidden) return
  cards.forEach((card, i) => {
    card.disabled = !texts[i].trim()
    card.setAttribute('aria-label', `Alternative ${i + 1}: ${texts[i].trim()}`)
  })
  cards.find(card => !card.disabled)?.focus()
  await colourCards(cards, texts, prompt)
}

/** Show on each card which words rhyme, with the text before it too, and how many lines are copied. */
async function colourCards(cards, texts, prompt) {
  const before = prompt.slice(-MAX_CONTEXT)
  const context = before.slice(Math.max(0, before.lastIndexOf('\n\n'))) // the last stanza
  const nContextLines = context.split('\n').length - 1
  for (const [i, card] of cards.entries()) {
    const text = context + texts[i]
    const answer = await post('/api/analyse', {text}).then(answer => answer.json(), () => null)
    if (!answer) return
    const pairs = text.split('\n').map((line, k) => [line, answer.lines[k]]).slice(nContextLines)
    while (pairs.length && !pairs[0][0].trim()) pairs.shift()
    while (pairs.length && !pairs.at(-1)[0].trim()) pairs.pop()
    const verse = document.createDocumentFragment()
    pairs.forEach(([line, {spans}], k) => verse.append(k ? '\n' : '', colouredWords(line, spans)))
    card.firstChild.replaceChildren(verse)
    const analyses = pairs.map(([, analysis]) => analysis)
    const withWords = analyses.filter(analysis => analysis.syllables)
    const rhymes = withWords.map(analysis => (analysis.letter || '–') + analysis.syllables)
    const nCopied = analyses.filter(analysis => analysis.copied).length
    card.lastChild.replaceChildren(element('span', '', `${i + 1}`),
      element('span', '', rhymes.join(' ') + (nCopied ? `  ·  ${nCopied} copied` : '')))
  }
}

/** Put alternative i into the text. */
function takeAlternative(i) {
  const text = alternatives?.texts[i]
  if (writing || !text?.trim()) return
  pushUndo()
  const {start, end} = alternatives
  lastPiece = {start, text}
  closeChoices()
  setText(area.value.slice(0, start) + text + area.value.slice(end), start + text.length)
  area.focus()
  showStatus(`alternative ${i + 1} taken`)
}

/** Hide the alternatives, and stop the model if it is writing them. */
function closeChoices() {
  if ($('choices').hidden) return
  const hadFocus = $('choices').contains(document.activeElement)
  if (alternatives && writing?.at === Infinity) stop()
  $('choices').hidden = true
  $('cards').replaceChildren()
  alternatives = null
  if (hadFocus) area.focus()
}

// ---- saving, and links

/** Have the browser save a string or a Blob as a file. */
function download(name, content, type) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], {type}))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

/** Save the text as a file: txt, html (in colour), or json (with the settings). */
async function save(kind) {
  $('save').open = false
  try {
    if (kind === 'txt') download('verse.txt', area.value, 'text/plain')
    if (kind === 'json') {
      const draft = {text: area.value, settings: settings()}
      download('verse.json', JSON.stringify(draft, null, 1), 'application/json')
    }
    if (kind === 'html') {
      const page = await post('/api/page', {text: area.value, title: fields.title.value})
      download('verse.html', await page.blob())
    }
    showStatus(`saved as verse.${kind}`)
  } catch (e) { showStatus(e.message, true) }
}

/** Pipe bytes through a stream that compresses or decompresses them. */
async function pipeBytes(bytes, stream) {
  const piped = new Response(new Blob([bytes]).stream().pipeThrough(stream))
  return new Uint8Array(await piped.arrayBuffer())
}

/** Put the text and the settings into the address, compressed. */
async function makeLink() {
  const bytes = new TextEncoder().encode(JSON.stringify({text: area.value, settings: settings()}))
  const packed = await pipeBytes(bytes, new CompressionStream('deflate-raw'))
  const letters = btoa(Array.from(packed, byte => String.fromCharCode(byte)).join(''))
  const hash = '#' + letters.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
  history.replaceState(null, '', hash) // browsers don't send the part after # to the server
  try {
    await navigator.clipboard.writeText(location.href)
    showStatus('the link is on the clipboard and in the address bar')
  } catch { showStatus('the link is in the address bar') }
}

/** Return what makeLink() put into an address. */
async function readLink(hash) {
  const letters = atob(hash.slice(1).replaceAll('-', '+').replaceAll('_', '/'))
  const bytes = Uint8Array.from(letters, letter => letter.charCodeAt(0))
  return JSON.parse(new TextDecoder().decode(await pipeBytes(bytes, new DecompressionStream('deflate-raw'))))
}

/** Load a text with its settings, from a file, a link or the last visit. */
function loadDraft(saved) {
  if (typeof saved?.text !== 'string') throw new Error('no text')
  restoreSettings(saved.settings ?? {})
  pushUndo()
  lastPiece = null
  setText(saved.text)
}

$('file').addEventListener('change', async () => {
  const [file] = $('file').files
  $('file').value = $('save').open = ''
  if (!file) return
  try {
    const content = await file.text()
    loadDraft(file.name.endsWith('.json') ? JSON.parse(content) : {text: content.replaceAll('\r\n', '\n')})
    showStatus(`opened ${file.name}`)
  } catch { showStatus(`${file.name} is not what this page saves`, true) }
})

// ---- buttons and keys

$('continue').onclick = continueText
$('stop').onclick = stop
$('another').onclick = $('more').onclick = writeAlternatives
$('keep').onclick = closeChoices
$('undo').onclick = undo
$('redo').onclick = redo
$('link').onclick = makeLink
$('open').onclick = () => $('file').click()
$('help-open').onclick = () => $('help').showModal()
for (const button of document.querySelectorAll('[data-save]')) {
  button.onclick = () => save(button.dataset.save)
}

function toggleSettings(open = !form.classList.contains('open')) {
  form.classList.toggle('open', open)
  $('settings-toggle').setAttribute('aria-expanded', open)
}
$('settings-toggle').onclick = () => toggleSettings()

document.addEventListener('keydown', e => {
  const command = e.ctrlKey || e.metaKey
  if (e.isComposing || $('help').open) return
  const key = e.key.toLowerCase()
  if (command && key === 'enter') e.shiftKey ? writeAlternatives() : continueText()
  else if (command && key === 's' && !e.shiftKey) save('txt')
  else if (command && key === 'z' && e.target === area) e.shiftKey ? redo() : undo()
  else if (command && key === 'y' && e.target === area) redo()
  else if (key === 'escape') {
    if ($('save').open) { $('save').open = false; return }
    if (writing) stop()
    else if (!$('choices').hidden) closeChoices()
    else return
  } else if (/^[1-8]$/.test(key) && !command && !e.altKey && $('choices').contains(e.target)) {
    takeAlternative(Number(key) - 1)
  }
  else return
  e.preventDefault()
})
document.addEventListener('click', e => { if (!$('save').contains(e.target)) $('save').open = false })

$('theme').onclick = switchTheme

// ---- start: the models, then the text of a link or of the last visit

async function begin() {
  render('')
  try {
    const answer = await (await fetch('/api/models')).json()
    models = answer.models
    limits = answer.limits
    area.maxLength = limits.max_prompt
    fields.model.replaceChildren(...models.map(model => new Option(model.name, model.name)))
  } catch { showStatus('the server does not answer: is serve.py still running?', true) }
  updateFields()
  try {
    const draft = JSON.parse(localStorage.getItem('draft'))
    if (draft?.text) loadDraft(draft)
    showStatus('')
  } catch { /* none, or storage is off */ }
  undoStack.length = 0
  await followLink()
  onChange()
  document.documentElement.dataset.ready = 'yes'
}

/** Load the text and the settings from the address, if it has them. */
async function followLink() {
  if (location.hash.length < 2) return
  try {
    loadDraft(await readLink(location.hash)) // Undo restores the old text
    showStatus('text and settings are those of the link')
  } catch { showStatus('this link is damaged: ask for it again', true) }
  history.replaceState(null, '', location.pathname)
}
addEventListener('hashchange', followLink)
begin()
