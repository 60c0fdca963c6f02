// In which language the pages speak: the browser's, when there is a file for it, else English. The English sentence is the key of its
// translation, so a sentence that nobody has translated is shown in English and not as a code.

import { KOREAN } from './ko.js';

const FILES = { ko: KOREAN };
const KEY = 'taskgate-language';

const wished = localStorage.getItem(KEY) || (navigator.languages || [navigator.language]).map((one) => one.slice(0, 2)).find((one) => one === 'en' || FILES[one]);

/** `en` or one of the files. */
export const speaks = FILES[wished] ? wished : 'en';

/** The text in the reader's language. The spaces around it stay. */
export function translate(text) {
  const words = FILES[speaks];
  const bare = text.trim().replace(/\s+/g, ' ');
  const known = words && Object.hasOwn(words, bare) && words[bare];
  return known ? text.replace(/\S(?:[\s\S]*\S)?/, () => known) : text;
}

/** A sentence with `{name}` where a value goes: translated as a whole, because every language has its own order. */
export const say = (sentence, values) => translate(sentence).replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? values[name] : whole));

export function speak(language) {
  localStorage.setItem(KEY, language);
  location.reload();
}

document.documentElement.lang = speaks;
