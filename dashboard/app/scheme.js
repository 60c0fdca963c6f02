// Dark or light: as the system says, until the reader says otherwise.

const KEY = 'taskgate-colours';
const CHOICES = ['system', 'light', 'dark'];
const system = matchMedia('(prefers-color-scheme: dark)');

export function scheme() {
  const kept = localStorage.getItem(KEY);
  return CHOICES.includes(kept) ? kept : 'system';
}

function apply() {
  const chosen = scheme();
  const dark = chosen === 'dark' || (chosen === 'system' && system.matches);
  document.documentElement.dataset.scheme = dark ? 'dark' : 'light';
}

export function keepScheme() {
  apply();
  system.addEventListener('change', apply);
}

export function nextScheme() {
  localStorage.setItem(KEY, CHOICES[(CHOICES.indexOf(scheme()) + 1) % CHOICES.length]);
  apply();
  return scheme();
}
