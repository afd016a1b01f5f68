// The theme follows the system until the button changes it. This runs before the first paint, so that no
// light page flashes up in the dark.
'use strict'

const dark = matchMedia('(prefers-color-scheme: dark)')
let theme = null
try { theme = localStorage.getItem('theme') } catch { /* storage is off */ }

function showTheme() { document.documentElement.dataset.theme = theme ?? (dark.matches ? 'dark' : 'light') }

function switchTheme() {
  theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'
  try { localStorage.setItem('theme', theme) } catch { /* storage is off */ }
  showTheme()
}
dark.addEventListener('change', showTheme)
showTheme()
