// The one place that knows the rendering library, and the one through which every text passes on its way to the reader.

import { html as drawn } from '../vendor/htm-preact.js';
import { speaks, translate } from './languages/speech.js';

export {
  render, useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback, useReducer,
} from '../vendor/htm-preact.js';

/** What of an element or a part is read by people. */
const SPOKEN = ['aria-label', 'title', 'placeholder', 'alt', 'actionText', 'name', 'label', 'what', 'note', 'data-name'];

/** A name such as `Pause celery` begins with the word that the button shows. */
function called(text) {
  const whole = translate(text);
  if (whole !== text) return whole;
  const [, word, rest] = /^(\S+)( .+)$/.exec(text) || [];
  return word ? `${translate(word)}${rest}` : text;
}

function said(node) {
  if (typeof node === 'string') return translate(node);
  if (Array.isArray(node)) return node.map(said);
  // What somebody else named stays as it is, even if it is called "Search".
  if (node?.props && node.props.translate !== false) {
    for (const name of SPOKEN) {
      // The name of a field is for the form, not for people.
      if (typeof node.props[name] === 'string' && !(name === 'name' && typeof node.type === 'string')) node.props[name] = called(node.props[name]);
    }
    if (node.props.children !== undefined && node.type !== 'code' && node.type !== 'pre') node.props.children = said(node.props.children);
  }
  return node;
}

export const html = speaks === 'en' ? drawn : (...parts) => said(drawn(...parts));
