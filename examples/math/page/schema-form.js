/** A form for the arguments that a JSON Schema describes. */

import { element, pretty } from './dom.js';

const MAX_REFERENCES = 20;

/** Returns what a reference within the same schema leads to. */
function resolve(schema, root) {
  let found = schema;
  for (let count = 0; typeof found?.$ref === 'string' && count < MAX_REFERENCES; count++) {
    const path = found.$ref.replace(/^#\/?/, '').split('/').filter(Boolean);
    const target = path.reduce((at, name) => at?.[name.replaceAll('~1', '/').replaceAll('~0', '~')], root);
    found = { ...target, ...found, $ref: target?.$ref };
  }
  return typeof found === 'object' && found !== null ? found : {};
}

/** Returns a schema without the alternative `null`, and with its other alternative where that is the only one. */
function simplify(schema, root) {
  const one = resolve(schema, root);
  const alternatives = (one.anyOf ?? one.oneOf)?.map((other) => resolve(other, root)).filter(({ type }) => type !== 'null');
  if (alternatives?.length === 1) return { ...simplify(alternatives[0], root), ...titles(one) };
  if (alternatives?.length && alternatives.every((other) => 'const' in other)) {
    return { ...one, type: undefined, enum: alternatives.map((other) => other.const), enumNames: alternatives.map(({ title }) => title) };
  }
  if (!Array.isArray(one.type)) return one;
  const types = one.type.filter((type) => type !== 'null');
  return { ...one, type: types.length === 1 ? types[0] : undefined };
}

const titles = ({ title, description, default: given }) =>
  Object.fromEntries(Object.entries({ title, description, default: given }).filter(([, value]) => value !== undefined));

const FORMATS = { date: 'date', email: 'email', uri: 'url', url: 'url', time: 'time', password: 'password' };

/** One argument: a control, and `read`, which returns its value, or `undefined` if it is left out. */
const controls = {
  choice(schema, isRequired) {
    const values = schema.enum ?? [true, false];
    const options = values.map((value, index) => element('option', { value: String(index) }, String(schema.enumNames?.[index] ?? (typeof value === 'string' ? value : JSON.stringify(value)))));
    if (!isRequired || schema.default === undefined) options.unshift(element('option', { value: '' }, isRequired ? 'choose …' : 'not given'));
    const control = element('select', { required: isRequired }, ...options);
    const given = values.indexOf(schema.default);
    control.value = given < 0 ? '' : String(given);
    return { control, read: () => (control.value === '' ? undefined : values[Number(control.value)]) };
  },

  number(schema, isRequired) {
    const { minimum, maximum, multipleOf, exclusiveMinimum, exclusiveMaximum, default: given, type } = schema;
    const control = element('input', { type: 'number', required: isRequired, inputMode: type === 'integer' ? 'numeric' : 'decimal' });
    control.step = multipleOf ?? (type === 'integer' ? 1 : 'any');
    for (const [name, limit] of [['min', minimum ?? exclusiveMinimum], ['max', maximum ?? exclusiveMaximum]]) {
      if (typeof limit === 'number') control[name] = limit;
    }
    if (typeof given === 'number') control.value = given;
    return { control, read: () => (control.value === '' ? undefined : control.valueAsNumber) };
  },

  string(schema, isRequired, name) {
    const isLong = schema.maxLength > 200 || /content|body|code|markdown/i.test(name);
    const type = FORMATS[schema.format] ?? 'text';
    const control = isLong ? element('textarea') : element('input', { type });
    Object.assign(control, { required: isRequired, spellcheck: false, autocomplete: 'off' });
    if (schema.minLength) control.minLength = schema.minLength;
    if (schema.maxLength) control.maxLength = schema.maxLength;
    if (schema.pattern && !isLong) [control.pattern, control.title] = [schema.pattern, `matches ${schema.pattern}`];
    if (typeof schema.default === 'string') control.value = schema.default;
    return { control, isLarge: isLong, read: () => (control.value === '' && !isRequired ? undefined : control.value) };
  },

  json(schema, isRequired) {
    const control = element('textarea', { required: isRequired, spellcheck: false, placeholder: sample(schema) });
    if (schema.default !== undefined) control.value = pretty(schema.default);
    control.addEventListener('input', () => control.setCustomValidity(complaint(control.value, schema.type)));
    return { control, isLarge: true, read: () => (control.value.trim() === '' ? undefined : JSON.parse(control.value)) };
  },
};

const is = {
  array: Array.isArray,
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
};

/** Returns what is wrong with the JSON text of an argument; empty if nothing is. */
function complaint(text, type) {
  if (text.trim() === '') return '';
  try {
    const value = JSON.parse(text);
    return is[type] && !is[type](value) ? `JSON, but no ${type}` : '';
  } catch ({ message }) {
    return `no JSON: ${message}`;
  }
}

function sample({ type, items, examples }) {
  if (examples?.length) return JSON.stringify(examples[0]);
  if (type === 'array') return { number: '[1, 2, 3]', integer: '[1, 2, 3]', string: '["one", "two"]' }[items?.type] ?? '[ … ]';
  return type === 'object' ? '{ … }' : 'any JSON';
}

function kindOf({ enum: values, type }) {
  if (Array.isArray(values) || type === 'boolean') return 'choice';
  return { string: 'string', number: 'number', integer: 'number' }[type] ?? 'json';
}

function typeOf({ enum: values, type, items, format }) {
  if (values) return 'one of';
  if (type === 'array' && typeof items?.type === 'string') return `${items.type}[] as JSON`;
  if (type === 'array' || type === 'object') return `${type} as JSON`;
  return (type === 'string' && format) || (type ?? 'any, as JSON');
}

/** The form of one schema. Its `element` goes into a `form`; `values` are to be read once that is valid. */
export class SchemaForm {
  element = element('div', { className: 'fields' });
  #arguments = []; // { name, read }

  constructor(schema, prefix) {
    const root = resolve(schema, schema);
    const required = new Set(root.required);
    for (const [name, property] of Object.entries(root.properties ?? {})) {
      this.#add(name, simplify(property, schema), required.has(name), prefix);
    }
    if (this.#arguments.length === 0) this.element.hidden = true;
  }

  get isEmpty() { return this.#arguments.length === 0; }

  get values() {
    const given = this.#arguments.map(({ name, read }) => [name, read()]);
    return Object.fromEntries(given.filter(([, value]) => value !== undefined));
  }

  #add(name, schema, isRequired, prefix) {
    const { control, read, isLarge } = controls[kindOf(schema)](schema, isRequired, name);
    const id = `${prefix}-${name}`;
    Object.assign(control, { id, name });
    const type = `${typeOf(schema)}${isRequired ? '' : ', optional'}`;
    const label = element('label', { htmlFor: id }, schema.title ?? name, element('span', { className: 'type' }, schema.title && schema.title !== name ? `${name}: ${type}` : type));
    const field = element('div', { className: isLarge ? 'argument large' : 'argument' }, label, control);
    if (schema.description) {
      field.append(element('p', { className: 'note', id: `${id}-note` }, schema.description));
      control.setAttribute('aria-describedby', `${id}-note`);
    }
    this.element.append(field);
    this.#arguments.push({ name, read });
  }
}
