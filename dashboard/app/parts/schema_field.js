// A field for a JSON Schema, and the value that was entered, with the type that the schema asks for.

import { html } from '../view.js';

/** Follows `$ref` inside the document, a few steps deep. */
export function resolve(document, schema) {
  let found = schema;
  for (let step = 0; found?.$ref && step < 8; step += 1) {
    found = found.$ref.replace(/^#\//, '').split('/').reduce((place, part) => place?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], document);
  }
  return found;
}

const typeOf = (schema) => [].concat(schema?.type || []).find((type) => type !== 'null') || (schema?.enum ? 'string' : 'any');
const isSimple = (schema) => ['string', 'number', 'integer', 'boolean'].includes(typeOf(schema));

function initial(schema) {
  const value = schema.default ?? schema.example ?? schema.examples?.[0];
  if (value === undefined) return isSimple(schema) ? '' : '';
  return isSimple(schema) ? String(value) : JSON.stringify(value);
}

function Input({ id, field: name, schema, required }) {
  const type = typeOf(schema);
  const choices = schema.enum || (schema.const !== undefined ? [schema.const] : null);
  if (choices) {
    return html`<select id=${id} name=${name} required=${required}>${!required && html`<option value=""></option>`}
      ${choices.map((one) => html`<option key=${one} value=${one} selected=${one === schema.default}>${one}</option>`)}</select>`;
  }
  if (type === 'boolean') {
    return html`<select id=${id} name=${name}>${!required && html`<option value=""></option>`}
      <option value="true" selected=${schema.default === true}>true</option><option value="false" selected=${schema.default === false}>false</option></select>`;
  }
  if (type === 'integer' || type === 'number') {
    return html`<input id=${id} name=${name} type="number" step=${type === 'integer' ? 1 : 'any'} min=${schema.minimum} max=${schema.maximum} required=${required} defaultValue=${initial(schema)} />`;
  }
  if (type === 'string') {
    return html`<input id=${id} name=${name} type="text" minlength=${schema.minLength} maxlength=${schema.maxLength} required=${required} defaultValue=${initial(schema)} />`;
  }
  return html`<textarea id=${id} name=${name} required=${required} spellcheck=${false} placeholder=${type === 'array' ? '[…]' : type === 'object' ? '{…}' : 'JSON'} defaultValue=${initial(schema)}></textarea>`;
}

/** `member` is the schema's own name of it, `name` a word for the reader; `scope` keeps apart the fields of several forms on one page. */
export function Field({ id, member, name, schema, required, refused, scope = '' }) {
  return html`<div class="field ${isSimple(schema) ? '' : 'wide'}">
    <label for=${scope + id}>${schema.title || member ? html`<span translate=${false}>${schema.title || member}</span>` : name}${required ? ' *' : ''}${isSimple(schema) ? '' : ' (JSON)'}</label>
    <${Input} id=${scope + id} field=${id} schema=${schema} required=${required} />
    ${schema.description && html`<span class="small quiet">${schema.description}</span>`}
    ${refused && html`<span class="refused" role="alert">${refused}</span>`}
  </div>`;
}

function read(schema, text) {
  const type = typeOf(schema);
  if (schema.enum) return schema.enum.find((one) => String(one) === text) ?? text;
  if (type === 'integer' || type === 'number') return Number(text);
  if (type === 'boolean') return text === 'true';
  if (type === 'string') return text;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${text.slice(0, 40)} is not JSON: ${error.message}`);
  }
}

/** The body that was entered: empty fields are left out. */
export function valuesOf(schema, data) {
  const properties = Object.entries(schema.properties || {});
  if (properties.length === 0) return JSON.parse(data.get('body') || '{}');
  const body = {};
  for (const [name, member] of properties) {
    const text = data.get(`body.${name}`);
    if (text !== null && text !== '') body[name] = read(member, text);
  }
  return body;
}

/** The answer that was entered for any schema: the fields of an object, or one value. */
export function answerOf(schema, data) {
  if (Object.keys(schema.properties || {}).length > 0) return valuesOf(schema, data);
  return read(schema, data.get('body'));
}
